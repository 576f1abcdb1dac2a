//! Gates.

use super::ViewError;
use super::reader::{Reader, SpecValues};
use crate::spec::{BlockId, Gate, Spec, Value};

pub struct ExpectView {
    pub gate: Gate,
    pub values: SpecValues,
}

pub fn expect(spec: &Spec, id: &BlockId) -> Result<ExpectView, ViewError> {
    let mut read = Reader::new(spec);
    let at = read.at(id, "gate")?;
    match read.value(&at) {
        Some(Value::Gate(gate)) => Ok(ExpectView {
            gate: gate.as_ref().clone(),
            values: read.values,
        }),
        _ => Err(at.error("a comparison")),
    }
}
