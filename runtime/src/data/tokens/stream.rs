//! Several token files as one stream of tokens, as a component of a mixture reads them.

use camino::Utf8Path;

use super::{TokenFile, TokensError};

/// Several pairs of files read as one stream of tokens, in their order.
#[derive(Debug)]
pub struct TokenStream {
    files: Vec<TokenFile>,
    /// Position at which each file starts, and the end of the last.
    starts: Vec<u64>,
}

impl TokenStream {
    /// Opens pairs of `.bin` and `.idx`.
    ///
    /// # Errors
    /// As [`TokenFile::open`]; or if there is no file at all.
    pub fn open<'a>(pairs: impl IntoIterator<Item = (&'a Utf8Path, &'a Utf8Path)>) -> Result<Self, TokensError> {
        let files = pairs
            .into_iter()
            .map(|(bin, idx)| TokenFile::open(bin, idx))
            .collect::<Result<Vec<_>, _>>()?;
        Self::new(files)
    }

    /// As [`open`](Self::open), with [`TokenFile::open_verified`].
    ///
    /// # Errors
    /// As [`TokenFile::open_verified`]; or if there is no file at all.
    pub fn open_verified<'a>(
        pairs: impl IntoIterator<Item = (&'a Utf8Path, &'a Utf8Path)>,
    ) -> Result<Self, TokensError> {
        let files = pairs
            .into_iter()
            .map(|(bin, idx)| TokenFile::open_verified(bin, idx))
            .collect::<Result<Vec<_>, _>>()?;
        Self::new(files)
    }

    /// # Errors
    /// If there is no file.
    pub fn new(files: Vec<TokenFile>) -> Result<Self, TokensError> {
        if files.is_empty() {
            return Err(TokensError::NoFiles);
        }
        let mut starts = vec![0u64];
        for file in &files {
            starts.push(starts[starts.len() - 1] + file.num_tokens());
        }
        Ok(Self { files, starts })
    }

    pub fn files(&self) -> &[TokenFile] {
        &self.files
    }

    pub fn num_tokens(&self) -> u64 {
        self.starts[self.files.len()]
    }

    /// The position at which a file starts.
    ///
    /// # Panics
    /// If there is no such file.
    pub fn start(&self, file: usize) -> u64 {
        self.starts[file]
    }

    pub fn num_documents(&self) -> u64 {
        self.files.iter().map(TokenFile::num_documents).sum()
    }

    /// Samples of `sequence` tokens. Each reads one token more, for its last target; the next sample starts with it.
    pub fn num_samples(&self, sequence: u32) -> u64 {
        self.num_tokens()
            .saturating_sub(1)
            .checked_div(u64::from(sequence))
            .unwrap_or(0)
    }

    /// The file that holds the token at `position`, and the position inside it.
    ///
    /// # Errors
    /// There is no such position.
    pub fn locate(&self, position: u64) -> Result<(usize, u64), TokensError> {
        if position >= self.num_tokens() {
            let path = self.files[self.files.len() - 1].bin_path.clone();
            return Err(TokensError::OutOfRange {
                path,
                start: position,
                end: position + 1,
                of: self.num_tokens(),
            });
        }
        let file = self.starts.partition_point(|&start| start <= position) - 1;
        Ok((file, position - self.starts[file]))
    }

    /// Whether some tokens are not trained on.
    pub fn is_masked(&self) -> bool {
        self.files.iter().any(|file| file.mask.is_some())
    }

    /// Reads for each token from position `start` on whether it is trained on.
    ///
    /// # Errors
    /// If the range reaches past the end.
    pub fn trained(&self, start: u64, out: &mut [bool]) -> Result<(), TokensError> {
        for (position, out) in (start..).zip(out) {
            let (file, at) = self.locate(position)?;
            *out = self.files[file].mask.as_ref().is_none_or(|mask| mask[at as usize] == 1);
        }
        Ok(())
    }

    /// Reads `out.len()` token ids from position `start` on, across documents and files.
    ///
    /// # Errors
    /// If the range reaches past the end, or an id is negative.
    pub fn read(&self, start: u64, out: &mut [i64]) -> Result<(), TokensError> {
        let mut done = 0;
        while done < out.len() {
            let (file, at) = self.locate(start + done as u64)?;
            let left = self.files[file].num_tokens() - at;
            let now = (out.len() - done).min(usize::try_from(left).unwrap_or(usize::MAX));
            self.files[file].read(at, &mut out[done..done + now])?;
            done += now;
        }
        Ok(())
    }
}
