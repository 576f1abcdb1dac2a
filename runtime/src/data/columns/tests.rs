use std::collections::BTreeMap;

use arrow_array::builder::{Int64Builder, StringBuilder};
use arrow_array::{Array, ArrayRef, RecordBatch};
use std::sync::Arc;

use super::*;
use crate::errors::chain;

/// A table with one column, or with each that `wanted` names: the values by row.
type Columns = Vec<Vec<Option<String>>>;

fn folder() -> std::path::PathBuf {
    std::path::Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/data/columns")
}

fn bytes_of(name: &str) -> Vec<u8> {
    std::fs::read(folder().join(name)).expect("a file of the tests")
}

fn file(bytes: &[u8]) -> File {
    let here = Utf8Path::new(env!("CARGO_MANIFEST_DIR")).parent().expect("a folder");
    let temporary = std::env::temp_dir();
    let temporary = Utf8Path::from_path(&temporary).unwrap_or(here);
    seekable(&mut &bytes[..], temporary).expect("written")
}

fn wanted(kind: WantedKind, paths: &[&str]) -> Vec<Wanted> {
    let of = |path: &&str| Wanted {
        path: (*path).to_owned(),
        kind,
    };
    paths.iter().map(of).collect()
}

/// Reads by the extension of the name; returns the values, and the rows of each piece.
fn read_bytes(name: &str, bytes: &[u8], wanted: &[Wanted]) -> Result<(Columns, Vec<usize>), ColumnsError> {
    let mut columns: Columns = vec![Vec::new(); wanted.len()];
    let mut pieces = Vec::new();
    let mut next = 1;
    let mut visit = |rows: Rows| {
        assert_eq!(rows.first, next, "rows are numbered without a gap");
        next += rows.rows as u64;
        pieces.push(rows.rows);
        assert_eq!(rows.columns.len(), columns.len());
        for (all, column) in columns.iter_mut().zip(&rows.columns) {
            assert_eq!(column.len(), rows.rows);
            all.extend(column.iter().map(|value| value.map(str::to_owned)));
        }
        Ok(())
    };
    let rows = match name.rsplit_once('.').map(|(_, extension)| extension) {
        Some("parquet") => read_parquet(file(bytes), name, wanted, &mut visit)?,
        Some("arrow") => read_arrow(file(bytes), name, wanted, &mut visit)?,
        _ => read_arrow_stream(&mut &bytes[..], name, wanted, &mut visit)?,
    };
    assert_eq!(rows, pieces.iter().map(|&rows| rows as u64).sum::<u64>());
    Ok((columns, pieces))
}

fn read(name: &str, wanted: &[Wanted]) -> Result<Columns, ColumnsError> {
    read_bytes(name, &bytes_of(name), wanted).map(|(columns, _)| columns)
}

const FILES: [&str; 12] = [
    "plain.parquet",
    "snappy.parquet",
    "gzip.parquet",
    "brotli.parquet",
    "zstd.parquet",
    "lz4.parquet",
    "delta.parquet",
    "delta1.parquet",
    "plain.arrow",
    "lz4.arrow",
    "plain.arrows",
    "zstd.arrows",
];

/// The files and the expected values are those of pyarrow: `tests/data/columns/write.py`.
#[test]
fn values_are_those_that_pyarrow_reads() {
    let expected: BTreeMap<String, Vec<Option<String>>> =
        serde_json::from_slice(&bytes_of("expected.json")).expect("JSON");
    let paths: Vec<&str> = expected.keys().map(String::as_str).collect();
    for name in FILES {
        let columns =
            read(name, &wanted(WantedKind::Scalar, &paths)).unwrap_or_else(|error| panic!("{}", chain(&error)));
        for (path, column) in paths.iter().zip(columns) {
            assert_eq!(column, expected[*path], "{path} of {name}");
        }
        // Some of them, in another order, and one of them twice.
        let some = ["meta.n.deep", "text", "meta.text", "text"];
        let columns = read(name, &wanted(WantedKind::Scalar, &some)).expect("read");
        for (path, column) in some.iter().zip(columns) {
            assert_eq!(column, expected[*path], "{path} of {name}");
        }
    }
}

