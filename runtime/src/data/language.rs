//! Decides whether a text is in the language of a corpus.
//!
//! In: a paragraph or a document, and a language. Out: yes or no, the same on every machine. For five languages Aurora's
//! own rules decide by script and common words; they are made to drop English in translated manuals and languages that share a
//! script (Estonian, Marathi, Chinese). For others a library decides by script and trigrams. Which detector it is, and its
//! version, is part of a key. Not here: what follows from the answer (`filter`).

use whatlang::Lang;

/// Aurora's own rules, in the version that keys state.
const OWN: &str = "aurora 1";
/// The library's, in the version that keys state.
const LIBRARY: &str = "whatlang 0.18";

/// Decides whether a text is in one language.
#[derive(Clone, Copy, Debug)]
pub struct Detector(Rules);

#[derive(Clone, Copy, Debug)]
enum Rules {
    Own(Language),
    Library(Lang),
}

/// A key was made by a version that detects languages in another way.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("this version of Aurora does not detect `{code}` by `{detector}`")]
pub struct UnknownDetector {
    pub detector: String,
    pub code: String,
}

impl Detector {
    /// `code` is the language's name in the detector.
    ///
    /// # Errors
    /// [`UnknownDetector`].
    pub fn new(detector: &str, code: &str) -> Result<Self, UnknownDetector> {
        let rules = match detector {
            OWN => Language::of_code(code).map(Rules::Own),
            LIBRARY => Lang::from_code(code).map(Rules::Library),
            _ => None,
        };
        rules.map(Self).ok_or_else(|| UnknownDetector {
            detector: detector.to_owned(),
            code: code.to_owned(),
        })
    }

    /// Whether a text looks like the language; a text without letters does not.
    pub fn accepts(&self, text: &str) -> bool {
        match self.0 {
            Rules::Own(language) => looks_like(language, text),
            Rules::Library(language) => whatlang::detect_lang(text) == Some(language),
        }
    }
}

/// Languages with rules of their own.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Language {
    En,
    Fi,
    Hi,
    Ja,
    Vi,
}

impl Language {
    fn of_code(code: &str) -> Option<Self> {
        Some(match code {
            "en" => Self::En,
            "fi" => Self::Fi,
            "hi" => Self::Hi,
            "ja" => Self::Ja,
            "vi" => Self::Vi,
            _ => return None,
        })
    }
}

fn looks_like(language: Language, text: &str) -> bool {
    let letters = Letters::count(text);
    match language {
        _ if letters.all == 0 => false,
        // Technical Japanese is full of Latin names, but always has kana; Chinese never has.
        Language::Ja => letters.kana > 0 && 10 * (letters.kana + letters.han) >= 3 * letters.all && letters.hangul == 0,
        Language::Hi => 10 * letters.devanagari >= 4 * letters.all && hindi(text),
        Language::Vi => latin(&letters) && letters.foreign_to_vietnamese == 0 && vietnamese(&letters, text),
        Language::En => latin(&letters) && best(text, &ENGLISH, &[&FINNISH, &GERMANIC, &ROMANCE, &ESTONIAN]),
        Language::Fi => {
            latin(&letters)
                && letters.estonian == 0
                && 25 * letters.vietnamese <= letters.all
                && best(text, &FINNISH, &[&ENGLISH, &GERMANIC, &ROMANCE, &ESTONIAN])
        }
    }
}

fn latin(letters: &Letters) -> bool {
    10 * letters.latin >= 8 * letters.all
}

/// Letters of a text by script; marks that are written on letters do not count.
#[derive(Default)]
struct Letters {
    all: usize,
    latin: usize,
    kana: usize,
    han: usize,
    hangul: usize,
    devanagari: usize,
    /// Latin letters that only Vietnamese uses: ơ, ư and those with two marks.
    vietnamese: usize,
    /// Marked letters that Vietnamese shares with others.
    marked: usize,
    foreign_to_vietnamese: usize,
    estonian: usize,
}

