//! Character encodings: bytes of a text in any encoding as UTF-8.
//!
//! In: bytes, and the encoding that a spec declares, if it does. Out: the text without its byte-order mark, and how
//! many invalid sequences became U+FFFD. What is invalid, and where it ends, follows the WHATWG Encoding Standard;
//! UTF-32, which the standard does not have, follows Unicode (a unit outside U+0000..U+10FFFF, a surrogate, an
//! incomplete unit). Nothing else is changed, and no text is dropped. Not here: the names of encodings
//! (`aurora_compiler::encodings`), formats.

use std::collections::VecDeque;
use std::io::{self, BufRead, Chain, Cursor, Read};

use aurora_compiler::encodings::encoding_of_label;

mod html;
#[cfg(test)]
mod tests;

pub use html::of_html;

/// What invalid bytes become.
const REPLACEMENT: &str = "\u{FFFD}";

/// Text that is decoded at a time, bytes of UTF-8.
const OUTPUT: usize = 64 << 10;

/// An encoding of characters.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Encoding {
    Utf8,
    /// In the order of the byte-order mark; little-endian without one, as the WHATWG standard says.
    Utf16,
    Utf16Le,
    Utf16Be,
    /// In the order of the byte-order mark.
    Utf32,
    Utf32Le,
    Utf32Be,
    /// An encoding without a byte-order mark.
    Other(&'static encoding_rs::Encoding),
}

/// The marks. That of UTF-32 precedes that of UTF-16 which it begins with: a text does not begin with NUL.
const MARKS: [(&[u8], Encoding); 5] = [
    (&[0xef, 0xbb, 0xbf], Encoding::Utf8),
    (&[0xff, 0xfe, 0, 0], Encoding::Utf32Le),
    (&[0, 0, 0xfe, 0xff], Encoding::Utf32Be),
    (&[0xff, 0xfe], Encoding::Utf16Le),
    (&[0xfe, 0xff], Encoding::Utf16Be),
];

/// The longest mark, bytes.
const LONGEST_MARK: usize = 4;

impl Encoding {
    pub fn name(self) -> &'static str {
        match self {
            Self::Utf8 => "UTF-8",
            Self::Utf16 => "UTF-16",
            Self::Utf16Le => "UTF-16LE",
            Self::Utf16Be => "UTF-16BE",
            Self::Utf32 => "UTF-32",
            Self::Utf32Le => "UTF-32LE",
            Self::Utf32Be => "UTF-32BE",
            Self::Other(encoding) => encoding.name(),
        }
    }

    /// Whether a text that is declared as `self` may begin with the mark of `marked`.
    fn agrees(self, marked: Self) -> bool {
        match self {
            Self::Utf16 => matches!(marked, Self::Utf16Le | Self::Utf16Be),
            Self::Utf32 => matches!(marked, Self::Utf32Le | Self::Utf32Be),
            _ => self == marked,
        }
    }
}

#[derive(Debug, PartialEq, Eq, thiserror::Error)]
pub enum EncodingError {
    #[error(
        "the text begins with the byte-order mark of {marked}, but `encoding` declares {declared}: declare {marked}, or \
         remove `encoding`, because the mark determines it"
    )]
    Contradiction {
        marked: &'static str,
        declared: &'static str,
    },
    #[error(
        "the text has no byte-order mark, and `utf-32` does not state the order of the bytes: declare `utf-32le` or \
         `utf-32be`"
    )]
    NoOrder,
}

impl From<EncodingError> for io::Error {
    fn from(error: EncodingError) -> Self {
        Self::new(io::ErrorKind::InvalidData, error)
    }
}

