//! Parses a page of HTML, within limits.
//!
//! In: the text of a page. Out: its tree, or the limit that it passes. The parser gets the page in pieces, and after each
//! piece the tree is examined: elements that are never closed nest without end, misnested ones are repeated in every later
//! paragraph, and every attribute of a tag is compared with those before it. The tree does not depend on the pieces.

use std::cell::Cell;

use ego_tree::NodeId;
use html5ever::TokenizerResult;
use html5ever::buffer_queue::BufferQueue;
use html5ever::tendril::StrTendril;
use html5ever::tokenizer::{Token, TokenSink, TokenSinkResult, Tokenizer, TokenizerOpts};
use html5ever::tree_builder::{TreeBuilder, TreeBuilderOpts, TreeSink};
use scraper::{Html, HtmlTreeSink};

use super::Skip;
use crate::limits::{PAGE, PAGE_DEPTH, PAGE_NODES, TAG_ATTRIBUTES};

/// Bytes of a piece.
const PIECE: usize = 1024;

/// # Errors
/// The limit that the page passes.
pub(super) fn parse(page: &str) -> Result<Html, Skip> {
    if page.len() > PAGE {
        return Err(Skip::LargePage);
    }
    let builder = TreeBuilder::new(HtmlTreeSink::new(Html::new_document()), TreeBuilderOpts::default());
    let tokens = Tokens {
        builder,
        came: Cell::new(false),
        merged: Cell::new(0),
    };
    let tokenizer = Tokenizer::new(tokens, TokenizerOpts::default());
    let input = BufferQueue::default();
    let mut nodes = 0;
    let mut tags = OpenTags::default();
    let mut rest = page;
    while !rest.is_empty() {
        let (piece, after) = rest.split_at(rest.floor_char_boundary(PIECE.min(rest.len())));
        rest = after;
        input.push_back(StrTendril::from(piece));
        // It pauses at scripts, which nobody runs.
        while !matches!(tokenizer.feed(&input), TokenizerResult::Done) {}
        tags.read(piece.as_bytes(), tokenizer.sink.came.take());
        if tags.attributes() > TAG_ATTRIBUTES || tokenizer.sink.merged.get() > TAG_ATTRIBUTES {
            return Err(Skip::Attributes);
        }
        nodes = examine(&tokenizer.sink.builder.sink, nodes)?;
    }
    tokenizer.end();
    Ok(tokenizer.sink.builder.sink.finish())
}

/// Compares the tree with the limits, where the first `before` nodes have been compared already. Returns the number of nodes.
fn examine(sink: &HtmlTreeSink, before: usize) -> Result<usize, Skip> {
    let html = sink.0.borrow();
    let nodes = html.tree.nodes();
    let count = nodes.len();
    if count > PAGE_NODES {
        return Err(Skip::Nodes);
    }
    for node in nodes.skip(before) {
        if node.ancestors().take(PAGE_DEPTH + 1).count() > PAGE_DEPTH {
            return Err(Skip::Depth);
        }
    }
    Ok(count)
}

/// Passes tokens on, and notes that one came.
struct Tokens {
    builder: TreeBuilder<NodeId, HtmlTreeSink>,
    came: Cell<bool>,
    /// Attributes of all `html` and `body` tags: the parser adds those of later ones to the first.
    merged: Cell<usize>,
}

impl TokenSink for Tokens {
    type Handle = NodeId;

    fn process_token(&self, token: Token, line: u64) -> TokenSinkResult<NodeId> {
        if !matches!(token, Token::ParseError(_)) {
            self.came.set(true);
        }
        if let Token::TagToken(tag) = &token
            && matches!(&*tag.name, "html" | "body")
        {
            self.merged.set(self.merged.get() + tag.attrs.len());
        }
        self.builder.process_token(token, line)
    }

    fn end(&self) {
        self.builder.end();
    }

    fn adjusted_current_node_present_but_not_in_html_namespace(&self) -> bool {
        self.builder.adjusted_current_node_present_but_not_in_html_namespace()
    }
}

