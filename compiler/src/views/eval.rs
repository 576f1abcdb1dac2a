//! Evals.

use super::ViewError;
use super::reader::{At, Reader, SpecValues, own_names};
use super::stage::interval;
use crate::fields::{AnswerMode, Attack, Judge, JudgeFields, Labelled, Need, Split, TaskFields};
use crate::schema::EvalKind;
use crate::spec::{Better, BlockId, BlockKind, Spec, Value};

pub struct EvalView {
    pub kind: EvalKind,
    pub stages: Vec<BlockId>,
    pub at: Vec<MeasuredAt>,
    /// Corpora of a perplexity eval, sources of items of any other.
    pub data: Vec<BlockId>,
    /// Which documents of the corpora are read.
    pub split: Split,
    /// Tokens of one window of a perplexity eval; none for the stage's own sequence length.
    pub window: Option<u32>,
    /// The task of any eval other than perplexity.
    pub task: Option<TaskFields>,
    /// The judge that scores the answers, if any.
    pub judge: Option<JudgeView>,
    /// The values that the fields of the eval's node, or of the node of its answers, were read from.
    pub values: SpecValues,
    pub window_values: SpecValues,
}

pub struct JudgeView {
    pub fields: JudgeFields,
    /// The source of the program that judges.
    pub program: Option<BlockId>,
    /// The source of labelled responses.
    pub labelled: Option<BlockId>,
    pub values: SpecValues,
}

/// Checkpoints of a stage at which an eval measures.
pub enum MeasuredAt {
    Start,
    End,
    Every(Value),
}

impl MeasuredAt {
    /// The steps of an interval; none of anything else.
    pub fn every(&self, tokens_per_step: u64) -> Option<u64> {
        match self {
            Self::Every(value) => Some(interval(value, tokens_per_step)),
            Self::Start | Self::End => None,
        }
    }
}

pub fn eval(spec: &Spec, id: &BlockId) -> Result<EvalView, ViewError> {
    let mut read = Reader::new(spec);
    let kind_at = read.at(id, "kind")?;
    let kind = EvalKind::named(&read.text(&kind_at)?).ok_or_else(|| kind_at.error("a kind of eval"))?;
    let outside = &mut Reader::new(spec);
    let at = outside.at(id, "at")?;
    let at = outside
        .elements(&at)
        .iter()
        .map(measured_at)
        .collect::<Result<_, _>>()?;
    let stages = outside.references(&outside.at(id, "stages")?)?;
    let (mut split, mut window, mut task, mut judge) = (Split::HeldOut, None, None, None);
    let mut window_values = SpecValues::default();
    let data;
    if kind == EvalKind::Perplexity {
        split = read.word(&read.at(id, "split")?, Split::HeldOut)?;
        data = outside.references(&outside.at(id, "data")?)?;
        let mut own = Reader::new(spec);
        window = own.optional(&own.at(id, "window")?, Reader::count)?;
        window_values = own.values;
    } else {
        task = Some(task_fields(&mut read, id, kind, spec)?);
        data = read.references(&read.at(id, "data")?)?;
        if kind.is_judged() {
            judge = Some(judge_view(spec, id, kind)?);
        }
    }
    Ok(EvalView {
        kind,
        stages,
        at,
        data,
        split,
        window,
        task,
        judge,
        values: read.values,
        window_values,
    })
}

fn measured_at(at: &At<'_>) -> Result<MeasuredAt, ViewError> {
    match &at.field.value {
        Value::Word(word) if word == "start" => Ok(MeasuredAt::Start),
        Value::Word(word) if word == "end" => Ok(MeasuredAt::End),
        every @ Value::Every(_) => Ok(MeasuredAt::Every(every.clone())),
        _ => Err(at.error("`start`, `end` or an interval")),
    }
}

fn task_fields<'a>(
    read: &mut Reader<'a>,
    eval: &BlockId,
    kind: EvalKind,
    spec: &Spec,
) -> Result<TaskFields, ViewError> {
    let asks = if kind == EvalKind::MultipleChoice {
        AnswerMode::Choices(read.texts(&read.at(eval, "choices")?)?)
    } else {
        let temperature = read.optional(&read.at(eval, "temperature")?, Reader::exact)?;
        let top_p = read.optional(&read.at(eval, "top_p")?, Reader::exact)?;
        AnswerMode::Text {
            stop: read.texts(&read.at(eval, "stop")?)?,
            maximum: read.count(&read.at(eval, "maximum")?)?,
            temperature: temperature.filter(|temperature| !temperature.decimal().is_zero()),
            top_p,
            samples: read.optional(&read.at(eval, "samples")?, Reader::count)?.unwrap_or(1),
        }
    };
    let mut attacks = Vec::new();
    for attack in read.elements(&read.at(eval, "attacks")?) {
        attacks.push(Attack {
            name: read.text(&read.argument(&attack, "name")?)?,
            template: read.text(&read.argument(&attack, "template")?)?,
        });
    }
    let shots = read.optional(&read.at(eval, "shots")?, Reader::count)?.unwrap_or(0);
    let experiment = BlockId {
        kind: BlockKind::Experiment,
        name: spec.name.clone(),
    };
    let limit_at = read.at(eval, "limit")?;
    Ok(TaskFields {
        files: own_item_files(read, eval, "files")?,
        limit: read.optional(&limit_at, Reader::count)?,
        shot_files: own_item_files(read, eval, "shot_files")?,
        prompt: read.text(&read.at(eval, "prompt")?)?,
        attacks,
        chat: read.optional(&read.at(eval, "chat")?, Reader::text)?,
        answer: read.optional(&read.at(eval, "answer")?, Reader::text)?,
        shots,
        separator: text_or_empty(read, eval, "separator")?,
        delimiter: text_or_empty(read, eval, "delimiter")?,
        by: words(read, &read.at(eval, "by")?)?,
        seed: read.whole(&read.at(&experiment, "seed")?)?,
        asks,
    })
}

