//! Counts how many lines of a text file look like a language: `language_accuracy en FILE…`.
use aurora_compiler::fields::Language;
use aurora_runtime::data::language::looks_like;

fn main() {
    let mut arguments = std::env::args().skip(1);
    let name = arguments.next().unwrap_or_default();
    let Ok(language) = serde_json::from_str::<Language>(&format!("{name:?}")) else {
        return eprintln!("no language `{name}`");
    };
    for path in arguments {
        let Ok(text) = std::fs::read_to_string(&path) else {
            return eprintln!("cannot read `{path}`");
        };
        let lines: Vec<&str> = text.lines().collect();
        let wrong: Vec<&&str> = lines.iter().filter(|line| !looks_like(language, line)).collect();
        println!("{name} {path}: {} of {}", lines.len() - wrong.len(), lines.len());
        if std::env::var("SHOW").is_ok() {
            wrong.iter().take(40).for_each(|line| println!("    {line}"));
        }
    }
}
