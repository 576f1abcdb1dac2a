use std::collections::BTreeMap;
use std::io::{Read, Write};

use aurora_compiler::fields::{Format, PageReference, RowDocument, TextUnit};
use camino::Utf8PathBuf;

use super::*;
use crate::data::documents::Document;

fn folder() -> (tempfile::TempDir, Utf8PathBuf) {
    let folder = tempfile::tempdir().expect("a temporary folder");
    let path = Utf8PathBuf::try_from(folder.path().to_owned()).expect("UTF-8");
    (folder, path)
}

fn gzip(bytes: &[u8]) -> Vec<u8> {
    let mut encoder = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::fast());
    encoder.write_all(bytes).expect("in memory");
    encoder.finish().expect("in memory")
}

fn tar(members: &[(&str, &[u8])]) -> Vec<u8> {
    let mut builder = tar::Builder::new(Vec::new());
    for (path, bytes) in members {
        let mut header = tar::Header::new_gnu();
        header.set_size(bytes.len() as u64);
        header.set_mode(0o644);
        builder.append_data(&mut header, path, *bytes).expect("in memory");
    }
    builder.into_inner().expect("in memory")
}

fn input(folder: &Utf8Path, name: &str, bytes: &[u8]) -> InputFile {
    let path = folder.join(name);
    std::fs::write(&path, bytes).expect("written");
    InputFile::from(path.as_path())
}

fn fields(files: &[&str], format: Format) -> ExtractFields {
    ExtractFields {
        files: files.iter().map(|&f| f.to_owned()).collect(),
        exclude: vec![],
        format,
        encoding: None,
    }
}

/// Extracts into a new folder; the documents as (id, text), and the report.
fn run(
    fields: &ExtractFields,
    files: &[InputFile],
    reference: Option<&[InputFile]>,
) -> Result<(Vec<(String, String)>, ExtractReport), ExtractError> {
    let (_guard, out) = folder();
    let limits = ExtractLimits::default();
    let report = extract(fields, files, reference, limits, &out, ProgressReporter::none())?;
    let mut names: Vec<String> = out
        .read_dir_utf8()
        .expect("read")
        .map(|e| e.expect("read").file_name().into())
        .collect();
    names.sort();
    assert_eq!(
        names,
        ["documents.jsonl", "report.json"],
        "nothing else is left in the folder"
    );
    let text = std::fs::read_to_string(out.join("documents.jsonl")).expect("read");
    let documents = text.lines().map(|line| {
        let document: Document = serde_json::from_str(line).expect("a document");
        (document.id, document.text)
    });
    Ok((documents.collect(), report))
}

fn pairs(documents: &[(String, String)]) -> Vec<(&str, &str)> {
    documents
        .iter()
        .map(|(id, text)| (id.as_str(), text.as_str()))
        .collect()
}

/// The counts of rows that became no document.
fn dropped(report: &ExtractReport) -> Vec<(&str, u64)> {
    let counts = report.dropped.iter();
    counts
        .map(|(reason, counted)| (reason.as_str(), counted.rows))
        .collect()
}

fn row(text: &str) -> RowDocument {
    RowDocument {
        text: text.to_owned(),
        id: None,
    }
}

fn jsonl(text: &str) -> ExtractFields {
    fields(&[], Format::Jsonl(row(text)))
}