/// The encoding with this label: one of the WHATWG standard, or of UTF-32, in any case of letters.
pub fn of_label(label: &str) -> Option<Encoding> {
    Some(match encoding_of_label(label)? {
        "UTF-8" => Encoding::Utf8,
        "UTF-16" => Encoding::Utf16,
        "UTF-16LE" => Encoding::Utf16Le,
        "UTF-16BE" => Encoding::Utf16Be,
        "UTF-32" => Encoding::Utf32,
        "UTF-32LE" => Encoding::Utf32Le,
        "UTF-32BE" => Encoding::Utf32Be,
        name => Encoding::Other(encoding_rs::Encoding::for_label_no_replacement(name.as_bytes())?),
    })
}

/// The encoding of a text, and the length of its byte-order mark. `first_bytes` are at least its first four, or all.
///
/// A mark determines the encoding; without one it is the declared one, or UTF-8.
///
/// # Errors
/// If the mark contradicts the declared encoding, or neither states the order of UTF-32.
pub fn sniff(first_bytes: &[u8], declared: Option<Encoding>) -> Result<(Encoding, usize), EncodingError> {
    let marks = || MARKS.iter().filter(|(mark, _)| first_bytes.starts_with(mark));
    let Some((mark, first)) = marks().next() else {
        return match declared {
            Some(Encoding::Utf16) => Ok((Encoding::Utf16Le, 0)),
            Some(Encoding::Utf32) => Err(EncodingError::NoOrder),
            other => Ok((other.unwrap_or(Encoding::Utf8), 0)),
        };
    };
    let Some(declared) = declared else {
        return Ok((*first, mark.len()));
    };
    let agreeing = marks().find(|(_, marked)| declared.agrees(*marked));
    agreeing
        .map(|(mark, marked)| (*marked, mark.len()))
        .ok_or_else(|| EncodingError::Contradiction {
            marked: first.name(),
            declared: declared.name(),
        })
}

/// The encoding of a text that has no byte-order mark and cannot be UTF-8: UTF-16 of mostly Latin letters, of which every
/// other byte is zero. `first_bytes` are its beginning.
pub fn unmarked(first_bytes: &[u8]) -> Option<Encoding> {
    /// Bytes that are looked at, and the fewest that can show it.
    const SEEN: usize = 512;
    const LEAST: usize = 8;
    if MARKS.iter().any(|(mark, _)| first_bytes.starts_with(mark)) {
        return None;
    }
    let units: Vec<&[u8]> = first_bytes[..first_bytes.len().min(SEEN)].chunks_exact(2).collect();
    let zeros = |at: usize| units.iter().filter(|unit| unit[at] == 0).count();
    let (high, low) = (zeros(1), zeros(0));
    let most = |zeros: usize| 10 * zeros >= 9 * units.len();
    match 2 * units.len() >= LEAST {
        true if most(high) && low == 0 => Some(Encoding::Utf16Le),
        true if most(low) && high == 0 => Some(Encoding::Utf16Be),
        _ => None,
    }
}

/// Bytes as text, and how many invalid sequences became U+FFFD. Valid bytes are not copied.
pub fn decode_utf8(bytes: Vec<u8>) -> (String, u64) {
    let bytes = match String::from_utf8(bytes) {
        Ok(text) => return (text, 0),
        Err(error) => error.into_bytes(),
    };
    let (mut text, mut invalid) = (String::with_capacity(bytes.len() + 16), 0);
    for chunk in bytes.utf8_chunks() {
        text.push_str(chunk.valid());
        if !chunk.invalid().is_empty() {
            text.push_str(REPLACEMENT);
            invalid += 1;
        }
    }
    (text, invalid)
}

