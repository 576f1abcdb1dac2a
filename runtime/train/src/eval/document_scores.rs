//! Scores of the documents of each set, with their names.

use aurora_runtime::data::documents::{Batches, Document};
use aurora_runtime::job::{DocumentScore, EvalJob};

use super::Evaluated;
use crate::train::TrainError;

/// Combines the sums of documents with their names and bytes: one line of `items.jsonl` per document, in the order of
/// the sets.
///
/// # Errors
/// [`TrainError::Documents`]; [`TrainError::Job`] if the token files have another number of documents.
pub fn document_scores(job: &EvalJob, evaluated: &Evaluated) -> Result<Vec<DocumentScore>, TrainError> {
    let mut all = Vec::new();
    for ((set, paths), sums) in job.fields.sets.iter().zip(&job.sets).zip(&evaluated.documents) {
        let wrap = |source| TrainError::Documents {
            set: set.name.clone(),
            source,
        };
        let mut known = Vec::new();
        for path in &paths.documents {
            let mut batches = Batches::open(path).map_err(wrap)?;
            let of = |document: Document| (document.id, document.text.len() as u64);
            while let Some(batch) = batches.next(of).map_err(wrap)? {
                known.extend(batch);
            }
        }
        if known.len() != sums.len() {
            return Err(TrainError::Job(format!(
                "`{}` has {} documents, but tokens of {}",
                set.name,
                known.len(),
                sums.len()
            )));
        }
        let scores = known.into_iter().zip(sums).enumerate();
        all.extend(scores.map(|(index, ((id, bytes), &(tokens, sum)))| DocumentScore {
            set: set.name.clone(),
            document: format!("{index} {id}"),
            tokens,
            bytes,
            negative_log_likelihood: sum,
        }));
    }
    Ok(all)
}
