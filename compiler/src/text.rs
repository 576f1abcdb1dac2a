//! Numbers and lists as text.

pub use aurora_lang::printable::printable;

/// The digits of a number in groups of three: `15,479,707,648`.
pub fn grouped(number: u64) -> String {
    group_digits(&number.to_string(), ',')
}

/// Digits in groups of three.
pub fn group_digits(digits: &str, separator: char) -> String {
    let mut text = String::new();
    for (index, digit) in digits.chars().enumerate() {
        if index > 0 && (digits.len() - index).is_multiple_of(3) {
            text.push(separator);
        }
        text.push(digit);
    }
    text
}

/// `a`, `a or b`, `a, b or c`.
pub fn list_or<T: AsRef<str>>(names: &[T]) -> String {
    let names: Vec<&str> = names.iter().map(AsRef::as_ref).collect();
    match names.as_slice() {
        [] => String::new(),
        [one] => (*one).to_owned(),
        [first @ .., last] => format!("{} or {last}", first.join(", ")),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_and_lists() {
        assert_eq!(
            [0, 999, 1000, 15_479_707_648].map(grouped),
            ["0", "999", "1,000", "15,479,707,648"]
        );
        assert_eq!(list_or(&["a", "b", "c"]), "a, b or c");
        assert_eq!(list_or(&["a"]), "a");
    }
}
