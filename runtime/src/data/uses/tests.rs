//! Both directions against a list of all tokens of all positions.

use super::*;
use aurora_compiler::fields::{OrderComponent, OrderFields};
use camino::Utf8PathBuf;
use proptest::prelude::*;

use crate::data::tokens::TokenWriter;

/// A stage in a temporary folder, and for each component the file and the number of the document of every token.
struct Small {
    data: StageData,
    owners: Vec<Vec<(usize, u64)>>,
    sequence: u64,
    batch: u64,
    steps: u64,
    _folder: tempfile::TempDir,
}

#[derive(Clone, Debug)]
struct Plan {
    seed: u64,
    /// By component: weight, weight at the end, lengths of the documents of each file.
    components: Vec<(u32, u32, Vec<Vec<usize>>)>,
    sequence: u32,
    batch: u32,
    steps: u64,
}

fn plan() -> impl Strategy<Value = Plan> {
    let files = proptest::collection::vec(proptest::collection::vec(1usize..30, 1..12), 1..3);
    let component = (0u32..10, 0u32..10, files);
    (
        any::<u64>(),
        proptest::collection::vec(component, 1..4),
        1u32..24,
        1u32..9,
        1u64..600,
    )
        .prop_map(|(seed, mut components, sequence, batch, steps)| {
            // Weights in millionths; the last component takes the rest.
            let (mut start, mut end) = (1_000_000, 1_000_000);
            let count = components.len();
            for (at, component) in components.iter_mut().enumerate() {
                let last = at + 1 == count;
                component.0 = if last { start } else { component.0 * start / 10 };
                component.1 = if last { end } else { component.1 * end / 10 };
                start -= component.0;
                end -= component.1;
            }
            Plan {
                seed,
                components,
                sequence,
                batch,
                steps,
            }
        })
}

impl Small {
    /// None if a component with a weight has no samples.
    fn new(plan: &Plan) -> Option<Self> {
        let folder = tempfile::tempdir().expect("a temporary folder");
        let path = Utf8PathBuf::try_from(folder.path().to_owned()).expect("UTF-8");
        let (mut streams, mut owners) = (Vec::new(), Vec::new());
        for (component, (_, _, files)) in plan.components.iter().enumerate() {
            let (mut pairs, mut own) = (Vec::new(), Vec::new());
            for (file, lengths) in files.iter().enumerate() {
                let bin = path.join(format!("{component}.{file}.bin"));
                let idx = bin.with_extension("idx");
                let mut writer = TokenWriter::create(&bin, &idx, 100).expect("created");
                for (document, &length) in (0..).zip(lengths) {
                    writer.push(&vec![1; length]).expect("pushed");
                    own.extend(std::iter::repeat_n((file, document), length));
                }
                writer.finish().expect("finished");
                pairs.push((bin, idx));
            }
            let pairs = pairs.iter().map(|(bin, idx)| (bin.as_path(), idx.as_path()));
            streams.push(TokenStream::open_verified(pairs).expect("opened"));
            owners.push(own);
        }
        let component = |(at, (start, end, _)): (usize, &(u32, u32, Vec<Vec<usize>>))| OrderComponent {
            name: format!("c{at}"),
            weight_ppm: *start,
            until_ppm: (start != end).then_some(*end),
        };
        let fields = OrderFields {
            seed: plan.seed,
            sequence: plan.sequence,
            components: plan.components.iter().enumerate().map(component).collect(),
            samples: Some(plan.steps * u64::from(plan.batch)),
        };
        let samples: Vec<u64> = streams.iter().map(|stream| stream.num_samples(plan.sequence)).collect();
        let order = Order::new(&fields, &samples).ok()?;
        Some(Self {
            data: StageData::new(order, streams, plan.sequence, plan.batch, plan.steps),
            owners,
            sequence: plan.sequence.into(),
            batch: plan.batch.into(),
            steps: plan.steps,
            _folder: folder,
        })
    }

    /// The owners of the tokens that a sample reads.
    fn owners_of(&self, sample: Sample) -> &[(usize, u64)] {
        let start = (sample.index * self.sequence) as usize;
        &self.owners[sample.component][start..=start + self.sequence as usize]
    }

