//! Gates.

use super::ViewError;
use super::reader::{Reader, Trace};
use crate::spec::{BlockId, Gate, Spec, Value};

pub struct ExpectView {
    pub gate: Gate,
    pub trace: Trace,
}

pub fn expect(spec: &Spec, id: &BlockId) -> Result<ExpectView, ViewError> {
    let mut read = Reader::new(spec);
    let at = read.at(id, "gate")?;
    match read.value(&at) {
        Some(Value::Gate(gate)) => Ok(ExpectView {
            gate: gate.as_ref().clone(),
            trace: read.trace,
        }),
        _ => Err(at.error("a comparison")),
    }
}