#[test]
fn columns_that_are_not_text_are_named_with_their_types() {
    for name in ["others.parquet", "others.arrows"] {
        let error = |kind, path: &str| chain(&read(name, &wanted(kind, &[path])).expect_err("not text"));
        let columns = "`text` (string), `tags` (list of string), `blob` (binary), `pairs` (map), `day` (date32), \
                       `meta.text` (string)";
        for (path, found) in [
            ("tags", "list of string"),
            ("blob", "binary"),
            ("pairs", "map"),
            ("day", "date32"),
            ("meta", "struct"),
        ] {
            for (kind, needed) in [
                (WantedKind::Text, "string"),
                (WantedKind::Scalar, "string, a number or a boolean"),
            ] {
                let expected = format!(
                    "column `{path}` of `{name}` has the type {found}, and {needed} is needed; the columns are {columns}"
                );
                assert_eq!(error(kind, path), expected);
            }
        }
        for path in ["body", "meta.body", "text.x", "tags.list.element", ""] {
            let expected = format!("`{name}` does not have a column `{path}`; it has {columns}");
            assert_eq!(error(WantedKind::Text, path), expected);
        }
        let columns = read(name, &wanted(WantedKind::Text, &["meta.text", "text"])).expect("read");
        assert_eq!(columns[0], [Some("t".to_owned()), None]);
    }
    for name in FILES {
        let error = read(name, &wanted(WantedKind::Text, &["id"])).expect_err("a number");
        assert!(chain(&error).contains("column `id`"), "{}", chain(&error));
        assert!(
            chain(&error).contains("has the type int64, and string is needed"),
            "{}",
            chain(&error)
        );
    }
}

fn parquet(batch: &RecordBatch, properties: ::parquet::file::properties::WriterProperties) -> Vec<u8> {
    let mut bytes = Vec::new();
    let writer = ::parquet::arrow::ArrowWriter::try_new(&mut bytes, batch.schema(), Some(properties));
    let mut writer = writer.expect("a schema");
    writer.write(batch).expect("in memory");
    writer.close().expect("in memory");
    bytes
}

fn arrow_stream(batch: &RecordBatch) -> Vec<u8> {
    let mut writer = arrow_ipc::writer::StreamWriter::try_new(Vec::new(), &batch.schema()).expect("a schema");
    writer.write(batch).expect("in memory");
    writer.into_inner().expect("in memory")
}

fn texts(texts: impl Iterator<Item = String>) -> RecordBatch {
    let mut builder = StringBuilder::new();
    texts.for_each(|text| builder.append_value(text));
    RecordBatch::try_from_iter([("text", Arc::new(builder.finish()) as ArrayRef)]).expect("one column")
}

#[test]
fn pieces_are_bounded_in_rows_and_in_bytes() {
    let many = texts((0..20_000).map(|number| number.to_string()));
    let large = texts((0..9).map(|number| number.to_string().repeat(5 << 20)));
    // Repeated, they are one value of a dictionary, and would be 40 GB.
    let repeated = texts((0..40).map(|_| "r".repeat(1 << 20)));
    let text = wanted(WantedKind::Text, &["text"]);
    for (batch, expected) in [
        (&many, [8192, 8192, 3616]),
        (&large, [3, 3, 3]),
        (&repeated, [16, 16, 8]),
    ] {
        let packed = ::parquet::basic::Compression::SNAPPY;
        let properties = ::parquet::file::properties::WriterProperties::builder().set_compression(packed);
        for (name, bytes) in [
            ("x.parquet", parquet(batch, properties.build())),
            ("x.arrows", arrow_stream(batch)),
        ] {
            let (columns, pieces) = read_bytes(name, &bytes, &text).expect("read");
            assert_eq!(pieces, expected, "{name}");
            let column = batch
                .column(0)
                .as_any()
                .downcast_ref::<arrow_array::StringArray>()
                .expect("strings");
            assert!(columns[0].iter().map(Option::as_deref).eq(column.iter()), "{name}");
        }
    }
}