/// Where in a tag a byte is. Source: HTML, 13.2.5 (tokenization).
#[derive(Clone, Copy)]
enum State {
    TagName,
    BeforeName,
    Name,
    AfterName,
    BeforeValue,
    Unquoted,
    DoubleQuoted,
    SingleQuoted,
}

/// The most attributes of a tag that may be in each state.
type States = [Option<usize>; 8];

/// Counts the attributes of the tag that the tokenizer is in.
///
/// Where a tag begins depends on what is around it: a `<` in a script or a comment begins none. So every `<` before a name
/// counts as a beginning until a `>` ends it, or until a token comes that it cannot be part of. The real tag is among them.
#[derive(Default)]
struct OpenTags {
    states: States,
    /// The bytes before are `<` or `</`.
    opening: bool,
}

impl OpenTags {
    /// Reads a piece. `token` is whether a token ended in it: then only what begins in this piece can still be open.
    fn read(&mut self, piece: &[u8], token: bool) {
        let mut begun = States::default();
        for &byte in piece {
            begun = next(begun, byte);
            if !token {
                self.states = next(self.states, byte);
            }
            if self.opening && byte.is_ascii_alphabetic() {
                begun[State::TagName as usize].get_or_insert(0);
            }
            self.opening = byte == b'<' || self.opening && byte == b'/';
        }
        if token {
            self.states = begun;
        } else {
            for (state, attributes) in self.states.iter_mut().zip(begun) {
                *state = (*state).max(attributes);
            }
        }
    }

    fn attributes(&self) -> usize {
        self.states.iter().flatten().copied().max().unwrap_or(0)
    }
}

/// The states after a byte.
fn next(states: States, byte: u8) -> States {
    use State::{AfterName, BeforeName, BeforeValue, DoubleQuoted, Name, SingleQuoted, TagName, Unquoted};
    let mut after = States::default();
    let all = [
        TagName,
        BeforeName,
        Name,
        AfterName,
        BeforeValue,
        Unquoted,
        DoubleQuoted,
        SingleQuoted,
    ];
    for (state, attributes) in all.into_iter().zip(states) {
        let Some(attributes) = attributes else { continue };
        let is_space = byte.is_ascii_whitespace();
        let (state, more) = match (state, byte) {
            (DoubleQuoted, b'"') | (SingleQuoted, b'\'') => (BeforeName, 0),
            (DoubleQuoted | SingleQuoted, _) => (state, 0),
            (_, b'>') => continue,
            (Unquoted | TagName, _) if is_space => (BeforeName, 0),
            (TagName | Name | AfterName | BeforeName, b'/') => (BeforeName, 0),
            (TagName | Unquoted, _) => (state, 0),
            (Name | AfterName, b'=') => (BeforeValue, 0),
            (Name, _) if is_space => (AfterName, 0),
            (Name, _) => (Name, 0),
            (BeforeValue, b'"') => (DoubleQuoted, 0),
            (BeforeValue, b'\'') => (SingleQuoted, 0),
            (BeforeName | AfterName | BeforeValue, _) if is_space => (state, 0),
            (BeforeValue, _) => (Unquoted, 0),
            (BeforeName | AfterName, _) => (Name, 1),
        };
        let place = &mut after[state as usize];
        *place = (*place).max(Some(attributes + more));
    }
    after
}

#[cfg(test)]
mod tests {
    use super::*;

    fn limit(page: &str) -> Option<Skip> {
        parse(page).err()
    }

    #[test]
    fn elements_that_are_never_closed_have_a_limit() {
        assert_eq!(limit(&"<div>".repeat(PAGE_DEPTH - 10)), None);
        for element in ["<div>", "<i>", "<table><tr><td>", "<svg><g>", "<b class=x>"] {
            assert_eq!(limit(&element.repeat(200_000)), Some(Skip::Depth), "{element}");
        }
        // The last node of every piece is not deep.
        let comment = format!("{}</html><!-- {} -->", "<div>".repeat(100), "x".repeat(500));
        assert_eq!(limit(&comment.repeat(100)), Some(Skip::Depth));
    }

