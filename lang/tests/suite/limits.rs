//! Limits of the parser, and its tables of words.

use aurora_lang::diagnostics::Code;
use aurora_lang::keywords::{CHANGE_BLOCKS, IN, STATEMENTS};
use aurora_lang::parse;
use aurora_lang::parse::{MOST_NESTING, parse_field};

/// Calls, lists or parentheses inside each other.
fn nested(open: &str, depth: usize, close: &str) -> String {
    format!("{}1{}", open.repeat(depth), close.repeat(depth))
}

#[test]
fn calls_and_lists_are_nested_up_to_a_limit() {
    for (open, close) in [("[", "]"), ("f(", ")"), ("f(x = ", ")"), ("f([", "])")] {
        let brackets = open.matches(['[', '(']).count();
        let limit = (MOST_NESTING - 1) / brackets;
        let field = |depth: usize| format!("x = {}", nested(open, depth, close));
        let block = |depth: usize| parse(&format!("a b {{ {} }}", field(depth)), None).errors;
        assert_eq!(block(limit), Vec::new(), "{open}");
        for depth in [limit + 1, 100_000] {
            let errors = block(depth);
            assert_eq!(
                errors.iter().map(|error| error.code).collect::<Vec<_>>(),
                [Code::TOO_DEEP],
                "{open}"
            );
            assert_eq!(errors[0].message, "nested more than 32 deep");
        }
        // The value of `--set` is not in a block.
        assert!(parse_field(&field(limit), 0).is_ok(), "{open}");
        let errors = parse_field(&field(100_000), 7).expect_err("too deep");
        assert_eq!(
            errors.iter().map(|error| error.code).collect::<Vec<_>>(),
            [Code::TOO_DEEP],
            "{open}"
        );
        assert!(errors[0].place().is_some_and(|place| place.start >= 7 + "x = ".len()));
    }
    let gate = |depth: usize| parse(&format!("expect e {{ {} < 2 }}", nested("(", depth, ")")), None).errors;
    assert_eq!(gate(MOST_NESTING - 1), Vec::new());
    assert_eq!(
        gate(MOST_NESTING).iter().map(|error| error.code).collect::<Vec<_>>(),
        [Code::TOO_DEEP]
    );
}

#[test]
fn the_words_of_the_grammar_are_those_of_the_tables() {
    for word in STATEMENTS {
        let text = match word {
            "import" | "extends" => format!("{word} \"a.aur\" {{}}"),
            _ => format!("{word} a = 1"),
        };
        let parsed = parse(&text, None);
        assert_eq!(parsed.errors, Vec::new());
        assert_eq!(parsed.file.statements.len(), 1, "{text}");
        assert_eq!(parsed.file.statements[0].kind.keyword(), word);
        // No block has such a keyword.
        assert!(!parse(&format!("{word} a {{}}"), None).errors.is_empty());
    }
    for word in CHANGE_BLOCKS {
        let name = if word == "extends" { "\"a.aur\"" } else { "a" };
        let text = format!("{word} {name} {{\nb c {{\nd = 1\n}}\n}}");
        let parsed = parse(&text, None);
        assert_eq!(parsed.errors, Vec::new(), "{text}");
        assert_eq!(parsed.file.items.len() + parsed.file.statements.len(), 1);
    }
    assert_eq!(parse(&format!("param a = 1\n{IN} 1 .. 2"), None).errors, Vec::new());
}