impl Letters {
    fn count(text: &str) -> Self {
        let mut letters = Self::default();
        for c in text.chars().filter(|c| c.is_alphabetic()) {
            letters.all += 1;
            match c {
                'a'..='z' | 'A'..='Z' => letters.latin += 1,
                '\u{00c0}'..='\u{024f}' | '\u{1e00}'..='\u{1eff}' => {
                    letters.latin += 1;
                    match c {
                        'ơ' | 'Ơ' | 'ư' | 'Ư' | '\u{1ea0}'..='\u{1ef9}' => letters.vietnamese += 1,
                        'ă' | 'Ă' | 'â' | 'Â' | 'đ' | 'Đ' | 'ê' | 'Ê' | 'ô' | 'Ô' | 'à' | 'á' | 'ã' | 'è' | 'é'
                        | 'ì' | 'í' | 'ò' | 'ó' | 'ù' | 'ú' | 'ý' | 'ĩ' | 'ũ' | 'Á' | 'À' => {
                            letters.marked += 1
                        }
                        'õ' | 'Õ' => {
                            letters.marked += 1;
                            letters.estonian += 1;
                        }
                        'ä' | 'ö' | 'ü' | 'ß' | 'å' | 'ñ' | 'ç' | 'ø' | 'æ' => {
                            letters.foreign_to_vietnamese += 1
                        }
                        _ => {}
                    }
                }
                '\u{3040}'..='\u{30ff}' | '\u{31f0}'..='\u{31ff}' | '\u{ff66}'..='\u{ff9d}' => letters.kana += 1,
                '\u{3400}'..='\u{9fff}' | '\u{f900}'..='\u{faff}' | '\u{3005}' => letters.han += 1,
                '\u{1100}'..='\u{11ff}' | '\u{ac00}'..='\u{d7af}' => letters.hangul += 1,
                '\u{0900}'..='\u{097f}' => letters.devanagari += 1,
                _ => {}
            }
        }
        letters
    }
}

/// About a quarter of the letters of Vietnamese carry marks, and most words of a sentence are single syllables.
fn vietnamese(letters: &Letters, text: &str) -> bool {
    let marked = letters.vietnamese + letters.marked;
    let words = words(text).count();
    letters.vietnamese > 0 && 100 * marked >= 8 * letters.all && 6 * words >= letters.all
}

/// Hindi against the other languages in Devanagari: no more of their common words than of its own.
fn hindi(text: &str) -> bool {
    let (mut own, mut others) = (0, 0);
    for word in
        text.split(|c: char| !matches!(c, '\u{0900}'..='\u{0963}' | '\u{0970}'..='\u{097f}' | '\u{200c}' | '\u{200d}'))
    {
        own += usize::from(HINDI.contains(&word));
        others += usize::from(MARATHI_NEPALI.contains(&word) || word.contains('ळ'));
    }
    others == 0 || own > others
}

/// Lower-case words of letters.
fn words(text: &str) -> impl Iterator<Item = String> {
    text.split(|c: char| !c.is_alphabetic())
        .filter(|word| !word.is_empty())
        .map(str::to_lowercase)
}

struct Vocabulary {
    words: &'static [&'static str],
    endings: &'static [&'static str],
    /// Score that a hundred words must have.
    least: usize,
}

impl Vocabulary {
    /// The score of a word: 4 for one of the list, 2 for an ending, otherwise 0.
    fn score(&self, word: &str) -> usize {
        if self.words.contains(&word) {
            4
        } else if word.chars().count() > 4 && self.endings.iter().any(|ending| word.ends_with(ending)) {
            2
        } else {
            0
        }
    }
}

/// Whether the score of `own` is high enough, and at least as high as that of each of the others.
fn best(text: &str, own: &Vocabulary, others: &[&Vocabulary]) -> bool {
    let mut count = 0;
    let mut score = 0;
    let mut other_scores = vec![0; others.len()];
    for word in words(text) {
        count += 1;
        score += own.score(&word);
        for (sum, other) in other_scores.iter_mut().zip(others) {
            *sum += other.score(&word);
        }
    }
    100 * score >= own.least * count && other_scores.iter().all(|&other| score >= other)
}

const ENGLISH: Vocabulary = Vocabulary {
    words: &[
        "the", "of", "and", "to", "in", "a", "is", "that", "for", "it", "as", "was", "with", "be", "by", "on", "not",
        "he", "his", "but", "at", "are", "this", "have", "from", "or", "had", "an", "they", "which", "you", "were",
        "all", "her", "she", "there", "would", "their", "we", "him", "been", "has", "when", "who", "will", "no",
        "more", "if", "out", "so", "what", "its", "about", "into", "than", "them", "can", "only", "other", "some",
        "could", "these", "may", "then", "do", "any", "my", "such", "our", "over", "after", "also", "did", "must",
        "through", "where", "your", "should", "because", "each", "those", "how", "one", "use", "used", "using", "does",
        "between", "while", "within", "without", "i", "me", "us", "up", "new", "file", "see", "value", "number", "set",
        "name", "returns", "option",
    ],
    endings: &[
        "ing", "tion", "ed", "ly", "ness", "ment", "ity", "ous", "ful", "able", "ies",
    ],
    least: 80,
};

