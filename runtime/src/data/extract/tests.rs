use super::*;
use aurora_compiler::fields::PageReference;
use camino::Utf8PathBuf;

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
    }
}

/// Extracts into a new folder; the documents as (id, text), and the report.
fn run(
    fields: &ExtractFields,
    files: &[InputFile],
    reference: Option<&[InputFile]>,
) -> Result<(Vec<(String, String)>, ExtractReport), ExtractError> {
    let (_guard, out) = folder();
    let report = extract(fields, files, reference, &out, ProgressReporter::none())?;
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

#[test]
fn members_come_out_sorted_whatever_their_order_in_the_archive() {
    let (_guard, path) = folder();
    let page = gzip("toinen\nrivi\n\nkappale".as_bytes());
    let members: [(&str, &[u8]); 4] = [
        ("./b/2.txt", b"b2"),
        ("a/1.txt.gz", &page),
        ("a/0.md", b"no"),
        ("a/9.txt", b" \n "),
    ];
    let file = input(&path, "x.tgz", &gzip(&tar(&members)));
    let fields = fields(&["**/*.txt", "**/*.txt.gz"], Format::Text { by_line: false });
    let (documents, report) = run(&fields, &[file], None).expect("extracted");
    assert_eq!(
        pairs(&documents),
        [("a/1.txt", "toinen rivi\nkappale"), ("b/2.txt", "b2")]
    );
    assert_eq!(
        (report.members, report.matched, report.documents, report.bytes),
        (4, 3, 2, 21)
    );
    assert_eq!(report.skipped, [("empty_documents".to_owned(), 1)].into());
}

#[test]
fn lines_are_documents_and_bad_ones_are_counted() {
    let (_guard, path) = folder();
    let lines = [&b"yksi  rivi\n\nkaksi\n"[..], &[0xff, 0xfe, b'\n'], b"kolme"].concat();
    let file = input(&path, "s.txt", &lines);
    let (documents, report) = run(&fields(&[], Format::Text { by_line: true }), &[file], None).expect("extracted");
    assert_eq!(
        pairs(&documents),
        [("s.txt#0", "yksi rivi"), ("s.txt#1", "kaksi"), ("s.txt#2", "kolme")]
    );
    assert_eq!(
        report.skipped,
        [("empty_documents".to_owned(), 1), ("invalid_utf8".to_owned(), 1)].into()
    );
}

#[test]
fn jsonl_and_json() {
    let (_guard, path) = folder();
    let jsonl = "{\"text\": \"a\\nb\", \"n\": 1}\n\n{\"other\": \"c\"}\nnot json\n{\"text\":\"d\"}\n";
    let file = input(&path, "d.jsonl.gz", &gzip(jsonl.as_bytes()));
    let (documents, report) =
        run(&fields(&[], Format::Jsonl { field: "text".into() }), &[file], None).expect("extracted");
    assert_eq!(pairs(&documents), [("d.jsonl#0", "a\nb"), ("d.jsonl#1", "d")]);
    assert_eq!(
        report.skipped,
        [("malformed".to_owned(), 1), ("no_such_field".to_owned(), 1)].into()
    );

    let json = r#"{"@meta": {"text": "m"}, "list": [{"text": "x"}, {"text": ["y", "z"]}], "name": "w"}"#;
    let file = input(&path, "d.json", json.as_bytes());
    let named = fields(
        &[],
        Format::Json {
            field: Some("text".into()),
        },
    );
    let (documents, _) = run(&named, std::slice::from_ref(&file), None).expect("extracted");
    assert_eq!(
        documents.iter().map(|d| d.1.as_str()).collect::<Vec<_>>(),
        ["m", "x", "y", "z"]
    );
    let (documents, _) = run(&fields(&[], Format::Json { field: None }), &[file], None).expect("extracted");
    assert_eq!(pairs(&documents), [("d.json", "m\nx\ny\nz\nw")]);
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
    assert_eq!(report.skipped, [("paragraphs_same_as_reference".to_owned(), 1)].into());

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
    assert_eq!(report.skipped["pages_nested_too_deeply"], 1);
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
    let text = || Format::Text { by_line: false };
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
    let lines = fields(&[], Format::Text { by_line: true });
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
    let fields = fields(&["d/*"], Format::Text { by_line: false });
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
    let stopped = extract(&fields(&[], Format::Code), &[file], None, &out, progress);
    assert!(matches!(
        stopped,
        Err(ExtractError::Archive(ArchiveError::Cancelled(_)))
    ));
}

#[test]
fn pairs_keep_the_place_of_the_answer() {
    let (_guard, path) = folder();
    let table = "# made up\nask,say,good\nWhy?,\"So, so.\",1\nHow?,,1\nWho?,Me.,0\n";
    let lines = "{\"ask\": \"Wä?\", \"say\": \"Ja\", \"good\": 1}\n[]\n{\"ask\": \"x\", \"good\": 1}\n";
    let files = [
        input(&path, "a.csv", table.as_bytes()),
        input(&path, "b.jsonl", lines.as_bytes()),
    ];
    let format = Format::Pairs {
        prompt: "Q: {ask}\nA:".to_owned(),
        answer: " {say}".to_owned(),
        only: Some(aurora_compiler::fields::MemberFilter {
            member: "good".to_owned(),
            text: "1".to_owned(),
        }),
    };
    let (_guard, out) = folder();
    let report = extract(&fields(&["**"], format), &files, None, &out, ProgressReporter::none()).expect("extracted");
    let text = std::fs::read_to_string(out.join("documents.jsonl")).expect("documents");
    let documents: Vec<Document> = text
        .lines()
        .map(|line| serde_json::from_str(line).expect("a document"))
        .collect();
    let pairs: Vec<(&str, &str)> = documents
        .iter()
        .map(|document| document.text.split_at(document.answer.expect("a place")))
        .collect();
    assert_eq!(pairs, [("Q: Why?\nA:", " So, so."), ("Q: Wä?\nA:", " Ja")]);
    let skipped: Vec<(&str, u64)> = report
        .skipped
        .iter()
        .map(|(why, times)| (why.as_str(), *times))
        .collect();
    assert_eq!(
        skipped,
        [
            ("empty_documents", 1),
            ("items_not_wanted", 1),
            ("malformed", 1),
            ("no_such_field", 1)
        ]
    );
}