/// A complete text after its mark of `mark` bytes, and how many invalid sequences became U+FFFD.
pub fn decode(mut bytes: Vec<u8>, encoding: Encoding, mark: usize) -> (String, u64) {
    let Some(mut decoder) = Decoder::new(encoding) else {
        bytes.drain(..mark.min(bytes.len()));
        return decode_utf8(bytes);
    };
    let mut input = bytes.get(mark..).unwrap_or_default();
    let (mut text, mut invalid, mut piece) = (Vec::with_capacity(bytes.len()), 0, vec![0; OUTPUT]);
    loop {
        let step = decoder.step(input, true, &mut piece);
        input = &input[step.read..];
        text.extend_from_slice(&piece[..step.written]);
        match step.found {
            Found::Invalid => {
                text.extend_from_slice(REPLACEMENT.as_bytes());
                invalid += 1;
            }
            Found::Full => {}
            Found::End => break,
        }
    }
    let (text, more) = decode_utf8(text);
    (text, invalid + more)
}

/// Reads a text in any encoding as UTF-8, without its byte-order mark, in constant memory.
///
/// Bytes of UTF-8 are passed on unchanged: who splits them into records decodes them with [`decode_utf8`]. Bytes of
/// other encodings are decoded here; [`TextReader::take_invalid_before`] counts what was invalid.
pub struct TextReader<R> {
    reader: Chain<Cursor<Vec<u8>>, R>,
    encoding: Encoding,
    /// `None` for UTF-8.
    decoder: Option<Decoder>,
    output: Vec<u8>,
    /// The unread part of `output`.
    unread: std::ops::Range<usize>,
    /// UTF-8 bytes that were decoded.
    decoded: u64,
    at_end: bool,
    /// Where in the decoded text a U+FFFD is put for invalid bytes: the offset of the first of several that touch, and
    /// how many these are.
    invalid: VecDeque<(u64, u64)>,
}

impl<R: BufRead> TextReader<R> {
    /// # Errors
    /// If the first bytes cannot be read, or [`sniff`] fails.
    pub fn new(mut reader: R, declared: Option<Encoding>) -> io::Result<Self> {
        let mut first = Vec::with_capacity(LONGEST_MARK);
        (&mut reader).take(LONGEST_MARK as u64).read_to_end(&mut first)?;
        let (encoding, mark) = sniff(&first, declared)?;
        let mut first = Cursor::new(first);
        first.set_position(mark as u64);
        let decoder = Decoder::new(encoding);
        Ok(Self {
            reader: first.chain(reader),
            encoding,
            output: vec![0; if decoder.is_some() { OUTPUT } else { 0 }],
            decoder,
            unread: 0..0,
            decoded: 0,
            at_end: false,
            invalid: VecDeque::new(),
        })
    }

    pub fn encoding(&self) -> Encoding {
        self.encoding
    }

    /// How many invalid sequences became a U+FFFD that begins before this offset of the text, and that an earlier call
    /// did not count. Always 0 for UTF-8, which is decoded elsewhere.
    pub fn take_invalid_before(&mut self, offset: u64) -> u64 {
        let mut taken = 0;
        while let Some((first, count)) = self.invalid.front_mut() {
            let before = offset
                .saturating_sub(*first)
                .div_ceil(REPLACEMENT.len() as u64)
                .min(*count);
            taken += before;
            *first += before * REPLACEMENT.len() as u64;
            *count -= before;
            if *count > 0 {
                break;
            }
            self.invalid.pop_front();
        }
        taken
    }

    /// Decodes the next bytes into `output`.
    fn fill(&mut self, decoder: &mut Decoder) -> io::Result<()> {
        let mut written = 0;
        // Room for one U+FFFD after what the decoder writes.
        let room = self.output.len() - REPLACEMENT.len();
        while written == 0 && !self.at_end {
            let input = self.reader.fill_buf()?;
            let last = input.is_empty();
            let step = decoder.step(input, last, &mut self.output[..room]);
            self.reader.consume(step.read);
            written = step.written;
            match step.found {
                Found::Invalid => {
                    let offset = self.decoded + written as u64;
                    self.output[written..written + REPLACEMENT.len()].copy_from_slice(REPLACEMENT.as_bytes());
                    written += REPLACEMENT.len();
                    match self.invalid.back_mut() {
                        Some((first, count)) if *first + *count * REPLACEMENT.len() as u64 == offset => *count += 1,
                        _ => self.invalid.push_back((offset, 1)),
                    }
                }
                Found::Full => {}
                Found::End => self.at_end = last,
            }
        }
        self.decoded += written as u64;
        self.unread = 0..written;
        Ok(())
    }
}

