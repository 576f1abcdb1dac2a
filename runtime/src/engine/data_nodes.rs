//! Nodes that run in this process: sources to orders, first weights, gates, the report.

use std::collections::BTreeMap;
use std::fs;
use std::time::{Duration, Instant};

use aurora_compiler::fields::{
    ExtractFields, FilterFields, JudgeFields, OrderFields, Split, TokenizerFields, TokensFields, WeightsFields,
};
use aurora_compiler::graph::{NodeId, NodeKind, NodeOrigin, Role, Work};
use camino::{Utf8Path, Utf8PathBuf};

use super::{Outcome, Run, RunError, RunEvent, expect};
use crate::data::extract::{ExtractLimits, extract};
use crate::data::filter::filter;
use crate::data::order::{ComponentSize, Order, OrderSizes, commitment};
use crate::data::tokenizer::{TokenizerInput, TokenizerMeta, tokenizer, tokens};
use crate::data::tokens::TokenStream;
use crate::data::write_json;
use crate::errors::FileError;
use crate::judge;
use crate::make_below;
use crate::pin::Pinning;
use crate::progress::{Progress, ProgressReporter};
use crate::redact::Secret;
use crate::report;
use crate::results::{ResultError, Results};
use crate::source::Fetched;
use crate::source::archive::InputFile;
use crate::store::StoreError;
use crate::task::ItemResult;
use crate::weights::{published_tokenizer, weights};

/// How often a run asks whether another process has ended the work on a result.
const LOCK_POLL: Duration = Duration::from_millis(100);

