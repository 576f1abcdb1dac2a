//! Shows the progress of a run, and writes its record.
//!
//! In: the events of a run. Out: one live line on a terminal, plain lines otherwise; `metrics.jsonl` and TensorBoard
//! events. The progress inside a node of data (documents extracted, tokens encoded) and of an eval is only in the live
//! line: without a terminal, such a node prints one line when it is built.

use std::collections::BTreeMap;
use std::io::IsTerminal;
use std::sync::Mutex;
use std::time::{Duration, Instant};

use aurora_compiler::graph::NodeKind;
use aurora_lang::printable::printable;
use aurora_runtime::engine::{Observer, RunEvent};
use aurora_runtime::job::{Layout, StepMetrics};
use aurora_runtime::record::RunRecord;
use aurora_runtime::store::lock::Holder;
use indicatif::{ProgressBar, ProgressDrawTarget, ProgressStyle};

use crate::arguments::ProgressMode;
use crate::output::grouped;
use crate::stdio::errln;

/// How often a plain line is written while training.
const PLAIN_EVERY: Duration = Duration::from_secs(10);

pub struct ProgressDisplay {
    style: Style,
    state: Mutex<State>,
}

enum Style {
    Live(ProgressBar),
    Plain,
    Silent,
}

struct State {
    record: Option<RunRecord>,
    /// Tokens of the stages before each stage.
    tokens_before: BTreeMap<String, u64>,
    all_tokens: u64,
    last_line: Option<Instant>,
    cached: usize,
}

impl ProgressDisplay {
    pub fn new(progress: ProgressMode, record: Option<RunRecord>) -> Self {
        let terminal = std::io::stderr().is_terminal();
        let style = match progress {
            ProgressMode::None => Style::Silent,
            ProgressMode::Auto if terminal => {
                let bar = ProgressBar::with_draw_target(None, ProgressDrawTarget::stderr());
                bar.set_style(
                    ProgressStyle::with_template("{spinner} {wide_msg}").unwrap_or(ProgressStyle::default_bar()),
                );
                bar.enable_steady_tick(Duration::from_millis(200));
                Style::Live(bar)
            }
            _ => Style::Plain,
        };
        let state = State {
            record,
            tokens_before: BTreeMap::new(),
            all_tokens: 0,
            last_line: None,
            cached: 0,
        };
        Self {
            style,
            state: Mutex::new(state),
        }
    }

    /// Prints a line above the live line.
    pub fn line(&self, text: &str) {
        match &self.style {
            Style::Live(bar) => bar.suspend(|| errln!("{text}")),
            Style::Plain => errln!("{text}"),
            Style::Silent => {}
        }
    }

    /// A line for the user in every mode, also without progress.
    pub fn notice(&self, text: &str) {
        match &self.style {
            Style::Live(bar) => bar.suspend(|| errln!("{text}")),
            Style::Plain | Style::Silent => errln!("{text}"),
        }
    }

    /// Replaces the live line; does nothing without a terminal.
    fn live(&self, text: impl FnOnce() -> String) {
        if let Style::Live(bar) = &self.style {
            bar.set_message(printable(&text()).into_owned());
        }
    }

    /// Ends the live line and returns the record.
    pub fn finish(self) -> Option<RunRecord> {
        if let Style::Live(bar) = &self.style {
            bar.finish_and_clear();
        }
        self.state
            .into_inner()
            .unwrap_or_else(|poisoned| poisoned.into_inner())
            .record
    }

    /// Writes to the record. If that fails, the run continues without one.
    fn note(&self, state: &mut State, write: impl FnOnce(&mut RunRecord) -> std::io::Result<()>) {
        if let Some(Err(error)) = state.record.as_mut().map(write) {
            let note = format!("warning: cannot write the run record: {error}");
            state.record = None;
            self.line(&note);
        }
    }

    fn step(&self, step: &StepMetrics, stage: &str, of: u64, tokens_per_step: u64) {
        let mut state = self.state.lock().unwrap_or_else(|poisoned| poisoned.into_inner());
        if !state.tokens_before.contains_key(stage) {
            let before = state.all_tokens;
            state.tokens_before.insert(stage.to_string(), before);
        }
        let tokens = state.tokens_before[stage] + step.step * tokens_per_step;
        state.all_tokens = state.all_tokens.max(tokens);
        self.note(&mut state, |record| record.step(step, tokens));
        let rate = tokens_per_step as f64 / step.seconds.max(1e-9);
        let left = (of - step.step.min(of)) as f64 * step.seconds;
        let text = || {
            format!(
                "{stage} step {}/{of} · {} tokens · loss {:.4} · {} tokens/s · {} left in this stage",
                step.step,
                grouped(tokens),
                step.loss,
                grouped(rate as u64),
                duration(left)
            )
        };
        match &self.style {
            Style::Live(bar) => bar.set_message(printable(&text()).into_owned()),
            Style::Plain => {
                let due = state.last_line.is_none_or(|at| at.elapsed() >= PLAIN_EVERY) || step.step == of;
                if due {
                    state.last_line = Some(Instant::now());
                    errln!("{}", text());
                }
            }
            Style::Silent => {}
        }
    }
}