#[test]
fn members_come_out_sorted_whatever_their_order_in_the_archive() {
    let (_guard, path) = folder();
    let page = gzip("toinen\nrivi\n\nkappale".as_bytes());
    let members: [(&str, &[u8]); 5] = [
        ("./b/2.txt", b"b2"),
        ("a/1.txt.gz", &page),
        ("a/0.md", b"no"),
        ("a/9.txt", b" \n "),
        ("a/8.txt", b""),
    ];
    let file = input(&path, "x.tgz", &gzip(&tar(&members)));
    let fields = fields(&["**/*.txt", "**/*.txt.gz"], Format::Text { by: TextUnit::File });
    let (documents, report) = run(&fields, &[file], None).expect("extracted");
    assert_eq!(
        pairs(&documents),
        [
            ("a/1.txt", "toinen\nrivi\n\nkappale"),
            ("a/9.txt", " \n "),
            ("b/2.txt", "b2")
        ]
    );
    assert_eq!(
        (
            report.members,
            report.matched,
            report.rows,
            report.documents,
            report.bytes
        ),
        (5, 4, 3, 3, 25)
    );
    assert!(report.dropped.is_empty());
    let files: Vec<(&str, u64)> = report
        .files
        .iter()
        .map(|file| (file.file.as_str(), file.rows))
        .collect();
    assert_eq!(files, [("a/1.txt", 1), ("a/8.txt", 0), ("a/9.txt", 1), ("b/2.txt", 1)]);
}

#[test]
fn lines_are_documents_and_invalid_bytes_are_counted() {
    let (_guard, path) = folder();
    let lines = [&b"yksi  rivi \n\nkaksi\r"[..], &[0xff, b'a', 0xfe, b'\n'], b"kolme"].concat();
    let file = input(&path, "s.txt", &lines);
    let (documents, report) = run(&fields(&[], Format::Text { by: TextUnit::Line }), &[file], None).expect("extracted");
    assert_eq!(
        pairs(&documents),
        [
            ("s.txt:1", "yksi  rivi "),
            ("s.txt:3", "kaksi"),
            ("s.txt:4", "\u{fffd}a\u{fffd}"),
            ("s.txt:5", "kolme")
        ]
    );
    let invalid = report.invalid.expect("invalid bytes");
    assert_eq!(
        (invalid.rows, invalid.replaced, invalid.first),
        (1, 2, vec!["s.txt:4".to_owned()])
    );
    let blocks = input(&path, "b.txt", b"\none\n two\n\n\nthree\n");
    let by_block = fields(&[], Format::Text { by: TextUnit::Block });
    let (documents, _) = run(&by_block, &[blocks], None).expect("extracted");
    assert_eq!(pairs(&documents), [("b.txt:2", "one\n two"), ("b.txt:6", "three")]);
}

/// Expected: what Python reads as `open(path, encoding="utf-16")` and `encoding="windows-1252"`.
#[test]
fn encodings_are_those_of_marks_and_declarations() {
    let (_guard, path) = folder();
    let wide: Vec<u8> = "\u{feff}aä\n😀\n".encode_utf16().flat_map(u16::to_le_bytes).collect();
    let file = input(&path, "wide.txt", &wide);
    let by_line = fields(&[], Format::Text { by: TextUnit::Line });
    let (documents, report) = run(&by_line, &[file], None).expect("extracted");
    assert_eq!(pairs(&documents), [("wide.txt:1", "aä"), ("wide.txt:2", "😀")]);
    assert_eq!(report.invalid, None);
    // Without its mark: every other byte is zero.
    let unmarked: Vec<u8> = "plain text\nä\n".encode_utf16().flat_map(u16::to_le_bytes).collect();
    let file = input(&path, "le.txt", &unmarked);
    let (documents, report) = run(&by_line, &[file], None).expect("extracted");
    assert_eq!(pairs(&documents), [("le.txt:1", "plain text"), ("le.txt:2", "ä")]);
    assert_eq!(report.files[0].encoding.as_deref(), Some("UTF-16LE"));
    let half = [&wide[..6], &[0x3d, 0xd8, b'\n', 0, b'x', 0]].concat();
    let file = input(&path, "half.txt", &half);
    let (documents, report) = run(&by_line, &[file], None).expect("extracted");
    assert_eq!(pairs(&documents), [("half.txt:1", "aä\u{fffd}"), ("half.txt:2", "x")]);
    assert_eq!(report.invalid.expect("half a pair").first, ["half.txt:1"]);
    let mut declared = jsonl("{text}");
    declared.encoding = Some("windows-1252".to_owned());
    let file = input(&path, "x.jsonl", b"{\"text\": \"\x80 \xe4\"}\n");
    let (documents, _) = run(&declared, &[file], None).expect("extracted");
    assert_eq!(pairs(&documents), [("x.jsonl:1", "€ ä")]);
    let marked = input(&path, "bom.jsonl", b"\xef\xbb\xbf{\"text\": \"a\"}\n{\"text\": \"b\"}");
    let (documents, _) = run(&jsonl("{text}"), &[marked], None).expect("extracted");
    assert_eq!(pairs(&documents), [("bom.jsonl:1", "a"), ("bom.jsonl:2", "b")]);
}

