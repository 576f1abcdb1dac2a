//! Counts how many lines of a text file look like a language: `language_accuracy en FILE…`.
use aurora_compiler::language::detection;
use aurora_runtime::data::language::Detector;

fn main() {
    let mut arguments = std::env::args().skip(1);
    let name = arguments.next().unwrap_or_default();
    let detector = detection(&name).and_then(|detection| Detector::new(detection.by, detection.code).ok());
    let Some(detector) = detector else {
        return eprintln!("nothing detects the language `{name}`");
    };
    for path in arguments {
        let Ok(text) = std::fs::read_to_string(&path) else {
            return eprintln!("cannot read `{path}`");
        };
        let lines: Vec<&str> = text.lines().collect();
        let wrong: Vec<&&str> = lines.iter().filter(|line| !detector.accepts(line)).collect();
        println!("{name} {path}: {} of {}", lines.len() - wrong.len(), lines.len());
        if std::env::var("SHOW").is_ok() {
            wrong.iter().take(40).for_each(|line| println!("    {line}"));
        }
    }
}
