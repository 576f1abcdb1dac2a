//! Stages and mixtures.

use super::ViewError;
use super::reader::{At, Reader, SpecValues, steps_of};
use crate::exact::Exact;
use crate::fields::{AdamW, OptimizerState};
use crate::schedule::{Schedule, SchedulePart, Shape};
use crate::spec::{BlockId, Spec, Unit, Value};

/// A stage in steps of its own batch.
pub struct StageView {
    /// A model, or the stage before it.
    pub start: BlockId,
    pub mixture: BlockId,
    /// Tokens of one sequence.
    pub sequence: u32,
    /// Sequences of one step.
    pub global_batch: u32,
    pub steps: u64,
    /// Steps between checkpoints; none if only the last one is kept.
    pub checkpoint_every: Option<u64>,
    pub schedule: Schedule,
    pub optimizer: AdamW,
    pub optimizer_state: OptimizerState,
    pub mixture_values: SpecValues,
    /// Learning rate and optimizer. A train node keeps these values, then those of its model and of the experiment,
    /// then `state_values` and `batch_values`, in this order.
    pub schedule_values: SpecValues,
    pub state_values: SpecValues,
    pub batch_values: SpecValues,
}

impl StageView {
    pub fn tokens_per_step(&self) -> u64 {
        u64::from(self.sequence) * u64::from(self.global_batch)
    }

    /// Sequences of the stage.
    pub fn samples(&self) -> u64 {
        self.steps * u64::from(self.global_batch)
    }

    /// Steps after which a checkpoint is kept, the last one included.
    pub fn checkpoints(&self) -> Vec<u64> {
        // An interval that is `unknown` is 0 steps: only the last checkpoint is known.
        let every = self
            .checkpoint_every
            .filter(|every| *every > 0)
            .unwrap_or(self.steps.max(1));
        let regular = self.steps / every;
        let mut checkpoints: Vec<u64> = (1..=regular).map(|index| index * every).collect();
        if self.steps > 0 && checkpoints.last() != Some(&self.steps) {
            checkpoints.push(self.steps);
        }
        checkpoints
    }
}

pub fn stage(spec: &Spec, id: &BlockId) -> Result<StageView, ViewError> {
    let mut read = Reader::new(spec);
    let start = read.reference(&read.at(id, "start")?)?;
    let mut read = Reader::new(spec);
    let mixture = read.reference(&read.at(id, "mixture")?)?;
    let mixture_values = std::mem::take(&mut read.values);
    // The batch is recorded before the sequence.
    let batch_at = read.at(id, "global_batch")?;
    let batch = read.value(&batch_at);
    let sequence = read.count(&read.at(id, "sequence")?)?;
    let global_batch = match batch {
        None => Some(0),
        Some(Value::Quantity(tokens, Unit::Tokens)) => {
            // Where the sequence is `unknown`, so is the batch.
            u32::try_from(tokens.checked_div(u64::from(sequence)).unwrap_or_default()).ok()
        }
        Some(Value::Quantity(sequences, _)) => u32::try_from(*sequences).ok(),
        Some(_) => None,
    };
    let global_batch = global_batch.ok_or_else(|| batch_at.error("a number of sequences of at most 32 bits"))?;
    let batch_values = std::mem::take(&mut read.values);
    let tokens_per_step = u64::from(sequence) * u64::from(global_batch);
    let steps = read.steps(&read.at(id, "budget")?, tokens_per_step)?;
    let checkpoint_every = read.optional(&read.at(id, "checkpoint")?, |read, at| read.steps(at, tokens_per_step))?;
    let mut read = Reader::new(spec);
    let (rate, method) = (read.at(id, "learning_rate")?, read.at(id, "optimizer")?);
    let schedule = schedule(&mut read, &rate, tokens_per_step)?;
    let optimizer = optimizer(&mut read, &method)?;
    let schedule_values = std::mem::take(&mut read.values);
    let optimizer_state = read.word(&read.at(id, "optimizer_state")?, OptimizerState::Reset)?;
    Ok(StageView {
        start,
        mixture,
        sequence,
        global_batch,
        steps,
        checkpoint_every,
        schedule,
        optimizer,
        optimizer_state,
        mixture_values,
        schedule_values,
        state_values: read.values,
        batch_values,
    })
}

