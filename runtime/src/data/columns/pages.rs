//! Pages of a Parquet column, each checked before it is unpacked and before its values are counted on.
//!
//! In: a column of a row group. Out: its pages. The parquet crate takes memory for what a page states: its unpacked
//! length, the values of its dictionary, the number of its lengths. Here these are compared with [`LIMIT`] and with
//! each other first. Not here: values (`parquet`).

use std::fs::File;
use std::io::{self, Read};
use std::os::unix::fs::FileExt;
use std::sync::Arc;

use parquet::basic::{Compression, Encoding};
use parquet::column::page::{Page, PageMetadata, PageReader};
use parquet::errors::{ParquetError, Result};
use parquet::file::metadata::ColumnChunkMetaData;
use parquet::file::reader::SerializedPageReader;

use super::LIMIT;
use super::thrift::{self, PageHeader};

/// The longest header of a page: it may have statistics.
const HEADER: usize = 16 << 20;

/// Packed bytes below which gzip cannot reach [`LIMIT`]: deflate packs at most to a 1032nd.
const HARMLESS_GZIP: i64 = 1 << 20;

/// Values of a page.
const VALUES: u32 = 1 << 28;

pub(super) struct CheckedPages {
    pages: SerializedPageReader<File>,
    file: Arc<File>,
    /// Where the next page begins, and where the column ends.
    at: u64,
    end: u64,
    is_gzip: bool,
    has_levels: bool,
    has_dictionary: bool,
}

impl CheckedPages {
    pub(super) fn new(file: &Arc<File>, column: &ColumnChunkMetaData, rows: usize) -> Result<Self> {
        let (start, length) = column.byte_range();
        Ok(Self {
            pages: SerializedPageReader::new(Arc::clone(file), column, rows, None)?,
            file: Arc::clone(file),
            at: start,
            end: start
                .checked_add(length)
                .ok_or_else(|| error("a column ends after the file"))?,
            is_gzip: matches!(column.compression(), Compression::GZIP(_)),
            has_levels: column.column_descr().max_def_level() > 0,
            has_dictionary: false,
        })
    }

    /// Checks the headers of the next page that has values, and of index pages before it, which the crate skips.
    fn check_header(&mut self) -> Result<()> {
        while self.at < self.end {
            let header = self.header()?;
            let lengths = [header.packed, header.unpacked].map(u64::try_from);
            let [Ok(packed), Ok(unpacked)] = lengths else {
                return Err(error("a page has a negative length"));
            };
            if packed.max(unpacked) > LIMIT {
                return Err(too_large());
            }
            if self.is_gzip && header.packed > HARMLESS_GZIP {
                self.check_gzip(&header)?;
            }
            self.at += header.length + packed;
            if header.kind != 1 {
                break;
            }
        }
        Ok(())
    }

    fn header(&self) -> Result<PageHeader> {
        let left = usize::try_from(self.end - self.at).unwrap_or(usize::MAX);
        for most in [512, 64 << 10, HEADER] {
            let bytes = self.read(self.at, most.min(left))?;
            if let Some(header) = thrift::page_header(&bytes) {
                return Ok(header);
            }
        }
        Err(error("a page has no valid header"))
    }

    fn read(&self, at: u64, length: usize) -> io::Result<Vec<u8>> {
        let mut bytes = vec![0; length];
        let mut filled = 0;
        while filled < length {
            match self.file.read_at(&mut bytes[filled..], at + filled as u64)? {
                0 => break,
                count => filled += count,
            }
        }
        bytes.truncate(filled);
        Ok(bytes)
    }

    /// The crate unpacks gzip to its end, whatever length the header states.
    fn check_gzip(&self, header: &PageHeader) -> Result<()> {
        let levels = u64::try_from(header.levels).map_err(|_| error("a page has a negative length"))?;
        let (packed, unpacked) = (header.packed.unsigned_abs(), header.unpacked.unsigned_abs());
        let (Some(length), Some(unpacked)) = (packed.checked_sub(levels), unpacked.checked_sub(levels)) else {
            return Err(error("the levels of a page are longer than the page"));
        };
        let start = self.at + header.length + levels;
        let bytes = self.read(start, usize::try_from(length).unwrap_or(usize::MAX))?;
        let mut reader = flate2::read::MultiGzDecoder::new(&bytes[..]).take(unpacked + 1);
        if io::copy(&mut reader, &mut io::sink())? > unpacked {
            return Err(error("a page unpacks to more than it states"));
        }
        Ok(())
    }