const FINNISH: Vocabulary = Vocabulary {
    words: &[
        "ja",
        "on",
        "ei",
        "se",
        "että",
        "oli",
        "hän",
        "mutta",
        "kuin",
        "myös",
        "tai",
        "ovat",
        "kun",
        "joka",
        "jos",
        "niin",
        "sen",
        "vain",
        "ole",
        "kanssa",
        "sekä",
        "olla",
        "nyt",
        "voi",
        "ne",
        "jo",
        "ollut",
        "tämä",
        "tämän",
        "mitä",
        "sitä",
        "jonka",
        "olisi",
        "hänen",
        "mukaan",
        "jälkeen",
        "vielä",
        "sillä",
        "jotka",
        "joita",
        "siitä",
        "tässä",
        "koska",
        "eivät",
        "itse",
        "kaikki",
        "mikä",
        "minkä",
        "näin",
        "tulee",
        "kuten",
        "joten",
        "siis",
        "voit",
        "voidaan",
        "ennen",
        "yli",
        "noin",
        "hyvin",
        "paljon",
        "aina",
        "vaan",
        "minä",
        "sinä",
        "me",
        "te",
        "he",
        "en",
        "et",
        "mutta",
        "eli",
        "sitten",
        "täällä",
        "siellä",
        "jolla",
        "jossa",
        "tätä",
        "ettei",
        "kuitenkin",
        "pitää",
        "ovatko",
        "johon",
        "mihin",
        "jokin",
        "käytä",
    ],
    endings: &[
        "ssa", "ssä", "sta", "stä", "lla", "llä", "lta", "ltä", "lle", "ksi", "nen", "iin", "een", "ään", "aan", "uus",
        "yys", "tta", "ttä", "vat", "vät", "oon", "öön", "uun", "yyn", "mme", "ista", "istä", "ien", "jen", "den",
        "sen", "ton", "tön", "kaan", "kään", "kin", "eet", "set", "ät", "ää", "yt", "nut", "nyt", "uksen", "yksen",
        "ija", "ijä", "ita", "itä", "oja", "öjä", "eja", "ejä", "hin", "tus", "tys", "isen", "etaan", "nsa", "nsä",
        "emaan", "naan",
    ],
    least: 45,
};

/// German, Dutch, Swedish, Danish, Norwegian: only to distinguish them from English and Finnish.
const GERMANIC: Vocabulary = Vocabulary {
    words: &[
        "der", "die", "das", "und", "ist", "nicht", "ein", "eine", "mit", "von", "zu", "auf", "für", "den", "dem",
        "des", "sich", "auch", "werden", "wird", "oder", "bei", "nach", "im", "es", "sie", "ich", "wir", "einen",
        "einer", "och", "att", "det", "som", "är", "en", "på", "för", "med", "av", "inte", "till", "har", "om", "ett",
        "var", "jag", "de", "vi", "kan", "från", "så", "när", "men", "het", "een", "van", "dat", "op", "te", "zijn",
        "voor", "niet", "aan", "og", "af", "til", "ikke", "er", "hun", "jeg", "hade", "också", "eller", "den", "hon",
        "han",
    ],
    endings: &[
        "ung", "lich", "keit", "schaft", "ande", "ning", "arna", "orna", "ische", "ungen", "heit",
    ],
    least: 0,
};

/// Spanish, Portuguese, Italian, French.
const ROMANCE: Vocabulary = Vocabulary {
    words: &[
        "el", "la", "los", "las", "del", "que", "y", "un", "una", "por", "con", "para", "su", "al", "lo", "como",
        "más", "le", "les", "des", "est", "dans", "une", "pour", "qui", "sur", "pas", "et", "du", "au", "ce", "il",
        "di", "che", "è", "per", "non", "sono", "della", "dos", "das", "não", "uma", "os", "em", "nel", "ou", "de",
        "son", "avec",
    ],
    endings: &["ción", "mente", "ção", "zione", "ment", "eux", "aire", "idad"],
    least: 0,
};