/// The patterns of the files of an eval's items. With several sources, a complete path would not say of which.
fn own_item_files(read: &mut Reader<'_>, eval: &BlockId, name: &str) -> Result<Vec<String>, ViewError> {
    let patterns = read.texts(&read.at(eval, name)?)?;
    // Its values belong to the view that has the sources.
    let mut sources = Reader::new(read.spec());
    let sources = sources.references(&sources.at(eval, "data")?)?;
    Ok(match sources.as_slice() {
        [source] => own_names(read.spec(), source, patterns),
        _ => patterns,
    })
}

/// A text that only some kinds of evals have.
fn text_or_empty(read: &mut Reader<'_>, eval: &BlockId, name: &str) -> Result<String, ViewError> {
    Ok(read.optional(&read.at(eval, name)?, Reader::text)?.unwrap_or_default())
}

/// A word, or a list of words.
fn words<'a>(read: &mut Reader<'a>, at: &At<'a>) -> Result<Vec<String>, ViewError> {
    match at.field.value {
        Value::None => Ok(Vec::new()),
        Value::List(_) => read.texts(at),
        _ => Ok(vec![read.text(at)?]),
    }
}

fn judge_view(spec: &Spec, eval: &BlockId, kind: EvalKind) -> Result<JudgeView, ViewError> {
    let mut read = Reader::new(spec);
    let (mut program, mut labelled) = (None, None);
    let fields = if kind == EvalKind::PassAtK {
        let mut counts = Vec::new();
        for k in read.elements(&read.at(eval, "k")?) {
            counts.push(read.count(&k)?);
        }
        JudgeFields::Programs {
            files: own_item_files(&mut read, eval, "files")?,
            program: read.text(&read.at(eval, "program")?)?,
            k: counts,
            seconds: read.count(&read.at(eval, "timeout")?)?,
            memory: read.whole(&read.at(eval, "memory")?)?,
            unprotected: read.flag(&read.at(eval, "unprotected")?)?,
        }
    } else {
        let at = read.at(eval, "judge")?;
        let judge = judge(&mut read, &at, &mut program, &mut labelled)?;
        match kind {
            EvalKind::AttackSuccess => JudgeFields::Attacks(judge),
            EvalKind::Refusal => JudgeFields::Refusals(judge),
            _ => JudgeFields::Score {
                judge,
                better: read.word(&read.at(eval, "better")?, Better::Higher)?,
            },
        }
    };
    Ok(JudgeView {
        fields,
        program,
        labelled,
        values: read.values,
    })
}

/// Reads the judge, and the sources that it needs.
fn judge<'a>(
    read: &mut Reader<'a>,
    at: &At<'a>,
    program: &mut Option<BlockId>,
    labelled: &mut Option<BlockId>,
) -> Result<Judge, ViewError> {
    match read.call_name(at) {
        Some("command") => {
            *program = Some(read.reference(&read.argument(at, "source")?)?);
            let mut run = read.texts(&read.argument(at, "run")?)?;
            if let Some(source) = program {
                let words = own_names(read.spec(), source, run.clone());
                // A word without `/` would be the name of an installed program.
                let own_program = words
                    .first()
                    .filter(|word| Some(*word) != run.first() && !word.contains('/'));
                let own_program = own_program.map(|word| format!("./{word}"));
                run = words;
                if let (Some(word), Some(program)) = (run.first_mut(), own_program) {
                    *word = program;
                }
            }
            let mut needs = Vec::new();
            for need in read.elements(&read.argument(at, "needs")?) {
                needs.push(read.word(&need, Need::Network)?);
            }
            Ok(Judge::Program { run, needs })
        }
        Some("endpoint") => {
            let mut text = |name: &str| read.text(&read.argument(at, name)?);
            Ok(Judge::Endpoint {
                url: text("url")?,
                model: text("model")?,
                question: text("question")?,
                yes: text("yes")?,
            })
        }
        Some("refusals") => {
            *labelled = read.optional(&read.argument(at, "labelled")?, Reader::reference)?;
            let Some(source) = labelled.clone() else {
                return Ok(Judge::Rules { labelled: None });
            };
            let labelled = Some(Labelled {
                files: own_names(read.spec(), &source, read.texts(&read.argument(at, "files")?)?),
                prompt: read.text(&read.argument(at, "prompt")?)?,
                response: read.text(&read.argument(at, "response")?)?,
                label: read.text(&read.argument(at, "label")?)?,
            });
            Ok(Judge::Rules { labelled })
        }
        // A judge that is `unknown`: the node records the path, and its rules are a placeholder.
        _ if read.value(at).is_none() => Ok(Judge::Rules { labelled: None }),
        _ => Err(at.error("a judge")),
    }
}