#[test]
fn every_row_of_jsonl_is_a_document_or_counted() {
    let (_guard, path) = folder();
    let text = "def f():\r\n\tif x:\n\n\t\treturn  1 \n\u{2028}";
    let whole = serde_json::json!({ "text": text, "n": 1 }).to_string();
    let lines = format!(
        "{whole}\r\n\n{{\"other\": \"c\"}}\nnot json\n{{\"text\":\"d\"}}\n{{\"text\": null}}\n{{\"text\": \"\"}}\n{{\"text\": 3}}\n"
    );
    let file = input(&path, "d.jsonl.gz", &gzip(lines.as_bytes()));
    let (documents, report) = run(&jsonl("{text}"), &[file], None).expect("extracted");
    assert_eq!(pairs(&documents), [("d.jsonl:1", text), ("d.jsonl:5", "d")]);
    assert_eq!((report.rows, report.documents), (7, 2));
    assert_eq!(
        dropped(&report),
        [("empty", 1), ("malformed", 2), ("missing_field", 1), ("null", 1)]
    );
    assert_eq!(
        report.dropped["malformed"].first,
        [
            "d.jsonl:4: expected ident, column 2",
            "d.jsonl:8: `text` is 3, expected a text"
        ]
    );
    assert_eq!(
        report.dropped["missing_field"].first,
        ["d.jsonl:3: there is no `text`; there is `other`"]
    );
    let counts: BTreeMap<String, u64> = dropped(&report)
        .into_iter()
        .map(|(why, n)| (why.to_owned(), n))
        .collect();
    assert_eq!(report.files[0].dropped, counts);
}

#[test]
fn documents_are_composed_and_have_the_identifier_of_their_row() {
    let (_guard, path) = folder();
    let lines = "{\"meta\": {\"title\": \"T\", \"year\": 1999}, \"body\": \"B\", \"key\": 7}\n";
    let file = input(&path, "d.jsonl", lines.as_bytes());
    let composed = fields(
        &[],
        Format::Jsonl(RowDocument {
            text: "{meta.title} ({meta.year})\n\n{body}".to_owned(),
            id: Some("key".to_owned()),
        }),
    );
    let (documents, _) = run(&composed, &[file], None).expect("extracted");
    assert_eq!(pairs(&documents), [("7", "T (1999)\n\nB")]);
}

