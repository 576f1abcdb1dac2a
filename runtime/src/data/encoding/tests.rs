use std::io::BufReader;

use proptest::prelude::*;

use super::*;

fn bytes(hexadecimal: &str) -> Vec<u8> {
    let digits = hexadecimal.as_bytes().chunks(2);
    let byte = |digits: &[u8]| u8::from_str_radix(std::str::from_utf8(digits).expect("ASCII"), 16).expect("two digits");
    digits.map(byte).collect()
}

/// The text of a stream in buffers of different lengths, and how many invalid sequences it has.
fn read(bytes: &[u8], declared: Option<Encoding>) -> io::Result<(String, u64)> {
    let mut found: Option<(String, u64)> = None;
    for capacity in [1, 2, 3, 5, 1 << 16] {
        let mut reader = TextReader::new(BufReader::with_capacity(capacity, bytes), declared)?;
        let mut text = Vec::new();
        reader.read_to_end(&mut text)?;
        let invalid = reader.take_invalid_before(text.len() as u64);
        assert_eq!(reader.take_invalid_before(u64::MAX), 0);
        let (text, more) = decode_utf8(text);
        let now = (text, invalid + more);
        assert_eq!(
            *found.get_or_insert_with(|| now.clone()),
            now,
            "buffers of {capacity} bytes"
        );
    }
    let found = found.expect("read");
    let (encoding, mark) = sniff(bytes, declared)?;
    assert_eq!(decode(bytes.to_vec(), encoding, mark), found, "all at once");
    Ok(found)
}

/// The bytes are those of Python 3.11: `TEXT.encode(LABEL)`.
#[test]
fn texts_are_decoded_as_python_encodes_them() {
    for (label, text, encoded) in [
        (
            "windows-1252",
            "naïve “œuvre” – 5 €",
            "6e61ef766520939c7576726594209620352080",
        ),
        (
            "shift_jis",
            "日本語のテキスト、カタカナ",
            "93fa967b8cea82cc8365834c835883678141834a835e834a8369",
        ),
        ("euc-jp", "日本語のテキスト", "c6fccbdcb8eca4cea5c6a5ada5b9a5c8"),
        ("iso-2022-jp", "日本語 text", "1b2442467c4b5c386c1b28422074657874"),
        ("gb18030", "汉字测试𠀀€", "babad7d6b2e2cad495328236a2e3"),
        ("gbk", "汉字测试", "babad7d6b2e2cad4"),
        ("big5", "繁體中文", "c163c5e9a4a4a4e5"),
        ("euc-kr", "한국어 문장", "c7d1b1b9beee20b9aec0e5"),
        ("koi8-r", "Привет, мир", "f0d2c9d7c5d42c20cdc9d2"),
        ("iso-8859-15", "œ€ñ", "bda4f1"),
        ("Windows-1251", "Съешь ещё", "d1fae5f8fc20e5f9b8"),
        ("iso-8859-2", "zażółć", "7a61bff3b3e6"),
        ("iso-8859-8", "שלום", "f9ece5ed"),
        ("utf-16le", "a😀é", "61003dd800dee900"),
        ("utf-16", "a😀é", "61003dd800dee900"),
        ("utf-16be", "a😀é", "0061d83dde0000e9"),
        ("utf-32le", "a😀é", "6100000000f60100e9000000"),
        ("UTF-32BE", "a😀é", "000000610001f600000000e9"),
    ] {
        let encoding = of_label(label).unwrap_or_else(|| panic!("{label} is known"));
        assert_eq!(
            read(&bytes(encoded), Some(encoding)).expect("read"),
            (text.to_owned(), 0),
            "{label}"
        );
    }
}

/// Python 3.11: `BYTES.decode(LABEL, 'replace')`. Left out: bytes that Python refuses and the WHATWG standard maps to
/// controls, such as 0x81 in windows-1252.
#[test]
fn invalid_bytes_become_the_replacement_character_and_are_counted() {
    for (label, encoded, text) in [
        ("utf-16le", "61003dd86200", "a\u{fffd}b"),
        ("utf-16le", "00de3dd800de", "\u{fffd}😀"),
        ("utf-16le", "610062", "a\u{fffd}"),
        ("utf-16be", "d83dd83dde00d8", "\u{fffd}😀\u{fffd}"),
        (
            "utf-32le",
            "6100000000d80000ffff1100620000006300",
            "a\u{fffd}\u{fffd}b\u{fffd}",
        ),
        ("utf-32be", "00000061001100000010ffff", "a\u{fffd}\u{10ffff}"),
        ("utf-8", "61fffe62", "a\u{fffd}\u{fffd}b"),
        ("utf-8", "e28278f09f98", "\u{fffd}x\u{fffd}"),
        ("utf-8", "eda080", "\u{fffd}\u{fffd}\u{fffd}"),
        ("utf-8", "c0aff580", "\u{fffd}\u{fffd}\u{fffd}\u{fffd}"),
        ("utf-8", "f0808041", "\u{fffd}\u{fffd}\u{fffd}A"),
        ("euc-kr", "b0a1ff7a", "가\u{fffd}z"),
    ] {
        let invalid = text.matches('\u{fffd}').count() as u64;
        let found = read(&bytes(encoded), of_label(label)).expect("read");
        assert_eq!(found, (text.to_owned(), invalid), "{label} {encoded}");
    }
    // A U+FFFD that the text has is not counted.
    assert_eq!(
        read(&bytes("fdff"), of_label("utf-16")).expect("read"),
        ("\u{fffd}".to_owned(), 0)
    );
}

