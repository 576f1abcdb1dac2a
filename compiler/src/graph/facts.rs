//! Facts of a checked spec that commands need: a stage's steps, a model's fields.

use super::nodes::checked;
use crate::fields::ModelFields;
use crate::spec::{BlockId, Spec};
use crate::views::{self, StageView};

/// The steps and checkpoints of a stage.
pub fn stage_plan(spec: &Spec, stage: &BlockId) -> StageView {
    checked(views::stage(spec, stage))
}

/// The fields of a model.
pub fn model_fields(spec: &Spec, id: &BlockId) -> ModelFields {
    checked(views::model(spec, id)).fields
}