#[test]
fn json_files_are_lists_or_objects() {
    let (_guard, path) = folder();
    let list = input(
        &path,
        "list.json",
        b"[{\"text\": \"a \"},\n {\"text\": null},\n{\"text\": \"b\"}]\n",
    );
    let json = |text: &str| fields(&[], Format::Json(row(text)));
    let (documents, report) = run(&json("{text}"), &[list], None).expect("extracted");
    assert_eq!(pairs(&documents), [("list.json:1", "a "), ("list.json:3", "b")]);
    assert_eq!(dropped(&report), [("null", 1)]);
    let object = br#"{"@meta": {"text": "m"}, "list": [{"text": "x"}, {"text": ["y", "z"]}], "name": "w"}"#;
    let file = input(&path, "d.json", object);
    let (documents, _) = run(&json("{text}"), std::slice::from_ref(&file), None).expect("extracted");
    assert_eq!(
        pairs(&documents),
        [
            ("d.json:1#1", "m"),
            ("d.json:1#2", "x"),
            ("d.json:1#3", "y"),
            ("d.json:1#4", "z")
        ]
    );
    // Objects one after the other: every document has its own identifier.
    let lines = input(
        &path,
        "l.json",
        b"{\"text\": \"a\"}\n{\"text\": \"b\", \"o\": {\"text\": \"c\"}}\n",
    );
    let (documents, _) = run(&json("{text}"), &[lines], None).expect("extracted");
    assert_eq!(
        pairs(&documents),
        [("l.json:1#1", "a"), ("l.json:2#1", "c"), ("l.json:2#2", "b")]
    );
    let half = input(&path, "h.json", br#"{"a": "x\ud83d", "b": "y"}"#);
    let (documents, report) = run(&fields(&[], Format::JsonStrings), &[half], None).expect("extracted");
    assert_eq!(pairs(&documents), [("h.json", "x\u{fffd}\ny")]);
    assert_eq!(report.invalid.expect("half a pair").replaced, 1);
    let (documents, _) = run(&fields(&[], Format::JsonStrings), &[file], None).expect("extracted");
    assert_eq!(pairs(&documents), [("d.json", "m\nx\ny\nz\nw")]);
}

/// Expected: the rows that Python's `csv.reader` returns.
#[test]
fn tables_have_no_comments_and_any_delimiter() {
    let (_guard, path) = folder();
    let csv = |text: &str, delimiter: Option<&str>| {
        let delimiter = delimiter.map(str::to_owned);
        let document = row(text);
        fields(&[], Format::Csv { document, delimiter })
    };
    let table = "\u{feff}text;n\r\n#1;2\r\n\"a\n \"\"b\"\"\";3\r\n\r\nc;4;5\r\n";
    let file = input(&path, "t.csv", table.as_bytes());
    let (documents, report) = run(&csv("{text}", None), std::slice::from_ref(&file), None).expect("extracted");
    assert_eq!(pairs(&documents), [("t.csv:2", "#1"), ("t.csv:3", "a\n \"b\"")]);
    assert_eq!(
        report.dropped["malformed"].first,
        ["t.csv:6: 3 columns, and the first row has 2"]
    );
    let wrong = run(&csv("{text}", Some(",")), std::slice::from_ref(&file), None).expect_err("another delimiter");
    assert_eq!(
        wrong.to_string(),
        "`t.csv`: there is no column `text`; there is `text;n`, separated by `,`"
    );
    let open = input(&path, "open.csv", b"text\na\n\"b\nc\n");
    let error = run(&csv("{text}", None), &[open], None)
        .expect_err("a quote")
        .to_string();
    assert_eq!(error, "`open.csv`: line 3: a quote that begins here is not closed");
}

#[test]
fn what_cannot_be_read_is_named() {
    let (_guard, path) = folder();
    let error = |fields: &ExtractFields, name: &str, bytes: &[u8]| {
        let file = input(&path, name, bytes);
        crate::errors::chain(&run(fields, &[file], None).expect_err(name))
    };
    let text = jsonl("{text}");
    let list = error(&text, "list.jsonl", b"[\n{\"text\": \"a\"},\n{\"text\": \"b\"}\n]\n");
    assert_eq!(
        list,
        "`list.jsonl`: its lines are not JSON objects; it looks like a JSON array; write `json(…)`"
    );
    let renamed = error(&text, "d.jsonl", b"{\"content\": \"a\"}\n{\"content\": \"b\"}\n");
    assert_eq!(
        renamed,
        "`d.jsonl` has 2 rows, and none has the wanted member: d.jsonl:1: there is no `text`; there is `content`"
    );
    let empty = error(&text, "e.jsonl", b"\n\n");
    assert_eq!(empty, "no document is in `e.jsonl`, because there are no rows");
    let nothing = error(&text, "n.jsonl", b"{\"text\": \"\"}\n");
    assert_eq!(nothing, "no document is in `n.jsonl`: 1 empty (n.jsonl:1)");
    let packed = error(&text, "z.jsonl", &gzip(b"{\"text\": \"a\"}\n"));
    assert!(packed.contains("looks like gzip"), "{packed}");
    let mut declared = fields(&[], Format::Text { by: TextUnit::File });
    declared.encoding = Some("windows-1252".to_owned());
    let marked = error(&declared, "m.txt", b"\xef\xbb\xbfa");
    assert!(
        marked.starts_with("`m.txt`: the text begins with the byte-order mark of UTF-8"),
        "{marked}"
    );
    let pointer = b"version https://git-lfs.github.com/spec/v1\noid sha256:0\nsize 1\n";
    let pointer = error(&text, "p.jsonl", pointer);
    assert!(
        pointer.contains("a Git LFS pointer; `git lfs pull` fetches the file"),
        "{pointer}"
    );
    // A file without a document beside another one is counted.
    let files = [
        input(&path, "a.jsonl", b"{\"text\": \"a\"}\n"),
        input(&path, "b.jsonl", b""),
    ];
    let (documents, report) = run(&text, &files, None).expect("extracted");
    assert_eq!((documents.len(), report.files[1].rows), (1, 0));
}

#[test]
fn malformed_rows_have_a_limit() {
    let (_guard, path) = folder();
    let lines = |bad: usize| format!("{}{}", "{\"text\": \"a\"}\n".repeat(10_000 - bad), "x\n".repeat(bad));
    let extracted = |bad: usize, malformed_ppm: u32| {
        let file = input(&path, "d.jsonl", lines(bad).as_bytes());
        let (_guard, out) = folder();
        let limits = ExtractLimits { malformed_ppm };
        extract(&jsonl("{text}"), &[file], None, limits, &out, ProgressReporter::none())
    };
    assert_eq!(extracted(10, 1000).expect("few").malformed(), 10);
    let error = extracted(11, 1000)
        .expect_err("more than 10, and than 0.1%")
        .to_string();
    assert!(
        error.starts_with("11 of 10000 rows are malformed, and at most 0.1% may be: d.jsonl:9990: "),
        "{error}"
    );
    assert!(error.contains("`malformed = …%` in the source"), "{error}");
    assert_eq!(extracted(11, 1100).expect("as many as allowed").malformed(), 11);
    assert!(extracted(12, 1100).is_err());
    assert_eq!(extracted(500, 1_000_000).expect("all may be").malformed(), 500);
}

#[test]
fn code_keeps_its_bytes() {
    let (_guard, path) = folder();
    let code = "def f(x):\r\n\treturn  x\n\n\n";
    let mut zip = zip::ZipWriter::new(std::io::Cursor::new(Vec::new()));
    let options = zip::write::SimpleFileOptions::default();
    for (name, bytes) in [("p/z.py", code), ("p/tests/t.py", "no"), ("p/a.py", "a")] {
        zip.start_file(name, options).expect("in memory");
        zip.write_all(bytes.as_bytes()).expect("in memory");
    }
    let file = input(
        &path,
        "p-1.0-py3-none-any.whl",
        &zip.finish().expect("in memory").into_inner(),
    );
    let mut fields = fields(&["**/*.py"], Format::Code);
    fields.exclude = vec!["**/tests/**".into()];
    let (documents, _) = run(&fields, &[file], None).expect("extracted");
    assert_eq!(pairs(&documents), [("p/a.py", "a"), ("p/z.py", code)]);
}

/// A deb in each compression that Debian uses.
#[test]
fn debian_packages() {
    let data = tar(&[("./usr/share/man/fi/man1/ls.1.gz", &gzip(b".SH X\nluettele hakemisto\n"))]);
    let mut xz = Vec::new();
    liblzma::read::XzEncoder::new(&data[..], 1)
        .read_to_end(&mut xz)
        .expect("in memory");
    let zstd = zstd::encode_all(&data[..], 1).expect("in memory");
    for (ending, data) in [("", data.clone()), (".gz", gzip(&data)), (".xz", xz), (".zst", zstd)] {
        let (_guard, path) = folder();
        let mut builder = ar::Builder::new(Vec::new());
        for (name, bytes) in [
            ("debian-binary", b"2.0\n".to_vec()),
            (&format!("data.tar{ending}"), data),
        ] {
            let header = ar::Header::new(name.as_bytes().to_vec(), bytes.len() as u64);
            builder.append(&header, &bytes[..]).expect("in memory");
        }
        let file = input(&path, "man_1_all.deb", &builder.into_inner().expect("in memory"));
        let (documents, _) = run(&fields(&["usr/share/man/fi/**"], Format::Roff), &[file], None).expect("extracted");
        assert_eq!(
            pairs(&documents),
            [("usr/share/man/fi/man1/ls.1", "luettele hakemisto")]
        );
    }
}

#[test]
fn pages_by_selector_against_reference_pages() {
    let (_guard, path) = folder();
    let own = "<html><head><title>t</title></head><body><p>outside</p><div id=main>\
               <h1 id=h>Otsikko</h1><p id=a>Käännetty <b>teksti</b>,<br>toinen\n rivi</p><p id=b>Not translated</p>\
               <p id=c class=code>x = 1</p><ul><li id=d>kohta<p id=e>sisällä</p>perässä</li></ul><script>no</script>\
               <p>Not translated</p></div></body></html>";
    let other = "<div id=main><h1 id=h>Heading</h1><p id=a>Translated text</p><p id=b>Not  translated</p></div>";
    let own = input(&path, "own.tar", &tar(&[("help/fi/p.html", own.as_bytes())]));
    let other = input(&path, "other.tar", &tar(&[("help/en-US/p.html", other.as_bytes())]));
    let html = |own: &str| Format::Html {
        select: "#main".into(),
        drop: Some(".code".into()),
        reference: Some(PageReference {
            own: own.into(),
            other: "/en-US/".into(),
        }),
    };
    let files = ["help/fi/*.html"];
    let (documents, report) = run(
        &fields(&files, html("/fi/")),
        std::slice::from_ref(&own),
        Some(std::slice::from_ref(&other)),
    )
    .expect("extracted");
    assert_eq!(
        pairs(&documents),
        [(
            "help/fi/p.html",
            "Otsikko\nKäännetty teksti, toinen rivi\nkohta\nsisällä\nperässä\nNot translated"
        )]
    );
    assert_eq!(report.left_out, [("paragraphs_same_as_reference".to_owned(), 1)].into());

    let wrong = fields(&files, html("/suomi/"));
    assert!(matches!(
        run(&wrong, std::slice::from_ref(&own), Some(&[other])),
        Err(ExtractError::NoPairs { .. })
    ));
    assert!(matches!(run(&wrong, &[own], None), Err(ExtractError::NoReference)));
}

#[test]
fn deep_nesting_does_not_overflow() {
    let (_guard, path) = folder();
    let page = |depth: usize| format!("{}sisin{}", "<div>".repeat(depth), "</div>".repeat(depth));
    let files = [
        input(&path, "deep.html", page(500).as_bytes()),
        input(&path, "deeper.html", page(10_000).as_bytes()),
    ];
    let html = Format::Html {
        select: "body".into(),
        drop: None,
        reference: None,
    };
    let (documents, report) = run(&fields(&[], html), &files, None).expect("extracted");
    assert_eq!(pairs(&documents), [("deep.html", "sisin")]);
    assert_eq!(dropped(&report), [("page_nested_too_deeply", 1)]);
}

#[test]
fn mistakes_are_reported() {
    let (_guard, path) = folder();
    let file = input(&path, "x.tar", &tar(&[("a/b.txt", b"text")]));
    let error = |fields: &ExtractFields| {
        run(fields, std::slice::from_ref(&file), None)
            .expect_err("refused")
            .to_string()
    };
    let text = || Format::Text { by: TextUnit::File };
    assert_eq!(
        error(&fields(&["*.txt"], text())),
        "no member matches `*.txt`; there is for example `a/b.txt`"
    );
    assert_eq!(
        error(&fields(&["a/["], text())),
        "`a/[` is not a pattern for member paths"
    );
    let select = Format::Html {
        select: "p >".into(),
        drop: None,
        reference: None,
    };
    assert!(error(&fields(&[], select)).starts_with("`p >` is not a CSS selector"));
    let cut = input(&path, "cut.tgz", &gzip(&tar(&[("a/b.txt", &[7; 5000])]))[..40]);
    assert!(run(&fields(&[], text()), &[cut], None).is_err());
}

/// A small file that unpacks to more than the limit ends in an error, not in memory.
#[test]
fn bombs_are_refused() {
    let (_guard, path) = folder();
    let mut encoder = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::fast());
    let block = vec![b'a'; 1 << 20];
    for _ in 0..=MEMBER_LIMIT >> 20 {
        encoder.write_all(&block).expect("in memory");
    }
    let file = input(&path, "bomb.txt.gz", &encoder.finish().expect("in memory"));
    let lines = fields(&[], Format::Text { by: TextUnit::Line });
    assert!(matches!(
        run(&lines, std::slice::from_ref(&file), None),
        Err(ExtractError::Large { .. })
    ));
    assert!(matches!(
        run(&fields(&[], Format::Code), &[file], None),
        Err(ExtractError::Large { .. })
    ));
}

