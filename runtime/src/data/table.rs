//! Tables as text: CSV and TSV (RFC 4180), with a first row of names. No row is a comment.
//!
//! In: the bytes of a row. Out: its values. Not here: where a row ends (`records`).

use super::encoding::decode_utf8;
use super::records::DELIMITERS;

/// The first row of a table.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Table {
    pub names: Vec<String>,
    pub delimiter: u8,
}

impl Table {
    /// Reads the first row. Without a declared delimiter it is the one with which all wanted columns are there, or else the one
    /// that the row has most often.
    ///
    /// # Errors
    /// Two columns have the same name.
    pub fn new(row: &[u8], declared: Option<u8>, wanted: &[String]) -> Result<Self, String> {
        let split = |delimiter| -> Vec<String> {
            let fields = split(row, delimiter).into_iter();
            fields.map(|field| decode_utf8(field).0).collect()
        };
        let has_all = |names: &[String]| wanted.iter().all(|wanted| names.contains(wanted));
        let delimiter = declared.unwrap_or_else(|| {
            let all = DELIMITERS.map(|delimiter| (delimiter, split(delimiter)));
            let fitting = all.iter().find(|(_, names)| names.len() > 1 && has_all(names));
            // Of equals the first.
            let most = all.iter().rev().max_by_key(|(_, names)| names.len());
            fitting.or(most).map_or(b',', |(delimiter, _)| *delimiter)
        });
        let names = split(delimiter);
        for (second, name) in names.iter().enumerate() {
            if let Some(first) = names[..second].iter().position(|known| known == name) {
                return Err(format!(
                    "columns {} and {} have the same name `{name}`",
                    first + 1,
                    second + 1
                ));
            }
        }
        Ok(Self { names, delimiter })
    }

    /// The values of a row, as many as there are names.
    ///
    /// # Errors
    /// The row has another number of columns.
    pub fn fields(&self, row: &[u8]) -> Result<Vec<Vec<u8>>, String> {
        let fields = split(row, self.delimiter);
        let (found, expected) = (fields.len(), self.names.len());
        match found == expected {
            true => Ok(fields),
            false => Err(format!("{found} columns, and the first row has {expected}")),
        }
    }

    pub fn named_delimiter(&self) -> String {
        match self.delimiter {
            b'\t' => "tabs".to_owned(),
            other => format!("`{}`", char::from(other)),
        }
    }
}

/// The values of a row. Two quotes in a quoted value are one.
fn split(row: &[u8], delimiter: u8) -> Vec<Vec<u8>> {
    let mut reader = csv::ReaderBuilder::new()
        .has_headers(false)
        .flexible(true)
        .delimiter(delimiter)
        .buffer_capacity(row.len().max(1))
        .from_reader(row);
    let mut record = csv::ByteRecord::new();
    // Reading bytes from memory does not fail; a row of no bytes has no fields.
    if !matches!(reader.read_byte_record(&mut record), Ok(true)) {
        return vec![Vec::new()];
    }
    record.iter().map(<[u8]>::to_vec).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Expected: the rows that Python's `csv.reader` returns.
    #[test]
    fn values_are_those_of_rfc_4180() {
        let of = |row: &str, delimiter| -> Vec<String> {
            let fields = split(row.as_bytes(), delimiter).into_iter();
            fields.map(|field| String::from_utf8(field).expect("UTF-8")).collect()
        };
        assert_eq!(of("a, b ,", b','), ["a", " b ", ""]);
        assert_eq!(of("\"x\"\"y\",\"1\r\n2\",3\"4", b','), ["x\"y", "1\r\n2", "3\"4"]);
        assert_eq!(of("#a;b", b';'), ["#a", "b"]);
        assert_eq!(of("\"\"", b','), [""]);
    }

    #[test]
    fn the_delimiter_is_found() {
        let find = |row: &str, wanted: &[&str]| {
            let wanted: Vec<String> = wanted.iter().map(|&name| name.to_owned()).collect();
            Table::new(row.as_bytes(), None, &wanted).expect("a table").delimiter
        };
        assert_eq!(find("prompt;answer", &["prompt", "answer"]), b';');
        assert_eq!(find("a,b;c,d", &["b;c"]), b',');
        assert_eq!(find("a,b;text", &["text"]), b';');
        assert_eq!(find("x\ty,z\tw", &["q"]), b'\t');
        assert_eq!(find("text", &["text"]), b',');
        let error = Table::new(b"a,b,a", None, &[]).expect_err("twice");
        assert_eq!(error, "columns 1 and 3 have the same name `a`");
    }
}