impl Run<'_> {
    pub(super) fn data_node(&self, id: NodeId, outcome: &mut Outcome) -> Result<(), RunError> {
        self.check_stop()?;
        let _held = self.hold(id, || {
            std::thread::sleep(LOCK_POLL);
            Ok(())
        })?;
        if self.results.is_built(id)? {
            self.observer.on_event(RunEvent::Cached {
                node: self.results.node(id).name(),
            });
            return Ok(());
        }
        // The report shows the keys of all nodes: it is another page if they are others, whatever their results are.
        let may_reuse = !matches!(self.results.node(id).kind(), NodeKind::Source | NodeKind::Report);
        if may_reuse && self.reuse(id, outcome)? {
            return Ok(());
        }
        let node = self.results.node(id);
        self.observer.on_event(RunEvent::Started {
            node: node.name(),
            kind: node.kind(),
        });
        let since = Instant::now();
        let scratch = self.results.store.scratch()?;
        let report = |at: Progress| {
            self.observer.on_event(RunEvent::Progress {
                node: node.name(),
                done: at.done,
                total: at.total.unwrap_or(0),
                unit: at.unit.name(),
            });
        };
        let progress = ProgressReporter::new(&report, self.stop.flag());
        let mut made_on = None;
        let out = scratch.path();
        let built = match &node.work {
            Work::Source(_) => self.source(id, out, progress),
            Work::Extract(fields) => self.extract(id, fields, out, progress),
            Work::Filter(fields) => self.filter(id, fields, out, progress),
            Work::Tokenizer(fields) => self.tokenizer(id, fields, out, progress),
            Work::Tokens(fields) => self.tokens(id, fields, out, progress),
            Work::Weights(fields) => self.weights(id, fields, out),
            Work::Order(fields) => self.order(id, fields, out),
            Work::Judge(fields) => self.judge(id, fields, out, progress).map(|on| made_on = on),
            Work::Expect(fields) => expect::build(&self.results, id, fields, out).map_err(RunError::from),
            Work::Report(_) => report::build(&self.results, id, out).map_err(RunError::from),
            Work::Train(_) | Work::Eval(_) | Work::Answers(_) => {
                Err(self.fail(id, format!("`{}` nodes run on workers", node.kind().name())))
            }
        };
        // Cancelled work returns an error; the run reports the stop instead.
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

    fn source(&self, id: NodeId, out: &Utf8Path, progress: ProgressReporter<'_>) -> Result<(), RunError> {
        let NodeOrigin::Source { source: name } = &self.results.node(id).origin else {
            return Err(self.fail(id, "it is not a source"));
        };
        let pin = self
            .inputs
            .pins
            .get(name)
            .ok_or_else(|| self.fail(id, "it is not pinned"))?;
        let pinning = Pinning {
            folders: self.inputs.folders,
            store: self.results.store,
            offline: self.inputs.offline,
            at_most: self.inputs.at_most,
            note: &|text| self.observer.on_event(RunEvent::Note { text }),
            progress,
        };
        let fetched = pinning
            .fetch(name, &pin.from, Some(pin), false)
            .map_err(|error| self.fail(id, error))?;
        place_source(&fetched.source, out).map_err(RunError::from)
    }

    /// The files of a source's result, under their own names.
    fn source_files(&self, id: NodeId) -> Result<Vec<InputFile>, RunError> {
        let at_most = match &self.results.node(id).origin {
            NodeOrigin::Source { source } => self.inputs.at_most.get(source).copied(),
            _ => None,
        };
        let files = self.results.files(id)?.into_iter();
        Ok(files.map(|(name, path)| InputFile { name, path, at_most }).collect())
    }

    fn extract(
        &self,
        id: NodeId,
        fields: &ExtractFields,
        out: &Utf8Path,
        progress: ProgressReporter<'_>,
    ) -> Result<(), RunError> {
        let source = self.results.required_input(id, &Role::Source)?;
        let reference = self.results.input(id, &Role::Reference);
        let reference = reference.map(|source| self.source_files(source)).transpose()?;
        let limits = match &self.results.node(source).origin {
            NodeOrigin::Source { source } => self.inputs.malformed.get(source).copied(),
            _ => None,
        };
        let limits = limits.map_or_else(ExtractLimits::default, |malformed_ppm| ExtractLimits { malformed_ppm });
        extract(
            fields,
            &self.source_files(source)?,
            reference.as_deref(),
            limits,
            out,
            progress,
        )
        .map(drop)
        .map_err(|error| self.fail(id, error))
    }

    fn filter(
        &self,
        id: NodeId,
        fields: &FilterFields,
        out: &Utf8Path,
        progress: ProgressReporter<'_>,
    ) -> Result<(), RunError> {
        let documents = self.files_named(id, &Role::Documents, "documents.jsonl")?;
        filter(fields, &documents, out, progress)
            .map(drop)
            .map_err(|error| self.fail(id, error))
    }

    fn tokenizer(
        &self,
        id: NodeId,
        fields: &TokenizerFields,
        out: &Utf8Path,
        progress: ProgressReporter<'_>,
    ) -> Result<(), RunError> {
        let (documents, json);
        let input = match fields {
            TokenizerFields::Load { member, .. } => {
                let source = self.source_files(self.results.required_input(id, &Role::Source)?)?;
                json = published_tokenizer(&source, member).map_err(|error| self.fail(id, error))?;
                TokenizerInput::Json(&json)
            }
            TokenizerFields::TrainBpe { .. } => {
                documents = self.files_named(id, &Role::Documents, "train.jsonl")?;
                TokenizerInput::Documents(&documents)
            }
        };
        tokenizer(fields, input, out, progress)
            .map(drop)
            .map_err(|error| self.fail(id, error))
    }

    fn tokens(
        &self,
        id: NodeId,
        fields: &TokensFields,
        out: &Utf8Path,
        progress: ProgressReporter<'_>,
    ) -> Result<(), RunError> {
        let documents = self.token_documents(id)?;
        let tokenizer = self.results.files(self.results.required_input(id, &Role::Tokenizer)?)?;
        let meta = fs::read_to_string(&tokenizer["meta.json"]).map_err(|error| self.fail(id, error))?;
        let meta: TokenizerMeta = serde_json::from_str(&meta).map_err(|error| self.fail(id, error))?;
        tokens(
            fields,
            &documents,
            &tokenizer["tokenizer.json"],
            meta.end_of_document_id,
            out,
            progress,
        )
        .map(drop)
        .map_err(|error| self.fail(id, error))
    }

    /// The documents behind a node of tokens, in their order.
    pub(super) fn token_documents(&self, id: NodeId) -> Result<Vec<Utf8PathBuf>, RunError> {
        let Work::Tokens(fields) = &self.results.node(id).work else {
            return Err(self.fail(id, "it is not a tokens node"));
        };
        let mut documents = Vec::new();
        for name in token_document_names(fields.split) {
            documents.extend(self.files_named(id, &Role::Documents, name)?);
        }
        Ok(documents)
    }

    fn weights(&self, id: NodeId, fields: &WeightsFields, out: &Utf8Path) -> Result<(), RunError> {
        let source = self.results.input(id, &Role::Source);
        let files = source.map(|source| self.source_files(source)).transpose()?;
        let note = |text: &str| self.observer.on_event(RunEvent::Note { text });
        weights(fields, files.as_deref(), out, &note).map_err(|error| self.fail(id, error))
    }

    /// Judges answers. A repetition takes the recorded answers of an external judge and does not ask it again.
    fn judge(
        &self,
        id: NodeId,
        fields: &JudgeFields,
        out: &Utf8Path,
        progress: ProgressReporter<'_>,
    ) -> Result<Option<String>, RunError> {
        if judge::is_external(fields)
            && let Some(recorded) = self.inputs.recorded
            && let Some(record) = recorded.realised_in_any_class(self.results.realised(id)?)?
        {
            let text = format!("`{}`: uses the judge's recorded answers", self.results.node(id).name());
            self.observer.on_event(RunEvent::Note { text: &text });
            for (name, path) in recorded.files(&record)? {
                fs::copy(&path, out.join(name)).map_err(|error| self.fail(id, error))?;
            }
            return Ok(None);
        }
        let answers = self.results.required_input(id, &Role::Answers)?;
        let items: Vec<ItemResult> = self.results.json_lines(answers, "items.jsonl")?;
        let files = |role: &Role| -> Result<Vec<InputFile>, RunError> {
            let mut files = Vec::new();
            for source in self.results.inputs(id, role) {
                files.extend(self.source_files(source)?);
            }
            Ok(files)
        };
        let eval = self.results.node(id).origin.eval().map(|(eval, _)| eval);
        let options = eval.and_then(|eval| self.inputs.judges.get(eval));
        let variable = options.and_then(|options| options.secret.as_deref());
        let secret = variable.map(|name| {
            let value = std::env::var(name).map(|value| Secret::new(&value));
            value.map_err(|_| {
                self.fail(
                    id,
                    format!("the environment has no variable `{name}` with the key of the judge's interface"),
                )
            })
        });
        let secret = secret.transpose()?;
        let inputs = judge::Inputs {
            items: &self.results.item_files(id)?,
            program: &files(&Role::Judge)?,
            labelled: &files(&Role::Labelled)?,
            secret: secret.as_ref(),
            variable,
            timeout: options.map_or(Duration::MAX, |options| options.timeout),
            allowed: self.inputs.allowed,
            hidden: &[
                self.results.store.root().as_std_path(),
                self.inputs.folders.project.as_std_path(),
            ],
            progress,
        };
        judge::judge(fields, items, &inputs, out).map_err(|error| self.fail(id, error))
    }

    /// One file of each input of a role, in order.
    fn files_named(&self, id: NodeId, role: &Role, file: &str) -> Result<Vec<Utf8PathBuf>, RunError> {
        let inputs = self.results.inputs(id, role).into_iter();
        Ok(inputs
            .map(|node| self.results.file(node, file))
            .collect::<Result<_, _>>()?)
    }

    fn order(&self, id: NodeId, fields: &OrderFields, out: &Utf8Path) -> Result<(), RunError> {
        let mut sizes = OrderSizes {
            sequence: fields.sequence,
            components: Vec::new(),
        };
        for component in &fields.components {
            let mut pairs = Vec::new();
            for node in self.results.inputs(id, &Role::Tokens(component.name.clone())) {
                let file = |name| self.results.file(node, name);
                pairs.push((file("tokens.bin")?, file("tokens.idx")?));
            }
            let stream = TokenStream::open(pairs.iter().map(|(bin, idx)| (bin.as_path(), idx.as_path())))
                .map_err(|error| self.fail(id, error))?;
            sizes.components.push(ComponentSize::new(
                &component.name,
                stream.num_documents(),
                stream.num_tokens(),
                stream.num_samples(fields.sequence),
                fields.sequence,
            ));
        }
        // An impossible order is an error of this node, not of the training that would use it.
        Order::new(fields, &sizes.samples()).map_err(|error| self.fail(id, error))?;
        let path = out.join("order.json");
        write_json(&path, &sizes).map_err(|error| self.fail(id, FileError::writing(&path)(error)))
    }
}

