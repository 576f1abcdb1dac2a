//! Evaluates the conditions of a script that do not depend on its environment.

use tree_sitter::Node;

use super::{Shell, Source, named};
use crate::megatron::text::{first_unknown, plain};

impl Shell {
    /// Whether a condition holds. `None` if that is only known when the script runs. Commands in it are interpreted, and are
    /// assumed to succeed.
    pub(super) fn condition(&mut self, node: Node<'_>, source: &Source<'_>) -> Option<bool> {
        if self.depth >= super::DEEPEST {
            return None;
        }
        self.depth += 1;
        let holds = match node.kind() {
            "test_command" => named(node).next().and_then(|inner| self.test(inner, source)),
            "negated_command" => {
                let inner = named(node).next();
                inner
                    .and_then(|inner| self.condition(inner, source))
                    .map(|holds| !holds)
            }
            "list" => self.list(node, source),
            _ => {
                self.statement(node, source);
                Some(true)
            }
        };
        self.depth -= 1;
        holds
    }

    fn list(&mut self, node: Node<'_>, source: &Source<'_>) -> Option<bool> {
        let mut sides = named(node);
        let (left, right) = (sides.next()?, sides.next()?);
        let either = super::named_or_not(node).any(|child| child.kind() == "||");
        match (self.condition(left, source), either) {
            (Some(true), true) => Some(true),
            (Some(false), false) => Some(false),
            (Some(_), _) => self.condition(right, source),
            (None, _) => {
                self.skip(right, source, "its condition is only known when the script runs");
                None
            }
        }
    }

    /// `[ … ]` and `[[ … ]]`: tests for emptiness, and comparisons of texts and numbers.
    fn test(&mut self, node: Node<'_>, source: &Source<'_>) -> Option<bool> {
        if node.has_error() || self.depth >= super::DEEPEST {
            return None;
        }
        self.depth += 1;
        let holds = self.holds(node, source);
        self.depth -= 1;
        holds
    }

    fn holds(&mut self, node: Node<'_>, source: &Source<'_>) -> Option<bool> {
        match node.kind() {
            "unary_expression" => {
                let operator = node.child_by_field_name("operator").or_else(|| node.child(0))?;
                let operand = named(node).last()?;
                match plain(source.of(operator)).trim() {
                    "-z" => Some(self.text_of(operand, source)?.is_empty()),
                    "-n" => Some(!self.text_of(operand, source)?.is_empty()),
                    "!" => self.test(operand, source).map(|holds| !holds),
                    _ => None,
                }
            }
            "binary_expression" => {
                let operator = node.child_by_field_name("operator")?;
                let operator = plain(source.of(operator));
                let (left, right) = (node.child_by_field_name("left")?, node.child_by_field_name("right")?);
                if matches!(operator.as_str(), "&&" | "||") {
                    let (left, right) = (self.test(left, source), self.test(right, source));
                    let decides = operator == "||";
                    return match (left, right) {
                        (Some(one), _) | (_, Some(one)) if one == decides => Some(decides),
                        (Some(_), Some(_)) => Some(!decides),
                        _ => None,
                    };
                }
                let is_pattern = plain(source.of(right)).contains(['*', '?', '[']);
                let (left, right) = (self.text_of(left, source)?, self.text_of(right, source)?);
                let numbers = || Some((left.trim().parse::<i64>().ok()?, right.trim().parse::<i64>().ok()?));
                match operator.as_str() {
                    "=" | "==" if !is_pattern => Some(left == right),
                    "!=" if !is_pattern => Some(left != right),
                    "-eq" => numbers().map(|(left, right)| left == right),
                    "-ne" => numbers().map(|(left, right)| left != right),
                    "-lt" => numbers().map(|(left, right)| left < right),
                    "-le" => numbers().map(|(left, right)| left <= right),
                    "-gt" => numbers().map(|(left, right)| left > right),
                    "-ge" => numbers().map(|(left, right)| left >= right),
                    _ => None,
                }
            }
            "parenthesized_expression" => named(node).next().and_then(|inner| self.test(inner, source)),
            _ => None,
        }
    }

    fn text_of(&mut self, node: Node<'_>, source: &Source<'_>) -> Option<String> {
        let text = self.expand_unsplit(source.of(node));
        first_unknown(&text).is_none().then(|| plain(&text))
    }
}