#[test]
fn invalid_sequences_are_counted_by_their_place() {
    // `a`, two lone surrogates, `b`, one lone surrogate: U+FFFD at 1, 4 and 8.
    let encoded = bytes("610000de00de620000de");
    let mut reader = TextReader::new(&encoded[..], of_label("utf-16le")).expect("no mark");
    let mut text = String::new();
    reader.read_to_string(&mut text).expect("UTF-8");
    assert_eq!(text, "a\u{fffd}\u{fffd}b\u{fffd}");
    let counts = [0, 1, 2, 4, 5, 8, 9, 99].map(|offset| reader.take_invalid_before(offset));
    assert_eq!(counts, [0, 0, 1, 0, 1, 0, 1, 0]);
}

#[test]
fn a_mark_determines_the_encoding() {
    let label = |label| of_label(label);
    for (first, declared, encoding, mark) in [
        ("efbbbf61", None, Encoding::Utf8, 3),
        ("efbbbf61", label("utf-8"), Encoding::Utf8, 3),
        ("fffe6100", None, Encoding::Utf16Le, 2),
        ("fffe", label("utf-16"), Encoding::Utf16Le, 2),
        ("feff0061", None, Encoding::Utf16Be, 2),
        ("feff0061", label("utf-16"), Encoding::Utf16Be, 2),
        ("fffe0000", None, Encoding::Utf32Le, 4),
        ("fffe0000", label("utf-32"), Encoding::Utf32Le, 4),
        // The text begins with NUL.
        ("fffe0000", label("utf-16"), Encoding::Utf16Le, 2),
        ("fffe0000", label("utf-16le"), Encoding::Utf16Le, 2),
        ("0000feff", None, Encoding::Utf32Be, 4),
        ("0000feff", label("utf-32"), Encoding::Utf32Be, 4),
        ("", None, Encoding::Utf8, 0),
        ("ef", None, Encoding::Utf8, 0),
        ("efbb", None, Encoding::Utf8, 0),
        ("6100", label("utf-16"), Encoding::Utf16Le, 0),
        ("6100", label("utf-16be"), Encoding::Utf16Be, 0),
    ] {
        assert_eq!(
            sniff(&bytes(first), declared),
            Ok((encoding, mark)),
            "{first} {declared:?}"
        );
    }
    for (first, declared) in [
        ("efbbbf61", "windows-1252"),
        ("fffe6100", "utf-16be"),
        ("fffe6100", "utf-8"),
        ("feff0061", "utf-16le"),
        ("0000feff", "utf-32le"),
        ("fffe6100", "utf-32"),
    ] {
        let error = sniff(&bytes(first), label(declared)).expect_err("a contradiction");
        assert!(
            matches!(error, EncodingError::Contradiction { .. }),
            "{first} {declared}"
        );
    }
    assert_eq!(sniff(b"a\0\0\0", label("utf-32")), Err(EncodingError::NoOrder));
    for (encoded, text) in [
        ("efbbbf61", "a"),
        ("efbbbfefbbbf61", "\u{feff}a"),
        ("fffe6100", "a"),
        ("feff0061", "a"),
        ("feff", ""),
        ("fffe000061000000", "a"),
        ("0000feff00000061", "a"),
    ] {
        assert_eq!(
            read(&bytes(encoded), None).expect("read"),
            (text.to_owned(), 0),
            "{encoded}"
        );
    }
}

/// The labels of the compiler are those of the library; each is listed, and decodes.
#[test]
fn every_label_has_a_decoder() {
    for (name, labels) in aurora_compiler::encodings::ENCODINGS {
        for label in labels {
            let encoding = of_label(label).unwrap_or_else(|| panic!("{label} is known"));
            assert_eq!(encoding.name(), name);
            if !name.starts_with("UTF-32") {
                let library = encoding_rs::Encoding::for_label_no_replacement(label.as_bytes()).expect("a label");
                let own = if name == "UTF-16" { "UTF-16LE" } else { name };
                assert_eq!(library.name(), own, "{label}");
            }
        }
    }
    assert_eq!(of_label("hz-gb-2312"), None);
    assert_eq!(of_label("utf8mb4"), None);
}