/// The files of a filter's result with the documents of a split, in the order in which their tokens are written.
pub fn token_document_names(split: Split) -> &'static [&'static str] {
    match split {
        Split::Train => &["train.jsonl"],
        Split::HeldOut => &["held_out.jsonl"],
        Split::All => &["train.jsonl", "held_out.jsonl"],
    }
}

/// Puts fetched files into the folder of a source's result, under their own names.
///
/// # Errors
/// A file cannot be copied.
pub fn place_source(fetched: &Fetched, out: &Utf8Path) -> Result<(), StoreError> {
    for InputFile { name, path: from, .. } in &fetched.files {
        let to = out.join(name);
        let place = || -> std::io::Result<()> {
            if let Some(folder) = to.parent() {
                make_below(out, folder)?;
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
/// `max_epochs` has, by component, how often it may be repeated.
///
/// # Errors
/// The order's result cannot be read, or a component would be repeated more often than the spec allows.
pub fn commit_order(
    results: &Results<'_>,
    id: NodeId,
    stage: &str,
    samples: u64,
    max_epochs: &BTreeMap<String, f64>,
) -> Result<String, ResultError> {
    let fields = results.order_fields(id)?;
    let sizes: OrderSizes = results.json(id, "order.json")?;
    let available = sizes.samples();
    let order = Order::new(fields, &available).map_err(|error| results.fail(id, error))?;
    for ((component, available), wanted) in fields.components.iter().zip(&available).zip(order.counts(samples)) {
        let epochs = wanted as f64 / (*available).max(1) as f64;
        if let Some(most) = max_epochs.get(&component.name).filter(|most| epochs > **most) {
            return Err(results.fail(
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