#[test]
fn names_may_have_dots_and_may_not_be_ambiguous() {
    let column = |value: &str| {
        let mut builder = StringBuilder::new();
        builder.append_value(value);
        Arc::new(builder.finish()) as ArrayRef
    };
    let inner = arrow_schema::Field::new("text", DataType::Utf8, true);
    let nested = arrow_array::StructArray::new(vec![inner].into(), vec![column("nested")], None);
    let nested = Arc::new(nested) as ArrayRef;
    let batch = |columns: Vec<(&str, ArrayRef)>| {
        let field = |(name, array): &(&str, ArrayRef)| arrow_schema::Field::new(*name, array.data_type().clone(), true);
        let schema = Schema::new(columns.iter().map(field).collect::<Vec<_>>());
        let arrays = columns.into_iter().map(|(_, array)| array).collect();
        RecordBatch::try_new(Arc::new(schema), arrays).expect("one row")
    };
    let text = wanted(WantedKind::Text, &["meta.text"]);
    let properties = || ::parquet::file::properties::WriterProperties::builder().build();
    let dotted = batch(vec![("meta", column("x")), ("meta.text", column("dotted"))]);
    let both = batch(vec![("meta.text", column("dotted")), ("meta", nested)]);
    for (name, dotted, both) in [
        (
            "x.parquet",
            parquet(&dotted, properties()),
            parquet(&both, properties()),
        ),
        ("x.arrows", arrow_stream(&dotted), arrow_stream(&both)),
    ] {
        let (columns, _) = read_bytes(name, &dotted, &text).expect("one of them");
        assert_eq!(columns[0], [Some("dotted".to_owned())]);
        let error = read_bytes(name, &both, &text).expect_err("two of them");
        assert_eq!(
            chain(&error),
            format!("`{name}` has several columns `meta.text`: rename one of them")
        );
    }
}

/// A writer that states UTF-8 and writes other bytes.
#[test]
fn invalid_text_of_parquet_is_replaced_and_counted() {
    let schema = ::parquet::schema::parser::parse_message_type("message m { required binary text (STRING); }");
    let mut bytes = Vec::new();
    let properties = Default::default();
    let writer =
        ::parquet::file::writer::SerializedFileWriter::new(&mut bytes, Arc::new(schema.expect("a schema")), properties);
    let mut writer = writer.expect("in memory");
    let mut group = writer.next_row_group().expect("in memory");
    let mut column = group.next_column().expect("in memory").expect("one column");
    let values = [&b"good"[..], b"a\xff\xfeb", b"\xe9"].map(|value| value.to_vec().into());
    let typed = column.typed::<::parquet::data_type::ByteArrayType>();
    typed.write_batch(&values, None, None).expect("in memory");
    column.close().expect("in memory");
    group.close().expect("in memory");
    writer.close().expect("in memory");
    let mut found = Vec::new();
    read_parquet::<ColumnsError>(file(&bytes), "x", &wanted(WantedKind::Text, &["text"]), &mut |rows| {
        found.push(rows);
        Ok(())
    })
    .expect("read");
    let column: Vec<_> = found[0].columns[0].iter().flatten().collect();
    assert_eq!(column, ["good", "a\u{fffd}\u{fffd}b", "\u{fffd}"]);
    assert_eq!(found[0].invalid, [(2, 2), (3, 1)]);
}

/// Every cut, and thousands of changed bytes: an error, or values, and never a panic or much memory.
#[test]
fn damaged_files_are_errors() {
    let scalar = wanted(
        WantedKind::Scalar,
        &["text", "large", "meta.text", "meta.n.deep", "kind", "flag", "double"],
    );
    for name in FILES {
        let bytes = bytes_of(name);
        for end in (0..bytes.len()).step_by(3).chain(bytes.len() - 12..bytes.len()) {
            let read = read_bytes(name, &bytes[..end], &scalar);
            // A stream may end between two batches, without the mark of its end.
            if let Ok((columns, _)) = &read {
                assert!(name.ends_with(".arrows") && columns[0].len() <= 13, "{name} {end}");
            }
        }
        let mut state = 1u64;
        for at in 0..bytes.len() {
            // Source of the constants: Knuth, MMIX.
            state = state
                .wrapping_mul(6364136223846793005)
                .wrapping_add(1442695040888963407);
            for value in [
                0,
                0x7f,
                0x80,
                0xff,
                bytes[at] ^ (1 << (state >> 61)),
                (state >> 40) as u8,
            ] {
                let mut damaged = bytes.clone();
                damaged[at] = value;
                let _ = read_bytes(name, &damaged, &scalar);
            }
        }
    }
}