#[test]
fn several_archives_and_threads() {
    let (_guard, path) = folder();
    let texts: Vec<(String, String)> = (0..300)
        .map(|i| (format!("d/{i}.txt"), format!("text {i} {}", "x".repeat(i))))
        .collect();
    let members: Vec<(&str, &[u8])> = texts.iter().map(|(p, t)| (p.as_str(), t.as_bytes())).collect();
    let files = [
        input(&path, "one.tar", &tar(&members)),
        input(&path, "two.tar", &tar(&members[..1])),
    ];
    let fields = fields(&["d/*"], Format::Text { by: TextUnit::File });
    let with = |threads| {
        let pool = rayon::ThreadPoolBuilder::new()
            .num_threads(threads)
            .build()
            .expect("threads");
        pool.install(|| run(&fields, &files, None)).expect("extracted")
    };
    assert_eq!(with(1), with(4));
    assert_eq!(with(1).0.last().map(|d| d.0.clone()), Some("two.tar/d/0.txt".into()));
}

#[test]
fn a_raised_flag_stops_the_work() {
    let (_guard, path) = folder();
    let file = input(&path, "x.tar", &tar(&[("a", b"text")]));
    let cancel = std::sync::atomic::AtomicBool::new(true);
    let progress = ProgressReporter::new(&|_| {}, &cancel);
    let (_out_guard, out) = folder();
    let limits = ExtractLimits::default();
    let stopped = extract(&fields(&[], Format::Code), &[file], None, limits, &out, progress);
    assert!(matches!(
        stopped,
        Err(ExtractError::Archive(ArchiveError::Cancelled(_)))
    ));
}