proptest! {
    /// Every text in every encoding of Unicode, after every mark.
    #[test]
    fn unicode_comes_back(text in "\\PC{0,40}") {
        let utf16 = |bytes: fn(u16) -> [u8; 2]| text.encode_utf16().flat_map(bytes).collect::<Vec<u8>>();
        let utf32 = |bytes: fn(u32) -> [u8; 4]| text.chars().flat_map(|c| bytes(c.into())).collect::<Vec<u8>>();
        for (label, mark, encoded) in [
            ("utf-8", "efbbbf", text.as_bytes().to_vec()),
            ("utf-16le", "fffe", utf16(u16::to_le_bytes)),
            ("utf-16be", "feff", utf16(u16::to_be_bytes)),
            ("utf-32le", "fffe0000", utf32(u32::to_le_bytes)),
            ("utf-32be", "0000feff", utf32(u32::to_be_bytes)),
        ] {
            let marked = [bytes(mark), encoded].concat();
            prop_assert_eq!(read(&marked, of_label(label)).expect("read"), (text.clone(), 0));
        }
    }

    /// The count is that of the standard library's decoder, whose text is `String::from_utf8_lossy`.
    #[test]
    fn utf8_is_decoded_as_by_the_standard_library(any in proptest::collection::vec(any::<u8>(), 0..40)) {
        let (text, invalid) = decode_utf8(any.clone());
        prop_assert_eq!(&text, &String::from_utf8_lossy(&any));
        let (standard, _) = encoding_rs::UTF_8.decode_without_bom_handling(&any);
        prop_assert_eq!(&text, &standard);
        prop_assert!((invalid == 0) == std::str::from_utf8(&any).is_ok());
    }
}

fn html(page: &[u8]) -> &'static str {
    of_html(page, None).expect("no contradiction").0.name()
}

/// By the rules of the HTML Standard; read by hand.
#[test]
fn a_page_states_its_encoding() {
    for (page, name) in [
        ("<meta charset=iso-8859-2>", "ISO-8859-2"),
        ("<!DOCTYPE html><html><head><META CHARSET='Shift_JIS'/>", "Shift_JIS"),
        ("<meta\ncharset = \"euc-jp\" >", "EUC-JP"),
        ("<meta/charset=latin1>", "windows-1252"),
        (
            "<meta http-equiv=Content-Type content='text/html; charset=koi8-r'>",
            "KOI8-R",
        ),
        (
            "<meta content=\"text/html;charset=&quot;\" http-equiv=content-type><meta charset=gbk>",
            "GBK",
        ),
        (
            "<meta content='text/html; charset = \"big5\" ' http-equiv='content-type'>",
            "Big5",
        ),
        ("<meta name=x content='charset=koi8-r'>", "UTF-8"),
        ("<meta http-equiv=refresh content='charset=koi8-r'>", "UTF-8"),
        ("<!-- <meta charset=gbk> --><meta charset=big5>", "Big5"),
        ("<!--><meta charset=big5>", "Big5"),
        ("<p title='<meta charset=gbk>'><meta charset=big5>", "Big5"),
        ("</p title='<meta charset=gbk>'><meta charset=big5>", "Big5"),
        ("<metal charset=gbk>", "UTF-8"),
        ("<meta charset=unknown><meta charset=gbk>", "GBK"),
        ("<meta charset=gbk charset=big5>", "GBK"),
        ("<meta charset=utf-16le>", "UTF-8"),
        ("<meta charset=x-user-defined>", "windows-1252"),
        ("<?xml version='1.0' encoding='iso-8859-15'?><html>", "ISO-8859-15"),
        ("<?xml version='1.0' encoding='iso-8859-15'?><meta charset=gbk>", "GBK"),
        ("<p>plain é", "UTF-8"),
        ("<", "UTF-8"),
        ("<meta ", "UTF-8"),
        ("<meta charset", "UTF-8"),
        ("<meta charset='", "UTF-8"),
        ("<!--", "UTF-8"),
        ("", "UTF-8"),
    ] {
        assert_eq!(html(page.as_bytes()), name, "{page}");
    }
    assert_eq!(html(b"<p>caf\xe9</p>"), "windows-1252");
    let late = [" ".repeat(1025).as_bytes(), b"<meta charset=gbk>"].concat();
    assert_eq!(html(&late), "UTF-8");
    let marked = |mark: &[u8]| of_html(&[mark, b"<meta charset=gbk>"].concat(), None).expect("a mark");
    assert_eq!(marked(b"\xef\xbb\xbf"), (Encoding::Utf8, 3));
    let declared = of_label("big5");
    assert_eq!(
        of_html(b"<meta charset=gbk>", declared).map(|(encoding, _)| Some(encoding)),
        Ok(declared)
    );
    assert!(of_html(b"\xef\xbb\xbf<p>", declared).is_err());
}