#[test]
fn rows_that_a_file_only_states_are_errors() {
    let mut numbers = Int64Builder::new();
    (0..100).for_each(|number| numbers.append_value(number));
    let batch = RecordBatch::try_from_iter([("id", Arc::new(numbers.finish()) as ArrayRef)]).expect("one column");
    let bytes = parquet(&batch, ::parquet::file::properties::WriterProperties::builder().build());
    let id = wanted(WantedKind::Scalar, &["id"]);
    assert_eq!(read_bytes("x.parquet", &bytes, &id).expect("read").0[0].len(), 100);
    // `num_rows` of the file and of the row group, and `num_values` of the column, are 100: 0xc8 0x01 as a varint.
    let footer = bytes.len() - 8 - u32::from_le_bytes(bytes[bytes.len() - 8..][..4].try_into().expect("four")) as usize;
    let mut fewer = bytes.clone();
    let mut stated = 0;
    for at in footer..bytes.len() - 9 {
        if bytes[at..at + 2] == [0xc8, 0x01] {
            let mut more = bytes.clone();
            more[at + 1] = 0x7f;
            let read = read_bytes("x.parquet", &more, &id);
            assert!(read.is_err() || read.is_ok_and(|(columns, _)| columns[0].len() == 100));
            fewer[at] = 0xc6;
            stated += 1;
        }
    }
    assert!(stated >= 2);
    // 99 everywhere, so that only the page has the last row.
    let error = read_bytes("x.parquet", &fewer, &id).expect_err("a row would be lost");
    assert!(chain(&error).contains("more values"), "{}", chain(&error));
}

#[test]
fn other_files_are_errors() {
    let text = wanted(WantedKind::Text, &["text"]);
    for name in ["x.parquet", "x.arrow", "x.arrows"] {
        for bytes in [
            &b""[..],
            b"PAR1",
            b"PAR1PAR1PAR1",
            b"{\"text\": \"a\"}\n{\"text\": \"b\"}\n",
            b"ARROW1\0\0ARROW1",
            &[0xff; 100],
        ] {
            let error = read_bytes(name, bytes, &text).expect_err("another format");
            assert!(chain(&error).contains(name), "{}", chain(&error));
        }
    }
    let mut encrypted = bytes_of("plain.parquet");
    let end = encrypted.len();
    encrypted[end - 1] = b'E';
    let error = read_bytes("x.parquet", &encrypted, &text).expect_err("encrypted");
    assert!(chain(&error).contains("it is encrypted"), "{}", chain(&error));
}

/// A dictionary or a list of lengths that states billions of values.
#[test]
fn lengths_are_checked_before_memory_is_taken() {
    use thrift::{PageHeader, is_schema_valid, page_header};
    // Field 1 (i32) 0, field 2 (i32) 100, field 3 (i32) 50, field 5 a structure with field 1 (i32) 7, end, end.
    let header = [0x15, 0x00, 0x15, 200, 1, 0x15, 100, 0x2c, 0x15, 14, 0, 0];
    let expected = PageHeader {
        length: 12,
        kind: 0,
        unpacked: 100,
        packed: 50,
        levels: 0,
    };
    assert_eq!(page_header(&header), Some(expected));
    for end in 0..header.len() {
        assert_eq!(page_header(&header[..end]), None);
    }
    // Field 2 a list of structures: a group with `children`, then leaves.
    let schema = |children: u8, leaves: usize| {
        let mut bytes = vec![0x29, (leaves as u8 + 1) << 4 | 12];
        bytes.extend([0x55, children * 2, 0]);
        bytes.extend(vec![0; leaves]);
        bytes.push(0);
        bytes
    };
    assert!(is_schema_valid(&schema(3, 3)));
    assert!(!is_schema_valid(&schema(4, 3)));
    assert!(!is_schema_valid(&schema(2, 3)));
    // Groups of one child each, deeper than any schema.
    let mut deep = vec![0x29, 0xfc, 100];
    (0..99).for_each(|_| deep.extend([0x55, 2, 0]));
    deep.extend([0, 0]);
    assert!(!is_schema_valid(&deep));
}

#[test]
fn a_stream_becomes_a_file() {
    let folder = tempfile::tempdir().expect("a temporary folder");
    let path = Utf8Path::from_path(folder.path()).expect("UTF-8");
    let bytes = bytes_of("plain.parquet");
    let file = seekable(&mut &bytes[..], path).expect("written");
    let text = wanted(WantedKind::Text, &["text"]);
    let rows = read_parquet::<ColumnsError>(file, "x", &text, &mut |_| Ok(())).expect("read");
    assert_eq!(rows, 13);
    assert_eq!(std::fs::read_dir(folder.path()).expect("a folder").count(), 0);
}

/// A page header with these fields, and the page.
fn page(kind: i64, unpacked: i64, packed: &[u8], stated: i64, fields: &[u8]) -> Vec<u8> {
    let number = |value: i64| {
        let mut zigzag = (value << 1 ^ value >> 63).cast_unsigned();
        let mut bytes = Vec::new();
        while zigzag >= 0x80 {
            bytes.push(zigzag as u8 | 0x80);
            zigzag >>= 7;
        }
        bytes.push(zigzag as u8);
        bytes
    };
    let mut bytes = Vec::new();
    for value in [kind, unpacked, stated] {
        bytes.push(0x15);
        bytes.extend(number(value));
    }
    bytes.extend(fields);
    bytes.push(0);
    bytes.extend(packed);
    bytes
}

