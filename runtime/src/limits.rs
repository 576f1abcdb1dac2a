//! Limits of what is read from outside: every format is read through them, so that a small input cannot use all memory
//! or all time.
//!
//! In: bytes of an archive, a page, a JSON document. Out: the same bytes, or an error or a reason that names the limit.
//! Only the total of a source can be raised (`at_most` of its block): nothing that was published for training reaches the
//! others. Not here: limits of transfers (`http`), of specs (`aurora-compiler`), of programs (`aurora-sandbox`).

use std::cell::Cell;
use std::io::{self, Read};

/// What a source may unpack to, as a multiple of the bytes of its files. Text compresses to a tenth, and rarely to a
/// hundredth of its size.
const UNPACKED_RATIO: u64 = 100;

/// What any source may unpack to, bytes.
const UNPACKED_LEAST: u64 = 1 << 30;

/// Bytes between two members of a tar archive: their headers, with long names and attributes.
pub const HEADERS: u64 = 1 << 20;

/// The longest page of HTML, bytes.
pub const PAGE: usize = 64 << 20;

/// Nodes of a page: elements, texts, comments.
pub const PAGE_NODES: usize = 1_000_000;

/// How deep the elements of a page are nested. Browsers have the same limit.
pub const PAGE_DEPTH: usize = 512;

/// Attributes of one tag. The time that a tag takes grows with their square.
pub const TAG_ATTRIBUTES: usize = 1000;

/// Values of a JSON document, nested ones included.
pub const JSON_VALUES: usize = 8_000_000;

/// The largest `config.json` or index of weights, bytes: those of the largest models are a few MB.
pub const CONFIG: u64 = 64 << 20;

/// More was read than a limit allows.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum TooMuch {
    #[error("it unpacks to more than {limit} bytes, the most that is read of its source")]
    Unpacked { limit: u64 },
    #[error("the names and attributes between two members have more than {HEADERS} bytes")]
    Headers,
}

/// Whether an error, or one of its causes, is that a source unpacks to too much.
pub fn is_unpacked_limit(error: &(dyn std::error::Error + 'static)) -> bool {
    crate::errors::causes(error).any(|error| {
        let inner = error.downcast_ref::<io::Error>().and_then(io::Error::get_ref);
        let found = inner.and_then(|inner| inner.downcast_ref::<TooMuch>());
        matches!(found.or_else(|| error.downcast_ref()), Some(TooMuch::Unpacked { .. }))
    })
}

/// The bytes that a source may still unpack to. Readers of all its files share it.
#[derive(Debug, PartialEq, Eq)]
pub struct Budget {
    limit: u64,
    used: Cell<u64>,
}

impl Budget {
    /// For a source whose files have `packed` bytes; `at_most` is what its block states.
    pub fn new(at_most: Option<u64>, packed: u64) -> Self {
        let limit = at_most.unwrap_or_else(|| packed.saturating_mul(UNPACKED_RATIO).max(UNPACKED_LEAST));
        Self {
            limit,
            used: Cell::new(0),
        }
    }

    fn take(&self, bytes: usize) -> io::Result<()> {
        self.used.set(self.used.get().saturating_add(bytes as u64));
        if self.used.get() > self.limit {
            return Err(io::Error::other(TooMuch::Unpacked { limit: self.limit }));
        }
        Ok(())
    }
}

/// A reader whose bytes count.
pub struct Counted<'a, R> {
    reader: R,
    budget: &'a Budget,
}

impl<'a, R> Counted<'a, R> {
    pub fn new(reader: R, budget: &'a Budget) -> Self {
        Self { reader, budget }
    }
}

impl<R: Read> Read for Counted<'_, R> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let count = self.reader.read(buffer)?;
        self.budget.take(count)?;
        Ok(count)
    }
}

/// A position in a stream that must not be passed.
#[derive(Debug, Default)]
pub struct Fence {
    position: Cell<u64>,
    end: Cell<u64>,
}

impl Fence {
    /// Allows the next `bytes`, and the headers after them.
    pub fn allow(&self, bytes: u64) {
        self.end
            .set(self.position.get().saturating_add(bytes).saturating_add(HEADERS));
    }

    pub fn around<R>(&self, reader: R) -> Fenced<'_, R> {
        Fenced { reader, fence: self }
    }
}

/// A reader that ends with an error at a [`Fence`].
pub struct Fenced<'a, R> {
    reader: R,
    fence: &'a Fence,
}

impl<R: Read> Read for Fenced<'_, R> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let count = self.reader.read(buffer)?;
        let position = self.fence.position.get().saturating_add(count as u64);
        self.fence.position.set(position);
        if position > self.fence.end.get() {
            return Err(io::Error::other(TooMuch::Headers));
        }
        Ok(count)
    }
}

/// Whether a JSON text has more values than a document may have. Does not check the text.
pub fn has_too_many_values(json: &[u8]) -> bool {
    let (mut values, mut in_text, mut escaped) = (1usize, false, false);
    for byte in json {
        match (in_text, byte) {
            (true, _) if escaped => escaped = false,
            (true, b'\\') => escaped = true,
            (_, b'"') => in_text = !in_text,
            (false, b',' | b'[' | b'{') => values += 1,
            _ => {}
        }
    }
    values > JSON_VALUES
}
