//! Random files with random white space: the formatter changes neither tree nor comments, and formatting twice changes
//! nothing; a merge takes all changes of a side if the other side has none.

use std::collections::BTreeSet;

use aurora_lang::ast::{Block, Body, Entry, File, Statement, StatementKind};
use aurora_lang::parse::Previous;
use aurora_lang::{merge, parse};
use proptest::collection::vec;
use proptest::prelude::*;

/// Random white space with comments.
fn gap() -> impl Strategy<Value = String> {
    prop_oneof![
        6 => Just(" ".to_owned()),
        2 => Just("\n".to_owned()),
        1 => Just("\n\n\n  ".to_owned()),
        1 => Just("\r\n\t".to_owned()),
        1 => "[ a-z{}\\[\"=]{0,6}".prop_map(|text| format!(" // {text}\n")),
        1 => "[ a-z]{0,6}".prop_map(|text| format!("\n/// {text}\n\n// again\n")),
    ]
}

fn word() -> impl Strategy<Value = String> {
    "[a-z_][a-z0-9_]{0,10}".prop_filter("a word of the grammar", |word| {
        ![
            "every",
            "expect",
            "in",
            "weight",
            "max_epochs",
            "from",
            "import",
            "param",
            "let",
            "extends",
            "sweep",
        ]
        .contains(&word.as_str())
    })
}

fn number() -> impl Strategy<Value = String> {
    let digits = prop_oneof!["-?[0-9]{1,3}", "[0-9]_[0-9]{3}", "[0-9]\\.[0-9]{1,2}", "[1-9]e-[1-9]"];
    let unit = prop_oneof![
        Just(String::new()),
        Just("%".to_owned()),
        Just(" tokens".to_owned()),
        Just("K".to_owned()),
        Just("B  steps".to_owned()),
        Just("GiB".to_owned()),
    ];
    (digits, unit).prop_map(|(digits, unit)| digits + &unit)
}

fn text() -> impl Strategy<Value = String> {
    "[ a-zé日/{}\\[\\]()=,.@%#']{0,20}".prop_map(|text| format!("\"{text}\\\"\\\\\\n\""))
}

fn marks() -> impl Strategy<Value = String> {
    prop_oneof![
        4 => Just(String::new()),
        1 => (gap(), text()).prop_map(|(gap, text)| format!("{gap}@assumed({text})")),
    ]
}

fn value() -> impl Strategy<Value = String> {
    let leaf = prop_oneof![
        number(),
        text(),
        word(),
        number().prop_map(|number| format!("every {number}"))
    ];
    leaf.prop_recursive(3, 16, 4, |inner| {
        let item = (gap(), inner.clone(), marks(), gap())
            .prop_map(|(before, value, marks, after)| format!("{before}{value}{marks}{after}"));
        let argument = (gap(), word(), inner, marks(), gap())
            .prop_map(|(before, name, value, marks, after)| format!("{before}{name} ={after}{value}{marks}"));
        prop_oneof![
            vec(item, 0..4).prop_map(|items| format!("[{}]", items.join(","))),
            (word(), vec(argument, 0..4)).prop_map(|(name, arguments)| format!("{name}({})", arguments.join(","))),
        ]
    })
}

fn field() -> impl Strategy<Value = String> {
    (word(), gap(), gap(), value(), marks())
        .prop_map(|(name, before, after, value, marks)| format!("{name}{before}={after}{value}{marks}"))
}

fn component() -> impl Strategy<Value = String> {
    (word(), gap(), number(), marks())
        .prop_map(|(name, gap, weight, marks)| format!("{name} from{gap}[a, b]{gap}weight {weight}{marks}"))
}

fn block() -> impl Strategy<Value = String> {
    let entry = prop_oneof![5 => field(), 1 => component()];
    let body = vec((entry, gap()), 0..5).prop_map(|entries| {
        entries
            .into_iter()
            .map(|(entry, gap)| format!("{entry}\n{gap}"))
            .collect::<String>()
    });
    let plain =
        (word(), word(), gap(), body).prop_map(|(kind, name, gap, body)| format!("{kind}{gap}{name} {{{gap}{body}}}"));
    let gate = (word(), word(), number(), gap(), marks()).prop_map(|(name, metric, number, gap, marks)| {
        format!("expect {name} {{{gap}{metric}.a.pass@1{gap}<={gap}({number} + mean({metric}.b.c,{gap}1)) * 2{gap}with 95%{gap}confidence{marks}{gap}}}")
    });
    prop_oneof![5 => plain, 1 => gate]
}

/// A statement. Its words are separated by spaces, because it ends with its line.
fn statement() -> impl Strategy<Value = String> {
    let line = (word(), value(), marks()).prop_map(|(name, value, marks)| format!("let {name} = {value}{marks}"));
    let range = prop_oneof![
        Just(String::new()),
        Just(" in 1 .. 2".to_owned()),
        Just(" in 1K tokens..2 tokens".to_owned()),
        Just(" in [ a,b ]".to_owned()),
    ];
    let param = (word(), number(), range).prop_map(|(name, value, range)| format!("param {name} = {value}{range}"));
    let names = (gap(), vec(word(), 1..30)).prop_map(|(gap, names)| format!(" {{{gap}{}{gap}}}", names.join(",")));
    let import =
        (text(), prop_oneof![Just(String::new()), names]).prop_map(|(path, names)| format!("import {path}{names}"));
    let body = vec((field(), gap()), 0..4).prop_map(|entries| {
        let entries: Vec<String> = entries
            .into_iter()
            .map(|(entry, gap)| format!("{entry}\n{gap}"))
            .collect();
        format!(" {{\n{}}}", entries.concat())
    });
    let extends =
        (text(), prop_oneof![Just(String::new()), body]).prop_map(|(path, body)| format!("extends {path}{body}"));
    prop_oneof![2 => line, 1 => param, 1 => import, 1 => extends]
}

