//! A project in a temporary folder, and the binary run on it.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Output, Stdio};

use serde_json::Value;

pub struct Project {
    folder: tempfile::TempDir,
    /// The user's configuration: consent is kept outside of the project.
    config: tempfile::TempDir,
}

/// Two stages over two languages and code; a second or two of training.
pub const SPEC: &str = r#"
/// A run small enough for a test.
experiment small {
  seed     = 7
  numerics = invariant(tensor = 2, lanes = 2, micro_batch = 2 sequences)
}

source english { from = "file:data/english.txt" }
source finnish { from = "file:data/finnish.txt" }
source program { from = "file:data/program.py" }

corpus en {
  language = en
  from     = [text(english, by_line = true)]
  held_out = 10%
}
corpus fi {
  language = fi
  from     = [text(finnish, by_line = true)]
  held_out = 10%
}
corpus py {
  language = code
  from     = [code(program)]
}

tokenizer bpe {
  kind    = train_bpe(vocabulary = 512)
  corpora = [en, fi, py]
}

model tiny {
  architecture = gpt_bigcode
  layers       = 2
  hidden       = 32
  heads        = 4
  context      = 32 tokens
  vocabulary   = 512
  tokenizer    = bpe
  weights      = random(std = 0.02)
}

mixture cap {
  en from [en] weight 50%
  fi from [fi] weight 30%
  py from [py] weight 20%
}
mixture cat {
  en from [en] weight 40%
  fi from [fi] weight 60%
}

stage cap {
  start         = tiny
  budget        = 16 steps
  mixture       = cap
  sequence      = 32 tokens
  global_batch  = 8 sequences
  learning_rate = constant(rate = 3e-3, warmup = 4 steps)
  optimizer     = adamw(beta1 = 0.9, beta2 = 0.95, weight_decay = 0.1, clip = 1.0)
  checkpoint    = every 8 steps
}
stage cat {
  start         = cap
  budget        = 8 steps
  mixture       = cat
  sequence      = 32 tokens
  global_batch  = 8 sequences
  learning_rate = cosine(peak = 1e-3, floor = 1e-4, warmup = 2 steps)
  optimizer     = adamw(beta1 = 0.9, beta2 = 0.95, weight_decay = 0.1, clip = 1.0)
}

eval heldout {
  kind = perplexity
  data = [en, fi]
  at   = [start, every 8 steps, end]
}

expect learned { cap.heldout.bits_per_byte.en < tiny.heldout.bits_per_byte.en }
"#;

/// Different sentences in a fixed order.
fn sentences(openings: &[&str], middles: &[&str], ends: &[&str]) -> String {
    let mut text = String::new();
    for (index, opening) in openings.iter().cycle().take(240).enumerate() {
        let middle = middles[(index * 7 + index / 11) % middles.len()];
        let end = ends[(index * 5 + index / 13) % ends.len()];
        text.push_str(&format!("{opening} {middle} {end} {index}.\n"));
    }
    text
}

/// The libtorch that the binaries were linked with.
pub fn libtorch() -> &'static str {
    env!("LIBTORCH")
}

impl Project {
    pub fn new() -> Self {
        let project = Self {
            folder: tempfile::tempdir().expect("a temporary folder"),
            config: tempfile::tempdir().expect("a temporary folder"),
        };
        project.write("specs/small.aur", SPEC);
        std::fs::create_dir_all(project.path("lockfiles")).expect("a folder for locks");
        let english = sentences(
            &[
                "The people of the village said that",
                "It is known that the river",
                "When they have seen the house",
            ],
            &[
                "was not the same as before",
                "will be there for all of them",
                "is one of the oldest in the country",
            ],
            &[
                "and that this is what they want",
                "because of the weather in the north",
                "which is why it has a name",
            ],
        );
        let finnish = sentences(
            &[
                "Kylän ihmiset sanoivat että",
                "On tunnettua että joki ei ole",
                "Kun he olivat nähneet talon",
            ],
            &[
                "se ei ollut enää sama kuin ennen",
                "kaikki voivat tulla sinne",
                "joka on maan vanhimpia",
            ],
            &[
                "ja että tämä on mitä he haluavat",
                "koska sää on pohjoisessa kylmä",
                "minkä vuoksi sillä on nimi",
            ],
        );
        project.write("data/english.txt", &english);
        project.write("data/finnish.txt", &finnish);
        let functions = (0..60).map(|n| format!("def value_{n}(x):\n    return x * {n} + {}\n\n", n * n % 17));
        project.write("data/program.py", &functions.collect::<String>());
        project
    }

    pub fn path(&self, inside: &str) -> PathBuf {
        self.folder.path().join(inside)
    }

