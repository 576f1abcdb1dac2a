use crate::spec::Spec;
use aurora_lang::diagnostics::Diagnostic;
#[derive(serde::Serialize)]
pub struct Assumption {
    pub path: String,
    pub kind: String,
    pub text: String,
    pub line: u32,
    pub column: u32,
    pub value: String,
}
pub fn check(_f: &str, _t: &str, _p: Option<&str>) -> Result<Spec, Vec<Diagnostic>> {
    Err(vec![])
}
pub fn assumptions(_s: &Spec) -> Vec<Assumption> {
    vec![]
}