fn optimizer<'a>(read: &mut Reader<'a>, at: &At<'a>) -> Result<AdamW, ViewError> {
    let mut number = |name: &str| read.exact(&read.argument(at, name)?);
    let (beta1, beta2) = (number("beta1")?, number("beta2")?);
    let (epsilon, weight_decay) = (number("epsilon")?, number("weight_decay")?);
    Ok(AdamW {
        beta1,
        beta2,
        epsilon,
        weight_decay,
        clip: read.optional(&read.argument(at, "clip")?, Reader::exact)?,
    })
}

fn schedule<'a>(read: &mut Reader<'a>, rate: &At<'a>, tokens_per_step: u64) -> Result<Schedule, ViewError> {
    let name = read.call_name(rate);
    if name == Some("piecewise") {
        let start = read.exact(&read.argument(rate, "start")?)?;
        let pieces = read.elements(&read.argument(rate, "pieces")?);
        let pieces = pieces.iter().map(|piece| schedule_part(read, piece, tokens_per_step));
        return Ok(Schedule::Piecewise {
            start,
            pieces: pieces.collect::<Result<_, _>>()?,
        });
    }
    let warmup = read.steps(&read.argument(rate, "warmup")?, tokens_per_step)?;
    let decay = match name {
        Some("wsd") => read.steps(&read.argument(rate, "decay")?, tokens_per_step)?,
        _ => 0,
    };
    if name == Some("constant") {
        let rate = read.exact(&read.argument(rate, "rate")?)?;
        return Ok(Schedule::Constant { rate, warmup });
    }
    let peak = read.exact(&read.argument(rate, "peak")?)?;
    let floor = read.exact(&read.argument(rate, "floor")?)?;
    match name {
        Some("linear") => Ok(Schedule::Linear { peak, floor, warmup }),
        Some("cosine") => Ok(Schedule::Cosine { peak, floor, warmup }),
        Some("wsd") => Ok(Schedule::WarmupStableDecay {
            peak,
            floor,
            warmup,
            decay,
        }),
        _ => Err(rate.error("a learning-rate schedule")),
    }
}

fn schedule_part<'a>(read: &mut Reader<'a>, piece: &At<'a>, tokens_per_step: u64) -> Result<SchedulePart, ViewError> {
    let shape = match read.call_name(piece) {
        Some("line") => Shape::Line {
            end_rate: read.exact(&read.argument(piece, "to")?)?,
        },
        Some("half_cosine") => Shape::HalfCosine {
            end_rate: read.exact(&read.argument(piece, "to")?)?,
        },
        Some("hold") => Shape::Hold,
        _ => return Err(piece.error("a piece of a schedule")),
    };
    let over = read.optional(&read.argument(piece, "over")?, |read, at| {
        read.steps(at, tokens_per_step)
    })?;
    Ok(SchedulePart { shape, over })
}

pub struct MixtureView {
    /// In the order of their names.
    pub components: Vec<MixtureComponent>,
    pub values: SpecValues,
}

pub struct MixtureComponent {
    pub name: String,
    pub corpora: Vec<BlockId>,
    pub weight: Weight,
}

/// How many of a stage's tokens come from a component.
pub enum Weight {
    /// In 0..1; 0 if it is `unknown`.
    Fraction(Exact),
    /// In proportion to the tokens of the other components.
    Tokens(u64),
    /// Fractions at the start and at the end of the stage.
    Ramp { start: Exact, end: Exact },
}

pub fn mixture(spec: &Spec, id: &BlockId) -> Result<MixtureView, ViewError> {
    let mut read = Reader::new(spec);
    let names = spec.blocks.get(id).map(|block| block.fields.keys());
    let mut components = Vec::new();
    for name in names.into_iter().flatten() {
        let component = read.at(id, name)?;
        let corpora = read.references(&read.argument(&component, "from")?)?;
        let weight = read.argument(&component, "weight")?;
        let weight = match &weight.field.value {
            Value::Quantity(..) => Weight::Tokens(read.whole(&weight)?),
            Value::Call { .. } => Weight::Ramp {
                start: read.exact(&read.argument(&weight, "start")?)?,
                end: read.exact(&read.argument(&weight, "end")?)?,
            },
            _ => Weight::Fraction(read.exact(&weight)?),
        };
        components.push(MixtureComponent {
            name: name.clone(),
            corpora,
            weight,
        });
    }
    Ok(MixtureView {
        components,
        values: read.values,
    })
}

/// The steps of an interval of an eval's `at`, in steps of the stage.
pub(super) fn interval(value: &Value, tokens_per_step: u64) -> u64 {
    steps_of(value, tokens_per_step).unwrap_or_default()
}