    pub fn root(&self) -> &Path {
        self.folder.path()
    }

    pub fn write(&self, inside: &str, text: &str) {
        let path = self.path(inside);
        std::fs::create_dir_all(path.parent().expect("a file has a folder")).expect("its folder");
        std::fs::write(path, text).expect("a file of the project");
    }

    pub fn read(&self, inside: &str) -> String {
        std::fs::read_to_string(self.path(inside)).unwrap_or_else(|error| panic!("{inside}: {error}"))
    }

    /// Replaces text that occurs exactly once in the spec.
    pub fn edit(&self, old: &str, new: &str) {
        let spec = self.read("specs/small.aur");
        assert_eq!(spec.matches(old).count(), 1, "`{old}` occurs once in the spec");
        self.write("specs/small.aur", &spec.replace(old, new));
    }

    pub fn command(&self, arguments: &[&str]) -> Command {
        self.command_of(Path::new(env!("CARGO_BIN_EXE_aurora")), arguments)
    }

    /// A command of a copy of the binary.
    pub fn command_of(&self, aurora: &Path, arguments: &[&str]) -> Command {
        let mut command = Command::new(aurora);
        command
            .args(arguments)
            .current_dir(self.folder.path())
            .env("AURORA_LIBTORCH", libtorch())
            .env("XDG_CONFIG_HOME", self.config.path())
            .stdin(Stdio::null());
        command
    }

    pub fn aurora(&self, arguments: &[&str]) -> Done {
        Done(self.command(arguments).output().expect("the binary starts"))
    }

    /// Runs the spec completely.
    pub fn run(&self) -> Done {
        let done = self.aurora(&["run", "specs/small.aur", "--progress", "plain"]);
        done.exits(0);
        done
    }

    /// Starts a run with more arguments; its standard error can be read.
    pub fn start_with(&self, more: &[&str]) -> Child {
        let mut command = self.command(&["run", "specs/small.aur", "--progress", "none"]);
        command
            .args(more)
            .stdout(Stdio::null())
            .stderr(Stdio::piped())
            .spawn()
            .expect("the binary starts")
    }

    pub fn start(&self) -> Child {
        let mut command = self.command(&["run", "specs/small.aur", "--progress", "none"]);
        command
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .spawn()
            .expect("the binary starts")
    }

    /// Keys by node.
    pub fn keys(&self) -> BTreeMap<String, String> {
        self.nodes()
            .into_iter()
            .map(|(name, node)| (name, node["key"].as_str().expect("a key").to_string()))
            .collect()
    }

    pub fn nodes(&self) -> BTreeMap<String, Value> {
        let done = self.aurora(&["build", "specs/small.aur", "--json"]);
        done.exits(0);
        let document = done.json();
        let nodes = document["nodes"].as_array().expect("nodes").clone();
        nodes
            .into_iter()
            .map(|node| (node["name"].as_str().expect("a name").to_string(), node))
            .collect()
    }

    /// Result digests by node, from the lock.
    pub fn results(&self) -> String {
        let lock = self.read("lockfiles/small.lock");
        lock.split_once("[result]").expect("results").1.to_string()
    }

    /// All files of results in the store.
    pub fn objects(&self) -> Vec<PathBuf> {
        let mut found = Vec::new();
        for folder in std::fs::read_dir(self.path(".aurora/cas")).expect("objects").flatten() {
            found.extend(
                std::fs::read_dir(folder.path())
                    .expect("objects")
                    .flatten()
                    .map(|entry| entry.path()),
            );
        }
        found.sort();
        found
    }
}

pub struct Done(pub Output);

impl Done {
    pub fn out(&self) -> String {
        String::from_utf8_lossy(&self.0.stdout).into_owned()
    }

    pub fn err(&self) -> String {
        String::from_utf8_lossy(&self.0.stderr).into_owned()
    }

    #[track_caller]
    pub fn exits(&self, code: i32) {
        assert_eq!(
            self.0.status.code(),
            Some(code),
            "out:\n{}\nerr:\n{}",
            self.out(),
            self.err()
        );
    }

    #[track_caller]
    pub fn prints(&self, text: &str) {
        let all = self.out() + &self.err();
        assert!(all.contains(text), "`{text}` is not in:\n{all}");
    }

    pub fn json(&self) -> Value {
        let value: Value = serde_json::from_slice(&self.0.stdout).expect("one JSON document on standard output");
        assert_eq!(value["format_version"], "1.0");
        assert!(
            self.out().starts_with("{\"format_version\":\"1.0\""),
            "the version comes first"
        );
        value
    }
}
