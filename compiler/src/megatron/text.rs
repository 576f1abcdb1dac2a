//! Text of a script that remembers where it was written, through every variable that it passes.

/// A character, and the line of the script that it stands on.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Sign {
    pub char: char,
    pub line: u32,
}

pub type Text = Vec<Sign>;

/// Characters of a private plane stand for values that only a run knows: the first one for the first reason, and so on.
const FIRST_UNKNOWN: u32 = 0xF_0000;
const LAST_UNKNOWN: u32 = 0xF_FFFD;

/// The text of a file, line by line.
pub fn of_file(text: &str) -> Text {
    let mut line = 1;
    let mut signs = Text::new();
    for char in text.chars() {
        let is_ours = unknown_of(char).is_some();
        let char = if is_ours { char::REPLACEMENT_CHARACTER } else { char };
        signs.push(Sign { char, line });
        line += u32::from(char == '\n');
    }
    signs
}

/// Text that was worked out for a place.
pub fn at(line: u32, text: &str) -> Text {
    text.chars().map(|char| Sign { char, line }).collect()
}

pub fn plain(signs: &[Sign]) -> String {
    signs.iter().map(|sign| sign.char).collect()
}

/// The character that stands for the unknown value of this number.
pub fn unknown(number: usize) -> char {
    let code = FIRST_UNKNOWN
        + u32::try_from(number)
            .unwrap_or(u32::MAX)
            .min(LAST_UNKNOWN - FIRST_UNKNOWN);
    char::from_u32(code).unwrap_or(char::REPLACEMENT_CHARACTER)
}

/// The number of the unknown value that a character stands for.
pub fn unknown_of(char: char) -> Option<usize> {
    let code = u32::from(char);
    (FIRST_UNKNOWN..=LAST_UNKNOWN)
        .contains(&code)
        .then(|| (code - FIRST_UNKNOWN) as usize)
}

/// The number of the first unknown value in a text.
pub fn first_unknown(signs: &[Sign]) -> Option<usize> {
    signs.iter().find_map(|sign| unknown_of(sign.char))
}