impl Observer for ProgressDisplay {
    fn on_event(&self, event: RunEvent<'_>) {
        match event {
            RunEvent::Cached { .. } => {
                self.state
                    .lock()
                    .unwrap_or_else(|poisoned| poisoned.into_inner())
                    .cached += 1;
            }
            RunEvent::Damaged { node, part } => {
                self.notice(&format!(
                    "note: {part} of the result of {node} is damaged: it is built again"
                ));
            }
            RunEvent::Reused { node } => self.line(&format!(
                "reused   {node} (its inputs have the same contents as before)"
            )),
            RunEvent::Waiting { node, holders } => self.notice(&waiting(node, holders)),
            RunEvent::Started { node, kind } => self.live(|| format!("{} {node}", activity(kind))),
            RunEvent::Progress {
                node,
                done,
                total,
                unit,
            } => self.live(|| match total {
                0 => format!("{node}: {} {unit}", grouped(done)),
                total => format!("{node}: {} of {} {unit}", grouped(done), grouped(total)),
            }),
            RunEvent::Built { node, seconds, .. } => self.line(&format!("built    {node} ({seconds:.1} s)")),
            RunEvent::WorkersReady { fingerprint, layout } => {
                let mut state = self.state.lock().unwrap_or_else(|poisoned| poisoned.into_inner());
                self.note(&mut state, |record| record.placed(layout));
                drop(state);
                let Layout {
                    tensor,
                    pipeline,
                    data,
                    threads,
                    ..
                } = layout;
                let workers = match layout.world() {
                    1 => "worker   ".to_owned(),
                    world => format!("workers  {world} = tensor {tensor} × pipeline {pipeline} × data {data}, "),
                };
                let each = if *threads == 1 { "thread" } else { "threads" };
                self.line(&format!("{workers}{threads} {each}, {}", fingerprint.machine));
            }
            RunEvent::Resumed { node, step } => {
                self.line(&format!("resuming {node} at step {step} (checkpoint verified)"))
            }
            RunEvent::Step {
                step,
                stage,
                of,
                tokens_per_step,
            } => self.step(step, stage, of, tokens_per_step),
            RunEvent::Evaluating { node, set, done, of } => {
                self.live(|| format!("{node}: {set}, {} of {} tokens", grouped(done), grouped(of)));
            }
            RunEvent::Note { text } => self.line(text),
            // Printed even with `--progress none`.
            RunEvent::Restart { text } if matches!(self.style, Style::Silent) => errln!("{text}"),
            RunEvent::Restart { text } => self.line(text),
        }
    }
}

/// Says which processes build what this run needs.
fn waiting(node: &str, holders: &[Holder]) -> String {
    let holders: Vec<String> = holders.iter().map(Holder::to_string).collect();
    let by = match holders.is_empty() {
        true => "another process".to_owned(),
        false => holders.join(", "),
    };
    format!("waiting for `{node}`, built by {by}")
}

fn activity(kind: NodeKind) -> &'static str {
    match kind {
        NodeKind::Source => "fetching",
        NodeKind::Extract => "extracting",
        NodeKind::Filter => "filtering",
        NodeKind::Tokenizer => "training",
        NodeKind::Tokens => "tokenizing",
        NodeKind::Order => "ordering",
        NodeKind::Weights => "initialising",
        NodeKind::Train => "training",
        NodeKind::Eval => "evaluating",
        NodeKind::Answers => "answering",
        NodeKind::Judge => "judging",
        NodeKind::Expect => "comparing",
        NodeKind::Report => "writing",
    }
}

/// 95 → "1 min 35 s".
pub fn duration(seconds: f64) -> String {
    let whole = seconds.max(0.0).round() as u64;
    match whole {
        0..60 => format!("{whole} s"),
        60..3600 => format!("{} min {} s", whole / 60, whole % 60),
        3600..172_800 => format!("{} h {} min", whole / 3600, whole % 3600 / 60),
        _ => format!("{} days {} h", whole / 86_400, whole % 86_400 / 3600),
    }
}
