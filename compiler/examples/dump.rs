fn main() {
    let p = std::env::args().nth(1).unwrap();
    let prof = std::env::args().nth(2);
    let t = std::fs::read_to_string(&p).unwrap();
    let s = aurora_lang::diagnostics::Source::new(&p, &t);
    match aurora_compiler::check::check(&p, &t, prof.as_deref()) {
        Ok(spec) => {
            print!("{}", aurora_lang::diagnostics::render_text(&spec.warnings, s, false));
            for (k, (v, f)) in spec.resolved() {
                println!("{k} = {v}   {:?}", f.evidence);
            }
            for a in aurora_compiler::check::assumptions(&spec) {
                println!("{a:?}");
            }
        }
        Err(d) => print!("{}", aurora_lang::diagnostics::render_text(&d, s, false)),
    }
}