    /// The uses of the samples for which `is_wanted` holds, one position after the other.
    fn listed(&self, is_wanted: impl Fn(Sample) -> bool) -> Vec<Use> {
        let mut found = Vec::new();
        for step in 0..self.steps {
            for sample in 0..self.batch {
                let position = step * self.batch + sample;
                let at = self.data.order.sample(position);
                if is_wanted(at) {
                    found.push(Use {
                        position,
                        step: step + 1,
                        sample,
                        epoch: at.epoch,
                    });
                }
            }
        }
        found
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(96))]

    #[test]
    fn a_sample_has_the_documents_of_its_tokens(plan in plan()) {
        let Some(small) = Small::new(&plan) else { return Ok(()) };
        for position in (0..small.data.length()).step_by(3) {
            let found = small.data.sample_at(position).expect("in the files");
            let owners = small.owners_of(found.sample);
            let all = &small.owners[found.sample.component];
            let start = (found.sample.index * small.sequence) as usize;
            let mut at = 0;
            for span in &found.spans {
                let owner = (span.file, span.document);
                prop_assert_eq!(span.in_sample.start, at);
                prop_assert!(owners[at as usize..span.in_sample.end as usize].iter().all(|other| *other == owner));
                prop_assert!(owners.get(span.in_sample.end as usize) != Some(&owner));
                let first = all.iter().position(|other| *other == owner).expect("there");
                prop_assert_eq!(start + at as usize - first, span.in_document.start as usize);
                prop_assert_eq!(span.in_document.end - span.in_document.start, span.in_sample.end - span.in_sample.start);
                prop_assert_eq!(span.length as usize, all.iter().filter(|other| **other == owner).count());
                at = span.in_sample.end;
            }
            prop_assert_eq!(at, small.sequence + 1);
        }
    }

    #[test]
    fn a_document_is_used_where_its_tokens_are(plan in plan(), pick: prop::sample::Index) {
        let Some(small) = Small::new(&plan) else { return Ok(()) };
        for (component, owners) in small.owners.iter().enumerate() {
            let owner = owners[pick.index(owners.len())];
            let first = owners.iter().position(|other| *other == owner).expect("there") as u64;
            let length = owners.iter().filter(|other| **other == owner).count() as u64;
            let samples = small.data.samples_of(component, first..first + length);
            let expected = small.listed(|at| at.component == component && small.owners_of(at).contains(&owner));
            prop_assert_eq!(&small.data.uses(component, std::slice::from_ref(&samples)), &expected);
        }
    }

    /// However the ranges are found: for one sample, for some, for all, in pieces that overlap.
    #[test]
    fn ranges_of_steps_are_exact(
        plan in plan(),
        cuts in proptest::collection::vec((any::<prop::sample::Index>(), any::<prop::sample::Index>()), 0..5),
    ) {
        let Some(small) = Small::new(&plan) else { return Ok(()) };
        for component in 0..small.owners.len() {
            let length = small.data.order.epoch_length(component);
            let cut = |(a, b): &(prop::sample::Index, prop::sample::Index)| {
                let (a, b) = (a.index(length as usize + 1) as u64, b.index(length as usize + 1) as u64);
                a.min(b)..a.max(b)
            };
            let samples: Vec<Range<u64>> = cuts.iter().map(cut).chain(std::iter::once(0..length / 9)).collect();
            let is_wanted = |at: Sample| at.component == component && samples.iter().any(|range| range.contains(&at.index));
            let listed = small.listed(is_wanted);
            let mut steps: Vec<u64> = listed.iter().map(|at| at.step).collect();
            steps.dedup();
            let chosen = small.data.step_ranges(component, &samples);
            let sets = merged(&samples);
            let mut ways = [
                small.data.uses_by_sample(component, &sets),
                small.data.uses_by_draw(component, &sets),
                small.data.few_uses(component, &sets),
            ];
            for uses in &mut ways {
                uses.sort_unstable();
                prop_assert_eq!(&*uses, &listed);
            }
            prop_assert_eq!(&small.data.ranges_by_use(component, &sets), &chosen);
            prop_assert_eq!(&small.data.ranges_by_step(component, &sets), &chosen);
            let spelled: Vec<u64> = chosen.steps.iter().flat_map(|(first, last)| *first..=*last).collect();
            prop_assert_eq!(spelled, steps);
            prop_assert!(chosen.steps.windows(2).all(|pair| pair[0].1 + 1 < pair[1].0));
            let epochs = listed.iter().map(|at| at.epoch);
            prop_assert_eq!(chosen.epochs, epochs.clone().min().zip(epochs.max()));
        }
    }
}

#[test]
fn ranges_are_merged_and_counted() {
    assert_eq!(merged(&[5..9, 0..3, 3..4, 8..12, 20..20]), [0..4, 5..12]);
    assert_eq!(ranges([1, 2, 2, 3, 7, 9, 10].into_iter()), [(1, 3), (7, 7), (9, 10)]);
}
