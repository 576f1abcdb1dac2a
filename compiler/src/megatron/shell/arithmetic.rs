//! Integer arithmetic of the shell: `$((8 * NODES))`.

/// Evaluates an expression. `variable` returns the value of a name.
///
/// Returns `None` for invalid expressions, unknown values, and operators that launch scripts do not need (assignments,
/// comparisons, bits).
pub fn value(text: &str, variable: &mut dyn FnMut(&str) -> Option<i64>) -> Option<i64> {
    let mut reader = Reader {
        rest: text,
        variable,
        depth: 0,
    };
    let value = reader.sum()?;
    reader.rest.trim().is_empty().then_some(value)
}

const DEEPEST: usize = 50;

struct Reader<'a> {
    rest: &'a str,
    variable: &'a mut dyn FnMut(&str) -> Option<i64>,
    depth: usize,
}

impl Reader<'_> {
    fn sum(&mut self) -> Option<i64> {
        let mut left = self.product()?;
        loop {
            left = match self.sign(&['+', '-']) {
                Some('+') => left.checked_add(self.product()?)?,
                Some(_) => left.checked_sub(self.product()?)?,
                None => return Some(left),
            };
        }
    }

    fn product(&mut self) -> Option<i64> {
        let mut left = self.factor()?;
        loop {
            left = match self.sign(&['*', '/', '%']) {
                Some('*') => left.checked_mul(self.factor()?)?,
                Some('/') => left.checked_div(self.factor()?)?,
                Some(_) => left.checked_rem(self.factor()?)?,
                None => return Some(left),
            };
        }
    }

    fn factor(&mut self) -> Option<i64> {
        self.depth += 1;
        let found = (self.depth <= DEEPEST).then(|| self.inner()).flatten();
        self.depth -= 1;
        found
    }

    fn inner(&mut self) -> Option<i64> {
        match self.sign(&['-', '+', '(']) {
            Some('-') => return self.factor()?.checked_neg(),
            Some('+') => return self.factor(),
            Some(_) => {
                let value = self.sum()?;
                self.sign(&[')'])?;
                return Some(value);
            }
            None => {}
        }
        let end = self
            .rest
            .find(|char: char| !char.is_ascii_alphanumeric() && char != '_')
            .unwrap_or(self.rest.len());
        let (word, rest) = self.rest.split_at(end);
        self.rest = rest;
        match word.chars().next()? {
            // A leading zero makes it octal, `0x` hexadecimal.
            '0' if word.len() > 1 => match word.strip_prefix("0x") {
                Some(digits) => i64::from_str_radix(digits, 16).ok(),
                None => i64::from_str_radix(word, 8).ok(),
            },
            '0'..='9' => word.parse().ok(),
            _ => (self.variable)(word),
        }
    }

    /// Consumes one of these characters, unless it is the start of a longer operator.
    fn sign(&mut self, of: &[char]) -> Option<char> {
        self.rest = self.rest.trim_start();
        let mut chars = self.rest.chars();
        let found = chars.next().filter(|char| of.contains(char))?;
        let after = chars.as_str();
        let doubled = matches!(found, '*' | '+' | '-') && after.starts_with(found);
        if doubled || (!matches!(found, '(' | ')') && after.starts_with('=')) {
            return None;
        }
        self.rest = after;
        Some(found)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn evaluated(text: &str) -> Option<i64> {
        value(text, &mut |name| (name == "NODES").then_some(4))
    }

    #[test]
    fn numbers_names_and_brackets() {
        assert_eq!(evaluated("8*NODES"), Some(32));
        assert_eq!(evaluated(" ( 2 + 3 ) * -NODES % 7 "), Some(-6));
        assert_eq!(evaluated("100 / 8 - 0x10 + 010"), Some(4));
    }

    #[test]
    fn invalid_and_unknown_expressions_have_no_value() {
        for text in [
            "",
            "1 +",
            "1 / 0",
            "OTHER * 2",
            "NODES++",
            "NODES += 1",
            "1 == 1",
            "(1",
            "9223372036854775807 + 1",
        ] {
            assert_eq!(evaluated(text), None, "{text}");
        }
        assert_eq!(evaluated(&"(".repeat(100_000)), None);
    }
}