impl<R: BufRead> Read for TextReader<R> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let Some(mut decoder) = self.decoder.take() else {
            return self.reader.read(buffer);
        };
        let filled = match self.unread.is_empty() && !buffer.is_empty() {
            true => self.fill(&mut decoder),
            false => Ok(()),
        };
        self.decoder = Some(decoder);
        filled?;
        let count = self.unread.len().min(buffer.len());
        buffer[..count].copy_from_slice(&self.output[self.unread.start..self.unread.start + count]);
        self.unread.start += count;
        Ok(count)
    }
}

/// What a step of a decoder came to.
struct Step {
    read: usize,
    written: usize,
    found: Found,
}

enum Found {
    /// The input, all of it.
    End,
    /// The output does not have room for the next character.
    Full,
    /// One invalid sequence, for which nothing is written.
    Invalid,
}

/// A decoder of what is not UTF-8.
enum Decoder {
    Standard(encoding_rs::Decoder),
    Utf32 {
        unit: fn([u8; 4]) -> u32,
        /// The bytes of an incomplete unit.
        partial: [u8; 4],
        count: usize,
    },
}

impl Decoder {
    /// `None` for UTF-8.
    fn new(encoding: Encoding) -> Option<Self> {
        let utf32 = |unit| Self::Utf32 {
            unit,
            partial: [0; 4],
            count: 0,
        };
        let standard =
            |encoding: &'static encoding_rs::Encoding| Self::Standard(encoding.new_decoder_without_bom_handling());
        match encoding {
            Encoding::Utf8 => None,
            Encoding::Utf16 | Encoding::Utf16Le => Some(standard(encoding_rs::UTF_16LE)),
            Encoding::Utf16Be => Some(standard(encoding_rs::UTF_16BE)),
            Encoding::Utf32 | Encoding::Utf32Le => Some(utf32(u32::from_le_bytes)),
            Encoding::Utf32Be => Some(utf32(u32::from_be_bytes)),
            Encoding::Other(encoding) => Some(standard(encoding)),
        }
    }

    /// Decodes up to the end of the input or of the output, or the next invalid sequence. `last`: nothing comes after
    /// the input. The output has room for a few characters at least.
    fn step(&mut self, input: &[u8], last: bool, output: &mut [u8]) -> Step {
        match self {
            Self::Standard(decoder) => {
                let (result, read, written) = decoder.decode_to_utf8_without_replacement(input, output, last);
                let found = match result {
                    encoding_rs::DecoderResult::InputEmpty => Found::End,
                    encoding_rs::DecoderResult::OutputFull => Found::Full,
                    encoding_rs::DecoderResult::Malformed(..) => Found::Invalid,
                };
                Step { read, written, found }
            }
            Self::Utf32 { unit, partial, count } => {
                let (mut read, mut written) = (0, 0);
                let found = loop {
                    if output.len() - written < 4 {
                        break Found::Full;
                    }
                    let more = (partial.len() - *count).min(input.len() - read);
                    partial[*count..*count + more].copy_from_slice(&input[read..read + more]);
                    (read, *count) = (read + more, *count + more);
                    if *count < partial.len() {
                        let incomplete = last && *count > 0;
                        break if incomplete { Found::Invalid } else { Found::End };
                    }
                    *count = 0;
                    match char::from_u32(unit(*partial)) {
                        Some(character) => written += character.encode_utf8(&mut output[written..]).len(),
                        None => break Found::Invalid,
                    }
                };
                if matches!(found, Found::Invalid) {
                    *count = 0;
                }
                Step { read, written, found }
            }
        }
    }
}
