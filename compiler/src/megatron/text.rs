//! Text with the line of each character, which is kept when the text is stored in variables.

/// A character, and its line in the script.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct SourceChar {
    pub char: char,
    pub line: u32,
}

pub type SourceText = Vec<SourceChar>;

/// Characters of a private-use plane represent unknown values: the first one has the first reason, and so on.
const FIRST_UNKNOWN: u32 = 0xF_0000;
const LAST_UNKNOWN: u32 = 0xF_FFFD;

/// The text of a file, line by line.
pub fn of_file(text: &str) -> SourceText {
    let mut line = 1;
    let mut characters = SourceText::new();
    for char in text.chars() {
        let is_ours = unknown_of(char).is_some();
        let char = if is_ours { char::REPLACEMENT_CHARACTER } else { char };
        characters.push(SourceChar { char, line });
        line += u32::from(char == '\n');
    }
    characters
}

/// Text that was computed for a line.
pub fn at(line: u32, text: &str) -> SourceText {
    text.chars().map(|char| SourceChar { char, line }).collect()
}

pub fn plain(characters: &[SourceChar]) -> String {
    characters.iter().map(|character| character.char).collect()
}

/// The character that represents the unknown value with an index.
pub fn unknown(number: usize) -> char {
    let code = FIRST_UNKNOWN
        + u32::try_from(number)
            .unwrap_or(u32::MAX)
            .min(LAST_UNKNOWN - FIRST_UNKNOWN);
    char::from_u32(code).unwrap_or(char::REPLACEMENT_CHARACTER)
}

/// The index of the unknown value that a character represents.
pub fn unknown_of(char: char) -> Option<usize> {
    let code = u32::from(char);
    (FIRST_UNKNOWN..=LAST_UNKNOWN)
        .contains(&code)
        .then(|| (code - FIRST_UNKNOWN) as usize)
}

/// The index of the first unknown value in a text.
pub fn first_unknown(characters: &[SourceChar]) -> Option<usize> {
    characters.iter().find_map(|character| unknown_of(character.char))
}
