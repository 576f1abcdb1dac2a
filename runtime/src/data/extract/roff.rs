//! Manual pages in roff.
//!
//! Text lines are joined to paragraphs, which end at an empty line or a request. Of the requests, only the text of
//! font macros is kept. Tables, equations, definitions and the examples of `.EX` are left out. Source: groff_man(7), groff(7).

use crate::data::whitespace::push_paragraph;

pub(super) fn read(page: &str) -> String {
    let mut out = String::with_capacity(page.len());
    let mut paragraph = String::new();
    // The request that ends a part that is left out.
    let mut until: Option<&str> = None;
    let mut as_typed = false;
    for line in page.lines() {
        if let Some(end) = until {
            if line.trim_end() == end || line.starts_with(end) && line[end.len()..].starts_with([' ', '\t']) {
                until = None;
            }
            continue;
        }
        if let Some(request) = line.strip_prefix(['.', '\'']) {
            let request = request.trim_start();
            if request.starts_with("\\\"") || request.is_empty() {
                continue;
            }
            let (name, rest) = request.split_at(request.find([' ', '\t', '\\']).unwrap_or(request.len()));
            if let Some(fonts) = font_macro(name) {
                add_arguments(&mut paragraph, rest, fonts);
                if as_typed {
                    push_paragraph(&mut out, &std::mem::take(&mut paragraph));
                }
                continue;
            }
            push_paragraph(&mut out, &std::mem::take(&mut paragraph));
            match name {
                "nf" => as_typed = true,
                "fi" | "SH" | "SS" => as_typed = false,
                "EX" => until = Some(".EE"),
                "TS" => until = Some(".TE"),
                "EQ" => until = Some(".EN"),
                "de" | "de1" | "am" | "ig" => until = Some(".."),
                _ => {}
            }
            continue;
        }
        if line.trim().is_empty() {
            push_paragraph(&mut out, &std::mem::take(&mut paragraph));
            continue;
        }
        unescape(&mut paragraph, line);
        paragraph.push(' ');
        if as_typed {
            push_paragraph(&mut out, &std::mem::take(&mut paragraph));
        }
    }
    push_paragraph(&mut out, &paragraph);
    out
}

/// How the arguments of a font macro are joined.
#[derive(Clone, Copy)]
enum Fonts {
    /// One font: with spaces between the words.
    One,
    /// Two alternating fonts: arguments are joined without spaces.
    Alternate,
}

fn font_macro(name: &str) -> Option<Fonts> {
    match name {
        "B" | "I" | "R" | "SM" | "SB" => Some(Fonts::One),
        "BI" | "BR" | "IB" | "IR" | "RB" | "RI" => Some(Fonts::Alternate),
        _ => None,
    }
}

fn add_arguments(paragraph: &mut String, rest: &str, fonts: Fonts) {
    for (at, argument) in arguments(rest).iter().enumerate() {
        if at > 0 && matches!(fonts, Fonts::One) {
            paragraph.push(' ');
        }
        unescape(paragraph, argument);
    }
    paragraph.push(' ');
}

/// Words of a request line; double quotes group words, and a doubled quote inside them is a quote.
fn arguments(rest: &str) -> Vec<String> {
    let mut words = Vec::new();
    let mut characters = rest.trim_start().chars().peekable();
    while let Some(&first) = characters.peek() {
        let mut word = String::new();
        if first == '"' {
            characters.next();
            while let Some(c) = characters.next() {
                if c != '"' {
                    word.push(c);
                } else if characters.peek() == Some(&'"') {
                    characters.next();
                    word.push('"');
                } else {
                    break;
                }
            }
        } else {
            while let Some(&c) = characters.peek() {
                if c == ' ' || c == '\t' {
                    break;
                }
                word.push(c);
                characters.next();
                // An escaped space does not end a word, and a comment ends the line.
                if c == '\\' {
                    match characters.next() {
                        Some('"') => {
                            word.pop();
                            characters.by_ref().for_each(drop);
                        }
                        Some(escaped) => word.push(escaped),
                        None => {}
                    }
                }
            }
        }
        words.push(word);
        while characters.next_if(|c| *c == ' ' || *c == '\t').is_some() {}
    }
    words
}

/// Adds `line` with its escapes resolved or dropped.
fn unescape(out: &mut String, line: &str) {
    let mut rest = line;
    while let Some(at) = rest.find('\\') {
        out.push_str(&rest[..at]);
        rest = &rest[at + 1..];
        let Some(escape) = rest.chars().next() else { return };
        rest = &rest[escape.len_utf8()..];
        match escape {
            '"' | '#' => return,
            '-' | '.' => out.push(escape),
            '\'' => out.push('\''),
            '`' => out.push('`'),
            'e' | '\\' | 'E' => out.push('\\'),
            ' ' | '~' | '0' | 't' => out.push(' '),
            '(' => {
                let name;
                (name, rest) = split_chars(rest, 2);
                out.push_str(&special(name));
            }
            '[' => {
                let name;
                (name, rest) = rest.split_once(']').unwrap_or((rest, ""));
                out.push_str(&special(name));
            }
            '*' => {
                let name;
                (name, rest) = parameter(rest);
                out.push_str(match name {
                    "lq" | "Lq" | "q" => "“",
                    "rq" | "Rq" => "”",
                    _ => "",
                });
            }
            'f' | 'F' | 'm' | 'M' | 'n' | 'g' | 'k' | 'V' | 'Y' => {
                // A number register may carry a sign before its name.
                rest = if escape == 'n' {
                    rest.trim_start_matches(['+', '-'])
                } else {
                    rest
                };
                rest = parameter(rest).1;
            }
            's' => rest = size(rest),
            'h' | 'v' | 'w' | 'o' | 'l' | 'L' | 'b' | 'x' | 'X' | 'D' | 'N' | 'S' | 'H' | 'A' | 'B' | 'C' | 'Z'
            | 'R' => {
                // The next character is the quote.
                if let Some(quote) = rest.chars().next() {
                    let inner = &rest[quote.len_utf8()..];
                    rest = inner.split_once(quote).map_or("", |(_, after)| after);
                }
            }
            // Zero-width things: \& \| \^ \% \c \/ \, \: \{ \} \d \u \p \z \a \) \!
            _ => {}
        }
    }
    out.push_str(rest);
}

