//! Example items of evals: the prompt, and the answers of the first and the last checkpoint.

use maud::{Markup, html};

use super::story::{EvalStory, Example, ExampleAnswer, Story};
use crate::judge::JudgeReport;
use crate::task::ItemResult;

/// Items that the page shows of each eval.
const SHOWN: usize = 6;
/// Characters of a text that it shows.
const LENGTH: usize = 600;

/// Chooses items by the hash of their names, for an unbiased choice, and collects the answers of the checkpoints.
pub(super) fn choose(checkpoints: &[(String, Vec<ItemResult>)]) -> Vec<Example> {
    let Some((_, items)) = checkpoints.last() else {
        return Vec::new();
    };
    let name = |item: &ItemResult| (item.item.clone(), item.attack.clone());
    let mut chosen: Vec<&ItemResult> = items.iter().collect();
    chosen.sort_by_cached_key(|item| crate::content_of(format!("{:?}", name(item)).as_bytes()));
    chosen.truncate(SHOWN);
    chosen.sort_by_key(|item| name(item));
    let example = |item: &ItemResult| {
        let answers = checkpoints.iter().filter_map(|(at, items)| {
            let own = items.iter().find(|own| name(own) == name(item))?;
            Some(ExampleAnswer {
                at: at.clone(),
                answer: cut(&answer(own)),
                verdict: verdict(own),
            })
        });
        Example {
            item: item.item.clone(),
            attack: item.attack.clone(),
            prompt: cut(&item.prompt),
            expected: match item.right {
                Some(right) => item
                    .choices
                    .get(right)
                    .map(|(choice, _)| cut(choice))
                    .into_iter()
                    .collect(),
                None => item.expected.iter().map(|text| cut(text)).collect(),
            },
            answers: answers.collect(),
        }
    };
    chosen.into_iter().map(example).collect()
}

/// The text of an answer: the first of several, or the likeliest choice.
fn answer(item: &ItemResult) -> String {
    let likeliest = item
        .choices
        .iter()
        .reduce(|best, own| if own.1 > best.1 { own } else { best });
    let choice = likeliest.map(|(choice, _)| choice);
    let text = item.text.as_ref().or(item.answers.first()).or(choice);
    text.cloned().unwrap_or_default()
}

fn verdict(item: &ItemResult) -> String {
    if let Some(verdict) = item.verdicts.first() {
        return cut(&verdict.words);
    }
    let scores = item.scores.iter().map(|(metric, value)| format!("{metric} {value:.3}"));
    scores.collect::<Vec<_>>().join(", ")
}

fn cut(text: &str) -> String {
    let mut shown: String = text.chars().take(LENGTH).collect();
    if shown.len() < text.len() {
        shown.push('…');
    }
    shown
}

/// The examples of an eval, collapsed.
pub(super) fn table(eval: &EvalStory) -> Markup {
    html! {
        @if let Some(judge) = &eval.judge { (agreement(judge)) }
        @if !eval.examples.is_empty() {
            details id=(format!("examples-{}", eval.name)) {
                summary { (eval.examples.len()) " items, chosen by the hash of their names" }
                @for example in &eval.examples {
                    div class="example" {
                        p { code { (example.item) } @if let Some(attack) = &example.attack { " as " (attack) } }
                        pre { (example.prompt) }
                        @for expected in &example.expected { p { "expected: " (expected) } }
                        @for answer in &example.answers {
                            p { strong { (answer.at) } ": " (answer.verdict) }
                            pre { (answer.answer) }
                        }
                    }
                }
            }
        }
    }
}

fn agreement(judge: &JudgeReport) -> Markup {
    let found = &judge.agreement;
    html! {
        p {
            "The judge's rules on " (found.responses()) " responses that people have labelled: precision "
            (format!("{:.2}", judge.precision)) ", recall " (format!("{:.2}", judge.recall)) " (" (found.both) " found by both, "
            (found.rules_only) " by the rules alone, " (found.people_only) " by people alone)."
        }
    }
}

/// One line of links to the items on the page.
pub(super) fn contents(story: &Story) -> Markup {
    let shown: Vec<&EvalStory> = story.evals.iter().filter(|eval| !eval.examples.is_empty()).collect();
    html! {
        @if !shown.is_empty() {
            p { "Items: " @for eval in shown { a href=(format!("#examples-{}", eval.name)) { (eval.name) } " " } }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_same_items_are_shown_of_every_checkpoint() {
        let item = |number: usize, text: &str| ItemResult {
            item: format!("x:{number}"),
            text: Some(text.to_owned()),
            ..ItemResult::default()
        };
        let long = "ä".repeat(700);
        let first: Vec<ItemResult> = (0..20).map(|number| item(number, "first")).collect();
        let last: Vec<ItemResult> = (0..20).map(|number| item(number, &long)).collect();
        let examples = choose(&[("a".to_owned(), first), ("b".to_owned(), last)]);
        assert_eq!(examples.len(), SHOWN);
        for example in &examples {
            let lengths: Vec<(&str, usize)> = example
                .answers
                .iter()
                .map(|answer| (answer.at.as_str(), answer.answer.chars().count()))
                .collect();
            assert_eq!(lengths, [("a", 5), ("b", LENGTH + 1)]);
        }
        assert!(choose(&[]).is_empty());
    }
}
