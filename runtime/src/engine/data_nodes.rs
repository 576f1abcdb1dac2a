//! Nodes that run in this process: sources to orders, first weights, gates, the report.

use std::fs;
use std::time::Instant;

use aurora_compiler::fields::{
    ExtractFields, FilterFields, JudgeFields, OrderFields, Split, TokenizerFields, TokensFields, WeightsFields,
};
use aurora_compiler::graph::{Kind, NodeId, NodeOrigin, Role, Work};
use camino::{Utf8Path, Utf8PathBuf};

use super::{Outcome, Run, RunError, Seen, chain, expect};
use crate::data::extract::extract;
use crate::data::filter::filter;
use crate::data::order::{Order, commitment};
use crate::data::tokenizer::{TokenizerInput, TokenizerMeta, tokenizer, tokens};
use crate::data::tokens::TokenStream;
use crate::judge;
use crate::pin::Pinning;
use crate::progress::{Progress, Watch};
use crate::report::{self, Dealt};
use crate::source::Fetched;
use crate::source::archive::InputFile;
use crate::store::StoreError;
use crate::task::ItemResult;
use crate::weights::weights;

impl Run<'_> {
    pub(super) fn data_node(&self, id: NodeId, outcome: &mut Outcome) -> Result<(), RunError> {
        self.check_stop()?;
        let _held = self.store.hold(self.keyed.key(id))?;
        if self.is_whole(id) {
            self.observer.see(Seen::Cached {
                node: self.node(id).name(),
            });
            return Ok(());
        }
        if self.node(id).kind() != Kind::Source && self.reuse(id, outcome)? {
            return Ok(());
        }
        let node = self.node(id);
        self.observer.see(Seen::Started {
            node: node.name(),
            kind: node.kind(),
        });
        let since = Instant::now();
        let scratch = self.store.scratch()?;
        let report = |progress: Progress| {
            self.observer.see(Seen::Progress {
                node: node.name(),
                done: progress.done,
                total: progress.total.unwrap_or(0),
                unit: progress.unit.name(),
            });
        };
        let watch = Watch::new(&report, self.stop.flag());
        let mut made_on = None;
        let out = scratch.path();
        let built = match &node.work {
            Work::Source(_) => self.source(id, out, watch),
            Work::Extract(fields) => self.extract(id, fields, out, watch),
            Work::Filter(fields) => self.filter(id, fields, out, watch),
            Work::Tokenizer(fields) => self.tokenizer(id, fields, out, watch),
            Work::Tokens(fields) => self.tokens(id, fields, out, watch),
            Work::Weights(fields) => self.weights(id, fields, out),
            Work::Order(fields) => self.order(id, fields, out),
            Work::Judge(fields) => self.judge(id, fields, out, watch).map(|on| made_on = on),
            Work::Expect(fields) => expect::build(self, id, fields, out),
            Work::Report(_) => report::build(self, id, out),
            Work::Train(_) | Work::Eval(_) | Work::Answers(_) => {
                Err(self.fail(id, format!("`{}` nodes run on workers", node.kind().name())))
            }
        };
        // Work that was told to stop says so in its own words; the run says it once.
        self.check_stop()?;
        built?;
        self.publish(
            id,
            scratch.path(),
            made_on.as_deref(),
            since.elapsed().as_secs_f64(),
            outcome,
        )?;
        Ok(())
    }

    fn source(&self, id: NodeId, out: &Utf8Path, watch: Watch<'_>) -> Result<(), RunError> {
        let NodeOrigin::Source { source: name } = &self.node(id).origin else {
            return Err(self.fail(id, "it is not a source"));
        };
        let pin = self.pins.get(name).ok_or_else(|| self.fail(id, "it is not pinned"))?;
        let pinning = Pinning {
            root: self.root,
            store: self.store,
            offline: self.offline,
            note: &|text| self.observer.see(Seen::Note { text }),
            watch,
        };
        let brought = pinning
            .bring(name, &pin.from, Some(pin), false)
            .map_err(|error| self.fail(id, chain(&error)))?;
        place_source(&brought.fetched, out).map_err(RunError::from)
    }

    /// The files of a source's result, under their own names.
    fn source_files(&self, id: NodeId) -> Result<Vec<InputFile>, RunError> {
        let files = self.files(id)?.into_iter();
        Ok(files.map(|(name, path)| InputFile { name, path }).collect())
    }

    fn extract(&self, id: NodeId, fields: &ExtractFields, out: &Utf8Path, watch: Watch<'_>) -> Result<(), RunError> {
        let source = self.only_input(id, &Role::Source)?;
        let reference = self
            .inputs(id, &Role::Reference)
            .first()
            .map(|node| self.source_files(*node))
            .transpose()?;
        extract(fields, &self.source_files(source)?, reference.as_deref(), out, watch)
            .map(drop)
            .map_err(|error| self.fail(id, chain(&error)))
    }

    fn filter(&self, id: NodeId, fields: &FilterFields, out: &Utf8Path, watch: Watch<'_>) -> Result<(), RunError> {
        let documents = self.files_named(id, &Role::Documents, "documents.jsonl")?;
        filter(fields, &documents, out, watch)
            .map(drop)
            .map_err(|error| self.fail(id, chain(&error)))
    }

    fn tokenizer(
        &self,
        id: NodeId,
        fields: &TokenizerFields,
        out: &Utf8Path,
        watch: Watch<'_>,
    ) -> Result<(), RunError> {
        let documents;
        let files;
        let input = match self.inputs(id, &Role::Source).first() {
            Some(source) => {
                files = self.source_files(*source)?;
                TokenizerInput::Source(&files)
            }
            None => {
                documents = self.files_named(id, &Role::Documents, "train.jsonl")?;
                TokenizerInput::Documents(&documents)
            }
        };
        tokenizer(fields, input, out, watch)
            .map(drop)
            .map_err(|error| self.fail(id, chain(&error)))
    }

    fn tokens(&self, id: NodeId, fields: &TokensFields, out: &Utf8Path, watch: Watch<'_>) -> Result<(), RunError> {
        let documents = self.token_documents(id)?;
        let tokenizer = self.files(self.only_input(id, &Role::Tokenizer)?)?;
        let meta = fs::read_to_string(&tokenizer["meta.json"]).map_err(|error| self.fail(id, error))?;
        let meta: TokenizerMeta = serde_json::from_str(&meta).map_err(|error| self.fail(id, error))?;
        tokens(
            fields,
            &documents,
            &tokenizer["tokenizer.json"],
            meta.end_of_document_id,
            out,
            watch,
        )
        .map(drop)
        .map_err(|error| self.fail(id, chain(&error)))
    }

    /// The documents behind a node of tokens, in their order.
    pub(super) fn token_documents(&self, id: NodeId) -> Result<Vec<Utf8PathBuf>, RunError> {
        let Work::Tokens(fields) = &self.node(id).work else {
            return Err(self.fail(id, "it is not a tokens node"));
        };
        let names: &[&str] = match fields.split {
            Split::Train => &["train.jsonl"],
            Split::HeldOut => &["held_out.jsonl"],
            Split::All => &["train.jsonl", "held_out.jsonl"],
        };
        let mut documents = Vec::new();
        for name in names {
            documents.extend(self.files_named(id, &Role::Documents, name)?);
        }
        Ok(documents)
    }

    fn weights(&self, id: NodeId, fields: &WeightsFields, out: &Utf8Path) -> Result<(), RunError> {
        let source = self
            .inputs(id, &Role::Source)
            .first()
            .map(|source| self.source_files(*source));
        let files = source.transpose()?;
        let note = |text: &str| self.observer.see(Seen::Note { text });
        weights(fields, files.as_deref(), out, &note).map_err(|error| self.fail(id, chain(&error)))
    }

    /// Judges answers; an outside judge is not asked again what it has answered in the run that is repeated.
    fn judge(
        &self,
        id: NodeId,
        fields: &JudgeFields,
        out: &Utf8Path,
        watch: Watch<'_>,
    ) -> Result<Option<String>, RunError> {
        if judge::is_outside(fields)
            && let Some(recorded) = self.recorded
            && let Some(record) = recorded.realised(self.realised(id)?)
        {
            let text = format!("`{}`: the judge's recorded answers are taken", self.node(id).name());
            self.observer.see(Seen::Note { text: &text });
            for (name, path) in recorded.files(&record)? {
                fs::copy(&path, out.join(name)).map_err(|error| self.fail(id, error))?;
            }
            return Ok(None);
        }
        let path = &self.files_named(id, &Role::Answers, "items.jsonl")?[0];
        let text = fs::read_to_string(path).map_err(|error| self.fail(id, error))?;
        let results = text
            .lines()
            .map(serde_json::from_str)
            .collect::<Result<Vec<ItemResult>, _>>();
        let files = |role: &Role| -> Result<Vec<InputFile>, RunError> {
            let mut files = Vec::new();
            for source in self.inputs(id, role) {
                files.extend(self.source_files(source)?);
            }
            Ok(files)
        };
        let eval = self.node(id).origin.eval().map(|(eval, _)| eval);
        let secret = eval.and_then(|eval| self.secrets.get(eval)).map(|name| {
            std::env::var(name).map_err(|_| {
                self.fail(
                    id,
                    format!("the environment has no variable `{name}` with the key of the judge's interface"),
                )
            })
        });
        let secret = secret.transpose()?;
        let inputs = judge::Inputs {
            items: &files(&Role::Items)?,
            program: &files(&Role::Judge)?,
            labelled: &files(&Role::Labelled)?,
            secret: secret.as_deref(),
            hidden: &[self.store.root().as_std_path(), self.root.as_std_path()],
            watch,
        };
        let results = results.map_err(|error| self.fail(id, error))?;
        judge::judge(fields, results, &inputs, out).map_err(|error| self.fail(id, chain(&error)))
    }

    fn only_input(&self, id: NodeId, role: &Role) -> Result<NodeId, RunError> {
        self.inputs(id, role)
            .first()
            .copied()
            .ok_or_else(|| self.fail(id, format!("it does not have an input `{role}`")))
    }

    /// One file of each input of a role, in order.
    fn files_named(&self, id: NodeId, role: &Role, file: &str) -> Result<Vec<Utf8PathBuf>, RunError> {
        let inputs = self.inputs(id, role).into_iter();
        inputs
            .map(|node| {
                let mut files = self.files(node)?;
                files
                    .remove(file)
                    .ok_or_else(|| self.fail(node, format!("its result has no {file}")))
            })
            .collect()
    }

    fn order(&self, id: NodeId, fields: &OrderFields, out: &Utf8Path) -> Result<(), RunError> {
        let mut dealt = Dealt {
            samples: Vec::new(),
            tokens: Vec::new(),
        };
        for component in &fields.components {
            let mut pairs = Vec::new();
            for node in self.inputs(id, &Role::Tokens(component.name.clone())) {
                let files = self.files(node)?;
                pairs.push((files["tokens.bin"].clone(), files["tokens.idx"].clone()));
            }
            let stream = TokenStream::open(pairs.iter().map(|(bin, idx)| (bin.as_path(), idx.as_path())))
                .map_err(|error| self.fail(id, chain(&error)))?;
            dealt.samples.push(stream.num_samples(fields.sequence));
            dealt.tokens.push(stream.num_tokens());
        }
        // An order that cannot be made is a fault of this node, not of the training that would ask for it.
        Order::new(fields, &dealt.samples).map_err(|error| self.fail(id, chain(&error)))?;
        let text = serde_json::to_string(&dealt).map_err(|error| self.fail(id, error))?;
        fs::write(out.join("order.json"), text + "\n").map_err(|error| self.fail(id, error))
    }
}