    /// Each paragraph repeats all elements that were left open in the ones before it.
    #[test]
    fn misnested_elements_have_a_limit() {
        let page = |count: usize| (0..count).map(|i| format!("<p><b id={i}>text</p>")).collect::<String>();
        assert_eq!(limit(&page(100)), None);
        assert_eq!(limit(&page(100_000)), Some(Skip::Depth));
        // Below the limit of depth.
        let opened = (0..400).map(|i| format!("<b id={i}>")).collect::<String>();
        assert_eq!(
            limit(&format!("<p>{opened}{}", "<p>x".repeat(10_000))),
            Some(Skip::Nodes)
        );
        assert_eq!(limit(&"<br>".repeat(PAGE_NODES)), Some(Skip::Nodes));
        assert_eq!(limit(&"x".repeat(PAGE + 1)), Some(Skip::LargePage));
    }

    #[test]
    fn attributes_of_a_tag_have_a_limit() {
        let many = |between: &str| -> String { (0..100_000).map(|i| format!("a{i}{between}")).collect() };
        for before in [
            "<p>text<div ",
            "</p ",
            "<svg><style><g ",
            "<!-- > <a b=\" --><div ",
            "<script><!--<script></script>\"--></script \"<div ",
            "<title><a b='</title><div ",
        ] {
            for between in [" ", "/", "=\"x\"", "='' ", "=x\n", "= x\t"] {
                let page = format!("{before}{}", many(between));
                assert_eq!(limit(&page), Some(Skip::Attributes), "{before} {between:?}");
            }
        }
    }

    /// The parser adds the attributes of later `html` and `body` tags to the first.
    #[test]
    fn attributes_of_all_html_and_body_tags_have_a_limit() {
        for tag in ["html", "body"] {
            let page = |tags: usize| -> String { (0..tags).map(|i| format!("<{tag} a{i}=1>")).collect() };
            assert_eq!(limit(&page(TAG_ATTRIBUTES)), None);
            assert_eq!(limit(&page(TAG_ATTRIBUTES + 1)), Some(Skip::Attributes), "{tag}");
        }
    }

    /// What looks like tags with many attributes, but is not.
    #[test]
    fn long_texts_values_and_comments_have_no_limit() {
        let code = "for(i=0;i<n;i++){a[i] = b / c;} ".repeat(10_000);
        let path = "M 10 10 L 20 20 / ".repeat(10_000);
        for page in [
            format!("<script>{code}</script><p>text"),
            format!("<svg><path d=\"{path}\"/></svg><p>text"),
            format!("<img src='data:image/png;base64,{path}'><p>text"),
            format!("<!-- {path} <p> {path} --><p>text"),
            format!("<p {}>text", (0..900).map(|i| format!("a{i}=1 ")).collect::<String>()),
        ] {
            assert_eq!(limit(&page), None, "{}", &page[..60]);
        }
    }

    #[test]
    fn the_tree_does_not_depend_on_the_pieces() {
        let words = [
            "<p>",
            "</p>",
            "<b>",
            "</b>",
            "<a href=\"x>y\">",
            "</a>",
            "text ",
            "é日本",
            "&amp;",
            "&notit;",
            "&#x41;",
            "<table>",
            "<td>",
            "</table>",
            "<script>",
            "a<b",
            "</script>",
            "<!-- c -->",
            "<pre>\n",
            "</pre>",
            "<svg>",
            "<![CDATA[x]]>",
            "</svg>",
            "<br/>",
            "\r\n",
            "<title>",
            "</title>",
            "<li>",
            "<ul>",
            "</ul>",
        ];
        let mut random = 1u64;
        for _ in 0..200 {
            let mut page = String::new();
            while page.len() < 3 * PIECE {
                random = random
                    .wrapping_mul(6_364_136_223_846_793_005)
                    .wrapping_add(1_442_695_040_888_963_407);
                page.push_str(words[(random >> 33) as usize % words.len()]);
            }
            match parse(&page) {
                Ok(tree) => assert_eq!(tree.html(), Html::parse_document(&page).html()),
                Err(limit) => assert_eq!(limit, Skip::Depth),
            }
        }
    }
}
