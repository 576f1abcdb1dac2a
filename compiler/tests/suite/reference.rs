//! The language reference is up to date, and the schema is consistent.

use aurora_compiler::schema::{BLOCKS, Default, FieldSchema, Type, reference};
use aurora_lang::parse::{parse, parse_value};

#[test]
fn the_reference_is_up_to_date() {
    crate::assert_page("book/src/language/reference.md", &reference());
}

fn each_field(visit: &mut dyn FnMut(&str, &FieldSchema)) {
    fn inside(kind: &Type, place: &str, visit: &mut dyn FnMut(&str, &FieldSchema)) {
        match kind {
            Type::Call(calls) => {
                for call in *calls {
                    for argument in call.all() {
                        let place = format!("{place}.{}.{}", call.name, argument.name);
                        visit(&place, argument);
                        inside(&argument.kind, &place, visit);
                    }
                }
            }
            Type::List { of, .. } => inside(of, place, visit),
            Type::OneOf(types) => types.iter().for_each(|kind| inside(kind, place, visit)),
            _ => {}
        }
    }
    for block in BLOCKS {
        for field in block.fields {
            let place = format!("{}.{}", block.kind, field.name);
            visit(&place, field);
            inside(&field.kind, &place, visit);
        }
    }
}

#[test]
fn every_field_has_a_meaning() {
    let mut count = 0;
    each_field(&mut |place, field| {
        count += 1;
        assert!(
            field.meaning.ends_with('.') && field.meaning.len() > 8,
            "{place}: `{}`",
            field.meaning
        );
        if let Default::Value(text) = field.default {
            assert!(
                parse_value(text).is_ok(),
                "{place}: the default `{text}` does not parse"
            );
        }
    });
    assert!(count > 80, "only {count} fields");
}

#[test]
fn block_examples_are_formatted() {
    for block in BLOCKS {
        let parsed = parse(block.example, None);
        assert!(parsed.errors.is_empty(), "{}: {:?}", block.kind, parsed.errors);
        let formatted = aurora_lang::format(block.example).expect("it parses");
        assert_eq!(formatted.trim_end(), block.example, "{}", block.kind);
    }
}