/// Puts fetched files into the folder of a source's result, under their own names.
///
/// # Errors
/// A file cannot be copied.
pub fn place_source(fetched: &Fetched, out: &Utf8Path) -> Result<(), StoreError> {
    for InputFile { name, path: from } in &fetched.files {
        let to = out.join(name);
        let place = || -> std::io::Result<()> {
            if let Some(folder) = to.parent() {
                fs::create_dir_all(folder)?;
            }
            fs::copy(from, &to).map(drop)
        };
        place().map_err(|source| StoreError::Io {
            doing: "copy into",
            path: to.clone(),
            source,
        })?;
    }
    Ok(())
}

/// Checks that the mixture of a stage has enough samples, and returns the commitment to its first `samples`.
///
/// # Errors
/// The order's result cannot be read, or a component would be repeated more often than the spec allows.
pub fn commit_order(run: &Run<'_>, id: NodeId, stage: &str, samples: u64) -> Result<String, RunError> {
    let fields = run.order_fields(id)?;
    let path = &run.files(id)?["order.json"];
    let text = fs::read_to_string(path).map_err(|error| run.fail(id, error))?;
    let dealt: Dealt = serde_json::from_str(&text).map_err(|error| run.fail(id, error))?;
    let order = Order::new(fields, &dealt.samples).map_err(|error| run.fail(id, chain(&error)))?;
    let limits = run.max_epochs.get(stage);
    for ((component, available), wanted) in fields.components.iter().zip(&dealt.samples).zip(order.counts(samples)) {
        let epochs = wanted as f64 / (*available).max(1) as f64;
        let most = limits.and_then(|limits| limits.get(&component.name));
        if let Some(most) = most.filter(|most| epochs > **most) {
            return Err(run.fail(
                id,
                format!(
                    "stage `{stage}` would read component `{name}` {epochs:.2} times, `max_epochs` allows {most}: \
                     {wanted} sequences of {sequence} tokens out of {available}",
                    name = component.name,
                    sequence = fields.sequence,
                ),
            ));
        }
    }
    Ok(commitment(&order, 0..samples).to_hex().to_string())
}