fn file() -> impl Strategy<Value = String> {
    let item = prop_oneof![3 => block(), 2 => statement()];
    vec((gap(), item, gap()), 0..5).prop_map(|blocks| {
        blocks
            .into_iter()
            .map(|(before, block, after)| format!("{before}{block}{after}\n"))
            .collect()
    })
}

/// The tree without places, and the comments without their order: one in the middle of a field may move.
fn shape(file: &File) -> (String, Vec<String>) {
    let mut comments: Vec<String> = file.comments.iter().map(|comment| comment.text.clone()).collect();
    comments.sort();
    let mut items = file.items.clone();
    for item in &mut items {
        // Documentation is made of comments, compared below; a moved comment may change what it is next to.
        item.documentation.clear();
    }
    let mut tree = format!("{items:?} {:?}", file.statements);
    while let Some(start) = tree.find("Span {") {
        let end = tree[start..].find('}').map_or(tree.len(), |length| start + length + 1);
        tree.replace_range(start..end, "");
    }
    (tree, comments)
}

/// Whether every block and every entry has a name of its own, as `check` demands.
fn names_differ(file: &File) -> bool {
    let once = |names: Vec<String>| names.iter().collect::<BTreeSet<_>>().len() == names.len();
    let name = |entry: &Entry| match entry {
        Entry::Field(field) => field
            .path
            .iter()
            .map(|name| name.text.as_str())
            .collect::<Vec<_>>()
            .join("."),
        Entry::Component(component) => component.name.text.clone(),
        Entry::Block(block) => block.name.text.clone(),
    };
    let entries = |block: &Block| match &block.body {
        Body::Entries(entries) => once(entries.iter().map(name).collect()),
        Body::Gate(_) => true,
    };
    let block = |block: &Block| format!("{} {}", block.keyword.text, block.name.text);
    let statement = |statement: &Statement| match &statement.kind {
        StatementKind::Import { path, .. } => format!("import {}", path.text),
        StatementKind::Extends { .. } => "extends".to_owned(),
        StatementKind::Let { name, .. } | StatementKind::Param { name, .. } => name.text.clone(),
    };
    let extended = |statement: &Statement| match &statement.kind {
        StatementKind::Extends { entries, .. } => once(entries.iter().map(name).collect()),
        _ => true,
    };
    once(file.statements.iter().map(statement).collect())
        && file.statements.iter().all(extended)
        && once(file.items.iter().map(block).collect())
        && file.items.iter().all(entries)
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 512, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn formatting_keeps_tree_and_comments(text in file()) {
        let parsed = parse(&text, None);
        prop_assume!(parsed.errors.is_empty());
        let formatted = aurora_lang::format(&text).expect("it parses");
        let again = parse(&formatted, None);
        prop_assert_eq!(&again.errors, &Vec::new(), "{}", formatted);
        prop_assert_eq!(shape(&again.file), shape(&parsed.file), "{}", formatted);
        prop_assert_eq!(aurora_lang::format(&formatted), Ok(formatted.clone()));
        for line in formatted.lines() {
            prop_assert_eq!(line.trim_end(), line, "no blanks at the end of a line");
        }
    }

    #[test]
    fn a_merge_takes_the_side_that_changed_something(base in file(), other in file()) {
        prop_assume!([&base, &other].iter().all(|text| names_differ(&parse(text, None).file)));
        let expected = shape(&parse(&other, None).file);
        for (ours, theirs) in [(&other, &base), (&base, &other), (&other, &other)] {
            let merged = merge(&base, ours, theirs).expect("all sides parse");
            prop_assert_eq!(&merged.conflicts, &Vec::new());
            let parsed = parse(&merged.text, None);
            prop_assert_eq!(&parsed.errors, &Vec::new(), "{}", merged.text);
            prop_assert_eq!(shape(&parsed.file), expected.clone(), "{}", merged.text);
        }
    }

    #[test]
    fn a_previous_tree_changes_nothing(before in file(), text in file(), at in 0_usize..400, is_cut in any::<bool>()) {
        let first = parse(&text, None);
        // The same blocks after others, and with the end missing.
        let mut changed = format!("{before}\n{text}");
        if is_cut {
            let at = changed.char_indices().map(|(byte, _)| byte).find(|&byte| byte >= at).unwrap_or(changed.len());
            changed.truncate(at);
        }
        let second = parse(&changed, Some(Previous { text: &text, parsed: &first }));
        prop_assert_eq!(&second, &parse(&changed, None));
        let third = parse(&text, Some(Previous { text: &changed, parsed: &second }));
        prop_assert_eq!(&third, &first);
        // As part of a longer text.
        let moved = parse(&text, None).moved(before.len() + 1);
        let longer = format!("{before}\n{text}");
        prop_assert_eq!(&parse(&text, Some(Previous { text: &longer, parsed: &moved })), &first);
    }

    #[test]
    fn most_random_files_parse(text in file()) {
        // Only what is written by this file's own rules: if this fails, the property above tests nothing.
        let parsed = parse(&text, None);
        prop_assert!(parsed.errors.is_empty(), "{:?}\n{}", parsed.errors, text);
    }
}
