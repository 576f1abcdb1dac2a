//! Items of a file: JSON objects, rows of tables, lines of text.

use serde_json::{Map, Value};

use super::records::{Cut, Records};
use super::table::Table;
use crate::source::unpack::Compression;
use crate::strict_json;

/// The line of an invalid item, and the cause.
pub type InvalidItem = (u64, String);

/// The items of a file's text, each with its line. The file's name, without the extension of a compression, determines the
/// format: the first row of a `.csv` or `.tsv` has the names of the members, a line of a `.txt` is the member `prompt`, a
/// `.json` is a list of objects or has one after the other, every other file has one JSON object per line. Blank lines are
/// no items.
pub fn parse(name: &str, text: &str) -> Vec<Result<(u64, Value), InvalidItem>> {
    let (_, name) = Compression::of(name);
    let text = text.strip_prefix('\u{feff}').unwrap_or(text);
    match name.rsplit_once('.').map(|(_, extension)| extension) {
        Some("csv") => rows(text, None),
        Some("tsv") => rows(text, Some(b'\t')),
        Some("txt") => cut(text, Cut::Line, |text| {
            Ok(object([("prompt".to_owned(), text.to_owned())]))
        }),
        Some("json") => cut(text, Cut::Value, json),
        _ => cut(text, Cut::Lf, json),
    }
}

fn json(text: &str) -> Result<Value, String> {
    match strict_json::parse(text.as_bytes()) {
        Ok(value @ Value::Object(_)) => Ok(value),
        Ok(_) => Err("it is JSON, but not an object".to_owned()),
        Err(error) => Err(error.to_string()),
    }
}

/// An item of every record that is not blank.
fn cut(text: &str, cut: Cut, item: impl Fn(&str) -> Result<Value, String>) -> Vec<Result<(u64, Value), InvalidItem>> {
    let mut records = Records::new(text.as_bytes(), u64::MAX);
    let mut items = Vec::new();
    loop {
        match records.next(cut) {
            Ok(Some(record)) => {
                let text = String::from_utf8_lossy(&record.bytes);
                if !text.trim().is_empty() {
                    let item = item(&text).map(|item| (record.line, item));
                    items.push(item.map_err(|cause| (record.line, cause)));
                }
            }
            Ok(None) => return items,
            Err(error) => {
                items.push(Err((records.line(), error.to_string())));
                return items;
            }
        }
    }
}

fn object(members: impl IntoIterator<Item = (String, String)>) -> Value {
    let members = members.into_iter().map(|(name, text)| (name, Value::String(text)));
    Value::Object(members.collect::<Map<_, _>>())
}

/// Every row of a table under the names of its first one.
fn rows(text: &str, declared: Option<u8>) -> Vec<Result<(u64, Value), InvalidItem>> {
    let mut records = Records::new(text.as_bytes(), u64::MAX);
    let mut table: Option<Table> = None;
    let mut items = Vec::new();
    loop {
        let delimiter = table.as_ref().map_or(declared, |table| Some(table.delimiter));
        let record = match records.next(Cut::Row(delimiter)) {
            Ok(Some(record)) if record.bytes.is_empty() => continue,
            Ok(Some(record)) => record,
            Ok(None) => return items,
            Err(error) => {
                items.push(Err((records.line(), error.to_string())));
                return items;
            }
        };
        match &table {
            None => match Table::new(&record.bytes, declared, &[]) {
                Ok(first) => table = Some(first),
                Err(cause) => return vec![Err((record.line, cause))],
            },
            Some(table) => {
                let item = table.fields(&record.bytes).map(|fields| {
                    let texts = fields.iter().map(|field| String::from_utf8_lossy(field).into_owned());
                    (record.line, object(table.names.iter().cloned().zip(texts)))
                });
                items.push(item.map_err(|cause| (record.line, cause)));
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn all(name: &str, text: &str) -> Vec<Result<(u64, Value), InvalidItem>> {
        parse(name, text)
    }

    #[test]
    fn the_name_determines_the_format() {
        let item = |line, value| Ok((line, value));
        let table = "\u{feff}q;a\n#1;\"x\ny\"\n\n2;z;\n";
        let wrong = (5, "3 columns, and the first row has 2".to_owned());
        assert_eq!(
            all("x.csv", table),
            [item(2, json!({"q": "#1", "a": "x\ny"})), Err(wrong)]
        );
        assert_eq!(all("x.tsv.zst", "q\n1"), [item(2, json!({"q": "1"}))]);
        assert_eq!(
            all("x.txt", "a\r\n \nb"),
            [item(1, json!({"prompt": "a"})), item(3, json!({"prompt": "b"}))]
        );
        assert_eq!(
            all("x.json", "[{\"a\": 1},\n{}]"),
            [item(1, json!({"a": 1})), item(2, json!({}))]
        );
        assert_eq!(
            all("x.json", "{\"a\":\n1}\n{}"),
            [item(1, json!({"a": 1})), item(3, json!({}))]
        );
        let lines = all("x.jsonl.gz", "{\"a\": 1}\n\n[2]\n");
        assert_eq!(lines[0], item(1, json!({"a": 1})));
        assert_eq!(lines[1], Err((3, "it is JSON, but not an object".to_owned())));
    }
}