/// The first page of a required column of strings that consists of these bytes.
fn first_page(bytes: &[u8], packing: ::parquet::basic::Compression) -> Result<(), String> {
    use ::parquet::column::page::PageReader;
    let schema = ::parquet::schema::parser::parse_message_type("message m { required binary text (STRING); }");
    let schema = ::parquet::schema::types::SchemaDescriptor::new(Arc::new(schema.expect("a schema")));
    let column = ::parquet::file::metadata::ColumnChunkMetaData::builder(schema.column(0))
        .set_compression(packing)
        .set_data_page_offset(0)
        .set_total_compressed_size(bytes.len() as i64)
        .build()
        .expect("a column");
    let mut pages = pages::CheckedPages::new(&Arc::new(file(bytes)), &column, 1).expect("a column");
    pages.get_next_page().map(|_| ()).map_err(|error| error.to_string())
}

#[test]
fn pages_that_state_too_much_are_refused() {
    use ::parquet::basic::{Compression, GzipLevel};
    // `data_page_header`: 1 value, encodings PLAIN, RLE, RLE; `dictionary_page_header`: the number of values, PLAIN.
    let data = |encoding: u8| [0x2c, 0x15, 2, 0x15, encoding * 2, 0x15, 6, 0x15, 6, 0];
    let dictionary = |values: &[u8]| [&[0x4c, 0x15][..], values, &[0x15, 0, 0]].concat();
    let text = [4, 0, 0, 0, b't', b'e', b'x', b't'];
    let plain = Compression::UNCOMPRESSED;
    let gzip = Compression::GZIP(GzipLevel::default());
    assert_eq!(first_page(&page(0, 8, &text, 8, &data(0)), plain), Ok(()));
    assert_eq!(first_page(&page(2, 8, &text, 8, &dictionary(&[2])), plain), Ok(()));
    // Three lengths of which the page has the first: in DELTA_LENGTH_BYTE_ARRAY, and as prefixes in DELTA_BYTE_ARRAY.
    let lengths = |count: u8| [&[128, 1, 4, count, 0][..], &[0; 16]].concat();
    // More than deflate is harmless for, and it states 1000 bytes.
    let mut state = 1u64;
    let noise = std::iter::repeat_with(|| {
        state = state
            .wrapping_mul(6364136223846793005)
            .wrapping_add(1442695040888963407);
        (state >> 56) as u8
    });
    let noise: Vec<u8> = noise.take(3 << 19).collect();
    let mut packed = Vec::new();
    flate2::read::GzEncoder::new(&noise[..], flate2::Compression::fast())
        .read_to_end(&mut packed)
        .expect("in memory");
    let large = "needs more than 1 GiB of memory";
    for (bytes, packing, cause) in [
        (page(0, (1 << 30) + 1, &text, 8, &data(0)), Compression::SNAPPY, large),
        (page(0, 8, &text, (1 << 30) + 1, &data(0)), plain, large),
        (page(0, -1, &text, 8, &data(0)), plain, "a negative length"),
        (page(0, 8, &text, -1, &data(0)), plain, "a negative length"),
        // 2^20 and 2^31 - 1 values in 8 bytes.
        (
            page(2, 8, &text, 8, &dictionary(&[0x80, 0x80, 0x80, 1])),
            plain,
            "more values than it has bytes",
        ),
        (
            page(2, 8, &text, 8, &dictionary(&[0xfe, 0xff, 0xff, 0xff, 0x0f])),
            plain,
            large,
        ),
        (page(0, 8, &text, 8, &data(8)), plain, "uses a dictionary"),
        (
            page(0, 21, &lengths(3), 21, &data(6)),
            plain,
            "more lengths than it has values",
        ),
        (
            page(0, 21, &lengths(3), 21, &data(7)),
            plain,
            "more lengths than it has values",
        ),
        (
            page(0, 1000, &packed, packed.len() as i64, &data(0)),
            gzip,
            "unpacks to more than it states",
        ),
        (vec![0xff; 100], plain, "no valid header"),
    ] {
        let error = first_page(&bytes, packing).expect_err(cause);
        assert!(error.contains(cause), "{cause}: {error}");
    }
    let whole = page(0, noise.len() as i64, &packed, packed.len() as i64, &data(0));
    assert_eq!(first_page(&whole, gzip), Ok(()));
}