#[test]
fn pairs_keep_the_place_of_the_answer() {
    let (_guard, path) = folder();
    let table = "ask,say,good\n#Why?,\"So, so.\",1\nHow?,,1\nWho?,Me.,0\n";
    let lines = "{\"ask\": \"Wä?\", \"say\": \"Ja\", \"good\": 1}\n[]\n{\"ask\": \"x\", \"good\": 1}\n";
    let files = [
        input(&path, "a.csv", table.as_bytes()),
        input(&path, "b.jsonl", lines.as_bytes()),
        input(&path, "c.json", b"[{\"ask\": \"a\", \"say\": \"b\", \"good\": true}]"),
    ];
    let format = Format::Pairs {
        prompt: "Q: {ask}\nA:".to_owned(),
        answer: " {say}".to_owned(),
        only: Some(aurora_compiler::fields::MemberFilter {
            member: "good".to_owned(),
            text: "1".to_owned(),
        }),
        id: None,
    };
    let (_guard, out) = folder();
    let limits = ExtractLimits::default();
    let report = extract(
        &fields(&["**"], format),
        &files,
        None,
        limits,
        &out,
        ProgressReporter::none(),
    )
    .expect("extracted");
    let text = std::fs::read_to_string(out.join("documents.jsonl")).expect("documents");
    let documents: Vec<Document> = text
        .lines()
        .map(|line| serde_json::from_str(line).expect("a document"))
        .collect();
    let pairs: Vec<(&str, &str)> = documents
        .iter()
        .map(|document| document.text.split_at(document.answer.expect("a place")))
        .collect();
    assert_eq!(pairs, [("Q: #Why?\nA:", " So, so."), ("Q: Wä?\nA:", " Ja")]);
    assert_eq!(
        dropped(&report),
        [("empty", 1), ("malformed", 1), ("missing_field", 1), ("not_wanted", 2)]
    );
}