    fn check(&mut self, page: &Page) -> Result<()> {
        let bytes = page.buffer().len() as u64;
        if page.num_values() > VALUES {
            return Err(too_large());
        }
        let values = match page {
            Page::DictionaryPage { num_values, .. } => {
                self.has_dictionary = true;
                let value = size_of::<parquet::data_type::ByteArray>() as u64;
                if u64::from(*num_values) > bytes {
                    return Err(error("a dictionary states more values than it has bytes"));
                }
                if u64::from(*num_values) * value + bytes > LIMIT {
                    return Err(too_large());
                }
                return Ok(());
            }
            Page::DataPage { buf, num_values, .. } => {
                let levels = match self.has_levels {
                    false => Some(0),
                    // Their length, then the levels.
                    true => buf.first_chunk().map(|length| u32::from_le_bytes(*length) as usize + 4),
                };
                levels.and_then(|levels| Some((buf.get(levels..)?, *num_values)))
            }
            Page::DataPageV2 {
                buf,
                num_values,
                def_levels_byte_len,
                rep_levels_byte_len,
                ..
            } => {
                let levels = def_levels_byte_len.checked_add(*rep_levels_byte_len);
                levels.and_then(|levels| Some((buf.get(levels as usize..)?, *num_values)))
            }
        };
        match page.encoding() {
            Encoding::RLE_DICTIONARY | Encoding::PLAIN_DICTIONARY if !self.has_dictionary => {
                Err(error("a page uses a dictionary, and the column does not have one"))
            }
            Encoding::DELTA_LENGTH_BYTE_ARRAY => check_lengths(values, 1),
            Encoding::DELTA_BYTE_ARRAY => check_lengths(values, 2),
            _ => Ok(()),
        }
    }
}

/// Compares the number of lengths before the values with the number of values of the page.
fn check_lengths(values: Option<(&[u8], u32)>, lists: usize) -> Result<()> {
    let lengths = |(mut bytes, values): (&[u8], u32)| {
        for _ in 0..lists {
            let (count, end) = delta_list(bytes)?;
            if count > values.into() {
                return None;
            }
            bytes = bytes.get(end..)?;
        }
        Some(())
    };
    values
        .and_then(lengths)
        .ok_or_else(|| error("a page states more lengths than it has values"))
}

/// The number of integers in the encoding DELTA_BINARY_PACKED that `bytes` begin with, and where they end. Source:
/// Apache Parquet, Encodings.md, "Delta Encoding".
fn delta_list(bytes: &[u8]) -> Option<(u64, usize)> {
    let mut at = 0;
    let unsigned = |at: &mut usize| {
        let mut value = 0u64;
        for shift in (0..64).step_by(7) {
            let byte = *bytes.get(*at)?;
            *at += 1;
            value |= u64::from(byte & 0x7f) << shift;
            if byte < 0x80 {
                return Some(value);
            }
        }
        None
    };
    let (block, parts, count) = (unsigned(&mut at)?, unsigned(&mut at)?, unsigned(&mut at)?);
    unsigned(&mut at)?;
    let per_part = block.checked_div(parts)?;
    let mut left = count.saturating_sub(1);
    while left > 0 {
        if per_part == 0 {
            return None;
        }
        unsigned(&mut at)?;
        let widths = bytes.get(at..at.checked_add(usize::try_from(parts).ok()?)?)?;
        at += widths.len();
        for &width in widths {
            if left == 0 {
                break;
            }
            let bits = u64::from(width).checked_mul(per_part)?;
            at = at.checked_add(usize::try_from(bits / 8).ok()?)?;
            left = left.saturating_sub(per_part);
        }
    }
    Some((count, at))
}

fn error(text: &str) -> ParquetError {
    ParquetError::General(text.to_owned())
}

fn too_large() -> ParquetError {
    error("a page needs more than 1 GiB of memory; write the file again with smaller pages")
}

impl Iterator for CheckedPages {
    type Item = Result<Page>;

    fn next(&mut self) -> Option<Self::Item> {
        self.get_next_page().transpose()
    }
}

impl PageReader for CheckedPages {
    fn get_next_page(&mut self) -> Result<Option<Page>> {
        self.check_header()?;
        let page = self.pages.get_next_page()?;
        if let Some(page) = &page {
            self.check(page)?;
        }
        Ok(page)
    }

    // Rows are read, never skipped.
    fn peek_next_page(&mut self) -> Result<Option<PageMetadata>> {
        Err(error("pages are read one after the other"))
    }

    fn skip_next_page(&mut self) -> Result<()> {
        Err(error("pages are read one after the other"))
    }
}
