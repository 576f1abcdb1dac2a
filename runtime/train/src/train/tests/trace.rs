//! Traces of steps: the same names and digests for every layout, and the first difference at an injected error.

use std::sync::Arc;

use aurora_runtime::trace::{Operation, Trace};

use super::*;
use crate::model::ComputeDevice;
use crate::model::{Fault, TraceRecorder};

/// Records the second step on all ranks, with one sum in another order.
fn traced(model: &ModelFields, precision: Precision, layout: &Layout, fault: Option<Operation>) -> Trace {
    let entries = on_ranks(layout, |peers| {
        let _guard = tch::no_grad_guard();
        let me = mesh(layout).rank(peers[0].at());
        let network = Network {
            fault: Fault { sum: fault },
            ..network(model, &invariant(4, 4), precision, layout, me, ComputeDevice::Cpu).unwrap()
        };
        let pool = ThreadPool::new(layout.threads as usize).unwrap();
        let mut trainer = trainer(model, network, me, layout, peers);
        if fault.is_none() {
            step(&mut trainer, &pool, 0, Targets::All);
        }
        let recorder = Arc::new(TraceRecorder::default());
        recorder.begin(2);
        trainer.recorder = Some(Arc::clone(&recorder));
        step(&mut trainer, &pool, 1, Targets::All);
        recorder.take()
    });
    let mut trace = Trace::default();
    trace.extend(entries.into_iter().flatten());
    trace
}

#[test]
fn every_layout_leaves_the_trace_of_one_worker() {
    let models = [
        (model(Architecture::GptBigcode, 1, true), Precision::F32),
        (model(Architecture::Llama, 2, false), Precision::Bf16),
        (model(Architecture::Llama, 4, true), Precision::F32),
    ];
    let layouts = [
        layout(4, 1, 1),
        layout(1, 4, 1),
        layout(1, 1, 4),
        Layout {
            sequence_parallel: true,
            ..layout(4, 2, 1)
        },
        Layout {
            distributed_optimizer: true,
            sequence_parallel: true,
            recompute: Recompute::Full,
            ..layout(2, 2, 2)
        },
        Layout {
            threads: 2,
            recompute: Recompute::Selective,
            ..layout(1, 2, 1)
        },
    ];
    for (model, precision) in &models {
        let expected = traced(model, *precision, &layout(1, 1, 1), None);
        assert!(!expected.is_empty());
        for layout in &layouts {
            let found = traced(model, *precision, layout, None);
            let comparison = expected.compare(&found);
            assert_eq!(comparison.first, None, "{:?} {layout:?}", model.architecture);
            assert!(
                found == expected,
                "{:?} {layout:?}: the same results are named",
                model.architecture
            );
        }
    }
}

#[test]
fn a_sum_in_another_order_is_the_first_difference() {
    let model = model(Architecture::GptBigcode, 1, true);
    let faults = Operation::ALL
        .iter()
        .copied()
        .filter(|operation| operation.is_sum_over_shards());
    for fault in faults {
        let [one, four] =
            [layout(1, 1, 1), layout(4, 1, 2)].map(|layout| traced(&model, Precision::F32, &layout, Some(fault)));
        let found = one.compare(&four);
        let first = found.first.unwrap_or_else(|| panic!("{fault:?} changes something"));
        assert_eq!(first.name.operation, fault, "{}", first.name);
        assert!(found.agreeing > 0 && found.differing > 0);
    }
}