fn split_chars(text: &str, count: usize) -> (&str, &str) {
    text.split_at(text.char_indices().nth(count).map_or(text.len(), |(at, _)| at))
}

/// `x`, `(xx` or `[xxx]`.
fn parameter(rest: &str) -> (&str, &str) {
    if let Some(rest) = rest.strip_prefix('(') {
        split_chars(rest, 2)
    } else if let Some(rest) = rest.strip_prefix('[') {
        rest.split_once(']').unwrap_or((rest, ""))
    } else {
        split_chars(rest, 1)
    }
}

/// What follows a size: `+1`, `-1`, `0`, `12`, `(12`, `[12]`, `'12'`.
fn size(rest: &str) -> &str {
    let rest = rest.trim_start_matches(['+', '-']);
    if rest.starts_with(['(', '[']) {
        return parameter(rest).1;
    }
    if let Some(inner) = rest.strip_prefix('\'') {
        return inner.split_once('\'').map_or("", |(_, after)| after);
    }
    // Two digits only for 10 to 39.
    let two = rest.starts_with(['1', '2', '3']) && rest[1..].starts_with(|c: char| c.is_ascii_digit());
    split_chars(
        rest,
        if two {
            2
        } else {
            usize::from(rest.starts_with(|c: char| c.is_ascii_digit()))
        },
    )
    .1
}

/// A named character; `None` if it is unknown.
fn special(name: &str) -> String {
    if let Some(code) = name.strip_prefix('u')
        && let Some(character) = u32::from_str_radix(code, 16).ok().and_then(char::from_u32)
    {
        return character.to_string();
    }
    let text = match name {
        "em" => "—",
        "en" => "–",
        "hy" => "-",
        "mi" => "−",
        "lq" | "Lq" => "“",
        "rq" | "Rq" => "”",
        "oq" => "‘",
        "cq" => "’",
        "aq" => "'",
        "dq" => "\"",
        "Fo" => "«",
        "Fc" => "»",
        "bu" => "•",
        "co" => "©",
        "rg" => "®",
        "tm" => "™",
        "ha" => "^",
        "ti" | "ap" => "~",
        "ga" => "`",
        "aa" => "´",
        "rs" => "\\",
        "sl" => "/",
        "at" => "@",
        "sh" => "#",
        "ba" => "|",
        "mu" => "×",
        "+-" => "±",
        "<=" => "≤",
        ">=" => "≥",
        "!=" => "≠",
        "->" => "→",
        "<-" => "←",
        "de" => "°",
        "12" => "½",
        "14" => "¼",
        "Eu" => "€",
        "ss" => "ß",
        "ae" => "æ",
        "o/" => "ø",
        "oa" => "å",
        _ => return accented(name).map(String::from).unwrap_or_default(),
    };
    text.to_owned()
}

/// `:a` is ä, `'e` is é and so on.
fn accented(name: &str) -> Option<char> {
    let mut characters = name.chars();
    let (accent, letter, None) = (characters.next()?, characters.next()?, characters.next()) else {
        return None;
    };
    let row = match accent {
        ':' => "ÄËÏÖÜäëïöü",
        '\'' => "ÁÉÍÓÚáéíóú",
        '`' => "ÀÈÌÒÙàèìòù",
        '^' => "ÂÊÎÔÛâêîôû",
        _ => return None,
    };
    row.chars().nth("AEIOUaeiou".find(letter)?)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_page() {
        let page = r#".\" a comment
'\" t
.TH LS 1 "2022" "GNU"
.SH NIMI
ls \- luettele hakemiston
sisältö
.SH KUVAUS
.PP
Tulosta \fBtiedot\fP tiedostoista (oletuksena
.BR "nykyinen hakemisto" ).
Katso
.B \-\-help
\(lqapu\(rq \s-1ISO\s0 \[u00E4]\(:o.

.TP
\fB\-a\fR, \fB\-\-all\fR
älä jätä pois
.EX
int main(void);
.EE
.TS
l l.
a	b
.TE
.de XX
macro body
..
.nf
yksi rivi
kaksi
.fi
loppu\c
\h'3n'tähän \" huomautus
"#;
        assert_eq!(
            read(page),
            "ls - luettele hakemiston sisältö\n\
             Tulosta tiedot tiedostoista (oletuksena nykyinen hakemisto). Katso --help “apu” ISO äö.\n\
             -a, --all älä jätä pois\n\
             yksi rivi\n\
             kaksi\n\
             loppu tähän"
        );
    }

    /// Any text after a backslash: no panic, and text without backslashes stays.
    #[test]
    fn odd_escapes_do_no_harm() {
        for escape in [
            "\\",
            "\\(",
            "\\[",
            "\\*",
            "\\f",
            "\\s",
            "\\s+",
            "\\h",
            "\\h'",
            "\\(é",
            "\\n",
            "\\[uZZ]",
            "\\s1é",
            "\\f[",
            "\\\u{1f600}",
        ] {
            let page = format!("alku {escape}\n.B {escape} \"{escape}\n{escape}");
            assert!(read(&page).starts_with("alku"), "{escape}");
        }
    }
}
