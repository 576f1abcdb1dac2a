//! What ranks exchange at the end of a step: a few numbers, as bytes.

use super::TrainError;

/// One rank's contribution to a step's results.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct RankReport {
    /// This rank received a stop command.
    pub stop: bool,
    /// Index of a sample in the batch, and the sum of its tokens' losses in nats.
    pub losses: Vec<(u64, f64)>,
    /// Number of a chunk, and its gradient's sum of squares.
    pub squares: Vec<(u64, f64)>,
}

impl RankReport {
    pub fn to_bytes(&self) -> Vec<u8> {
        let mut bytes = vec![u8::from(self.stop)];
        for list in [&self.losses, &self.squares] {
            bytes.extend_from_slice(&(list.len() as u64).to_le_bytes());
            for (number, value) in list {
                bytes.extend_from_slice(&number.to_le_bytes());
                bytes.extend_from_slice(&value.to_bits().to_le_bytes());
            }
        }
        bytes
    }

    /// # Errors
    /// [`TrainError::Report`] if the bytes are not a valid report.
    pub fn from_bytes(bytes: &[u8]) -> Result<Self, TrainError> {
        let mut rest = bytes.get(1..).ok_or(TrainError::Report)?;
        let mut word = || {
            let (word, later) = rest.split_first_chunk::<8>()?;
            rest = later;
            Some(u64::from_le_bytes(*word))
        };
        let mut list = || -> Option<Vec<(u64, f64)>> {
            let count = word()?;
            (0..count).map(|_| Some((word()?, f64::from_bits(word()?)))).collect()
        };
        let (losses, squares) = (list().ok_or(TrainError::Report)?, list().ok_or(TrainError::Report)?);
        Ok(Self {
            stop: bytes[0] != 0,
            losses,
            squares,
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn reports_survive_encoding_and_partial_ones_are_refused() {
        let report = RankReport {
            stop: true,
            losses: vec![(3, 1.5), (9, -0.0)],
            squares: vec![(7, f64::MIN_POSITIVE)],
        };
        let bytes = report.to_bytes();
        assert_eq!(RankReport::from_bytes(&bytes).unwrap(), report);
        for cut in 0..bytes.len() {
            assert!(RankReport::from_bytes(&bytes[..cut]).is_err(), "{cut}");
        }
    }
}