const ESTONIAN: Vocabulary = Vocabulary {
    words: &[
        "ja", "on", "ei", "et", "see", "kui", "oma", "ning", "ka", "mis", "ta", "mida", "kes", "või", "aga", "oli",
        "selle", "ma", "siis", "veel", "seda", "ole", "nii", "pole", "kuid", "nad", "mille", "peab", "saab", "kõik",
        "ta", "tema", "sest", "ainult", "juba", "väga", "välja", "mitte", "üks", "kus", "eest", "tuleb", "ega",
        "sellest", "meie",
    ],
    endings: &[
        "ud", "ust", "mine", "mise", "atud", "sse", "tele", "dele", "vad", "did", "ist", "ides", "ates", "ühe", "b",
    ],
    least: 0,
};

const HINDI: &[&str] = &[
    "है",
    "हैं",
    "का",
    "की",
    "के",
    "में",
    "से",
    "को",
    "और",
    "पर",
    "यह",
    "कि",
    "नहीं",
    "इस",
    "भी",
    "करने",
    "लिए",
    "था",
    "थी",
    "थे",
    "हो",
    "गया",
    "किया",
    "कर",
    "रहा",
    "जो",
    "वह",
    "वे",
    "आप",
    "अपने",
    "करें",
    "ने",
    "हुए",
    "एवं",
    "जाता",
    "सकते",
];

const MARATHI_NEPALI: &[&str] = &[
    "आहे",
    "आहेत",
    "आणि",
    "नाही",
    "मध्ये",
    "होते",
    "होती",
    "होता",
    "केले",
    "झाले",
    "व",
    "या",
    "ही",
    "हे",
    "असे",
    "म्हणून",
    "छ",
    "छन्",
    "हुन्छ",
    "गर्न",
    "भएको",
    "लागि",
    "गर्ने",
    "र",
    "रहेको",
    "पनि",
    "त्या",
    "त्यांच्या",
    "काही",
    "केली",
    "झाली",
    "केला",
    "असून",
];

#[cfg(test)]
mod tests {
    use super::*;
    use Language::{En, Fi, Hi, Ja, Vi};

    /// Sentences of the five languages, and of similar languages that must be distinguished from them.
    const FIXTURE: &str = include_str!("language/sentences.txt");

    #[test]
    fn sentences_are_told_apart() {
        let mut wrong = Vec::new();
        let mut count = 0;
        for line in FIXTURE.lines() {
            let (written, text) = line.split_once('\t').expect("language, tab, sentence");
            for (name, language) in [("en", En), ("fi", Fi), ("hi", Hi), ("ja", Ja), ("vi", Vi)] {
                count += 1;
                if looks_like(language, text) != (written == name) {
                    wrong.push(format!("{name}? {text}"));
                }
            }
        }
        assert!(
            count >= 200 && wrong.is_empty(),
            "{} of {count}: {wrong:#?}",
            wrong.len()
        );
    }

    #[test]
    fn nothing_to_go_by() {
        for text in ["", "  ", "12 345 %", "— · —"] {
            assert!(
                [En, Fi, Hi, Ja, Vi].iter().all(|&language| !looks_like(language, text)),
                "{text:?}"
            );
        }
    }

    #[test]
    fn the_library_detects_what_the_language_table_says() {
        for (tag, code) in aurora_compiler::language::DETECTED {
            let detection = aurora_compiler::language::detection(tag).expect("detected");
            assert!(Detector::new(detection.by, detection.code).is_ok(), "{tag}");
            assert!(Lang::from_code(code).is_some(), "{tag}: {code}");
        }
        let known = |language: &Lang| {
            aurora_compiler::language::DETECTED
                .iter()
                .any(|(_, code)| *code == language.code())
        };
        assert_eq!(
            Lang::all()
                .iter()
                .filter(|language| !known(language))
                .collect::<Vec<_>>(),
            [&Lang::Eng; 0]
        );
        let german = Detector::new(LIBRARY, "deu").expect("known");
        assert!(german.accepts("Dieser Satz ist in deutscher Sprache geschrieben."));
        assert!(!german.accepts("This sentence is written in the English language."));
        assert!(!german.accepts("12 + 34"));
        assert!(Detector::new("whatlang 0.17", "deu").is_err());
    }
}
