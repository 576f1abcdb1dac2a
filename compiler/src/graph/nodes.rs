//! Single nodes: their fields, from the views of the blocks that they come from.
//!
//! In: views of a checked spec. Out: nodes without inputs. Not here: which nodes exist and their edges (`lower`).

use super::{CheckpointOrigin, Node, NodeOrigin, Work};
use crate::exact::Exact;
use crate::fields::{OrderComponent, OrderFields, ReportFields, TrainFields};
use crate::spec::{BlockId, Spec};
use crate::views::{self, ExperimentView, MixtureView, ModelView, SpecValues, StageView, ViewError, Weight};

impl Node {
    pub(super) fn new(origin: NodeOrigin, work: Work, values: SpecValues) -> Self {
        Self {
            name: origin.to_string(),
            origin,
            version: work.kind().version(),
            work,
            unknown: values.unknown,
            spec_values: values.by_path,
        }
    }
}

/// A view of a spec that has been checked.
///
/// # Panics
/// Never: `check` reads every view, and a spec with an unreadable view has an error.
pub(super) fn checked<T>(view: Result<T, ViewError>) -> T {
    view.expect("check has read every view of the spec")
}

/// The data order of a stage.
pub(super) fn order_node(id: &BlockId, stage: &StageView, mixture: &MixtureView, experiment: &ExperimentView) -> Node {
    let tokens: Vec<u64> = mixture
        .components
        .iter()
        .filter_map(|component| match component.weight {
            Weight::Tokens(tokens) => Some(tokens),
            Weight::Fraction(_) | Weight::Ramp { .. } => None,
        })
        .collect();
    let mut by_tokens = millionths(&tokens).into_iter();
    let component = |component: &views::MixtureComponent| {
        let (weight_ppm, until_ppm) = match component.weight {
            Weight::Tokens(_) => (by_tokens.next().unwrap_or_default(), None),
            Weight::Fraction(fraction) => (to_millionths(fraction), None),
            Weight::Ramp { start, end } => {
                let (start, end) = (to_millionths(start), to_millionths(end));
                (start, (end != start).then_some(end))
            }
        };
        OrderComponent {
            name: component.name.clone(),
            weight_ppm,
            until_ppm,
        }
    };
    let components: Vec<OrderComponent> = mixture.components.iter().map(component).collect();
    let changes = components.iter().any(|component| component.until_ppm.is_some());
    let fields = OrderFields {
        seed: experiment.seed,
        sequence: stage.sequence,
        components,
        samples: changes.then(|| stage.samples()),
    };
    let origin = NodeOrigin::Order { stage: id.name.clone() };
    let mut values = stage.mixture_values.clone();
    values.extend(&mixture.values);
    values.extend(&experiment.seed_values);
    Node::new(origin, Work::Order(fields), values)
}

/// A fraction in 0..1 as millionths, rounded to the nearest.
fn to_millionths(fraction: Exact) -> u32 {
    let millionths = fraction.decimal() * rust_decimal::Decimal::from(1_000_000);
    // The tables bound a weight to 100%.
    u32::try_from(millionths.round()).unwrap_or(1_000_000)
}

/// Counts as millionths of their sum, by largest remainder; ties go to the first.
pub(crate) fn millionths(counts: &[u64]) -> Vec<u32> {
    const MILLION: u128 = 1_000_000;
    let total: u128 = counts.iter().map(|&count| u128::from(count)).sum();
    if total == 0 {
        return vec![0; counts.len()];
    }
    let exact: Vec<u128> = counts.iter().map(|&count| u128::from(count) * MILLION).collect();
    let mut millionths: Vec<u32> = exact
        .iter()
        .map(|count| u32::try_from(count / total).expect("a part of a million is at most a million"))
        .collect();
    let mut order: Vec<usize> = (0..counts.len()).collect();
    order.sort_by_key(|&at| (std::cmp::Reverse(exact[at] % total), at));
    let left = 1_000_000 - millionths.iter().sum::<u32>();
    for &at in order.iter().take(left as usize) {
        millionths[at] += 1;
    }
    millionths
}

/// The training nodes of a stage, by their last steps. A checkpoint is defined by everything that leads to it from the
/// start of its stage, not by where the stage is cut.
pub(super) fn segment_nodes(
    id: &BlockId,
    stage: &StageView,
    model: &ModelView,
    experiment: &ExperimentView,
) -> Vec<(u64, Node)> {
    let mut values = stage.schedule_values.clone();
    values.extend(&model.values);
    values.extend(&experiment.values);
    values.extend(&stage.state_values);
    values.extend(&stage.batch_values);
    let node = |last_step: u64| {
        let fields = TrainFields {
            model: model.fields.clone(),
            numerics: experiment.numerics.clone(),
            precision: experiment.precision,
            optimizer: stage.optimizer.clone(),
            optimizer_state: stage.optimizer_state,
            schedule: stage.schedule.pieces_before(stage.steps, last_step),
            last_step,
            global_batch: stage.global_batch,
            sequence: stage.sequence,
        };
        let origin = NodeOrigin::Checkpoint(CheckpointOrigin::Trained {
            stage: id.name.clone(),
            step: last_step,
        });
        (last_step, Node::new(origin, Work::Train(fields), values.clone()))
    };
    stage.checkpoints().into_iter().map(node).collect()
}

pub(super) fn report_node(spec: &Spec, nodes: Vec<String>) -> Node {
    let fields = ReportFields {
        experiment: spec.name.clone(),
        nodes,
    };
    Node::new(NodeOrigin::Report, Work::Report(fields), SpecValues::default())
}