#[test]
fn columns_are_rows_like_others() {
    use std::sync::Arc;

    use arrow_array::{ArrayRef, Int64Array, RecordBatch, StringArray};

    let (_guard, path) = folder();
    let text: ArrayRef = Arc::new(StringArray::from(vec![Some("a\n "), None, Some(""), Some("b")]));
    let key: ArrayRef = Arc::new(Int64Array::from(vec![1, 2, 3, 4]));
    let batch = RecordBatch::try_from_iter([("text", text), ("key", key)]).expect("a batch");
    let mut parquet = Vec::new();
    let mut writer = parquet::arrow::ArrowWriter::try_new(&mut parquet, batch.schema(), None).expect("a writer");
    writer.write(&batch).expect("in memory");
    writer.close().expect("in memory");
    let mut arrow = Vec::new();
    let mut writer = arrow_ipc::writer::FileWriter::try_new(&mut arrow, &batch.schema()).expect("a writer");
    writer.write(&batch).expect("in memory");
    writer.finish().expect("in memory");
    drop(writer);
    for (name, bytes, format) in [
        ("d.parquet", parquet, Format::Parquet as fn(RowDocument) -> Format),
        ("d.arrow", arrow, Format::Arrow),
    ] {
        let file = input(&path, name, &bytes);
        let packed = input(&path, &format!("{name}.gz"), &gzip(&bytes));
        for file in [file, packed] {
            let (documents, report) = run(&fields(&[], format(row("{text}"))), &[file], None).expect("extracted");
            assert_eq!(
                pairs(&documents),
                [(format!("{name}#1").as_str(), "a\n "), (&format!("{name}#4"), "b")]
            );
            assert_eq!(dropped(&report), [("empty", 1), ("null", 1)]);
        }
        let file = input(&path, name, &bytes);
        let number = run(&fields(&[], format(row("{key}"))), std::slice::from_ref(&file), None).expect_err("a number");
        assert!(number.to_string().contains("column `key` of"), "{number}");
        let mut with_id = row("{text}!");
        with_id.id = Some("key".to_owned());
        let (documents, _) = run(&fields(&[], format(with_id)), &[file], None).expect("extracted");
        assert_eq!(pairs(&documents), [("1", "a\n !"), ("3", "!"), ("4", "b!")]);
    }
}
