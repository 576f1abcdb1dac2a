//! The results that a command without workers shows or plans with: those of one numerics class.
//!
//! In: a spec, its graph and a store. Out: results of this machine's class, as far as the store knows it. Not here: commands
//! that start workers, whose engine learns the class.

use std::collections::BTreeSet;

use aurora_compiler::hash::Keyed;
use aurora_compiler::lock::Lock;
use aurora_compiler::numerics_class::NumericsClass;
use aurora_compiler::plan::joined;
use aurora_compiler::spec::Spec;
use aurora_runtime::launch::device_names;
use aurora_runtime::numerics::MachineDescription;
use aurora_runtime::results::Results;
use aurora_runtime::store::Store;

use crate::devices::expected_device;
use crate::failure::Failure;
use crate::layout::portable;
use crate::libtorch::{pinned, worker_program};

/// This machine's class, if a worker has reported it to the store.
fn class_here(store: &Store, spec: &Spec, lock: Option<&Lock>) -> Result<Option<NumericsClass>, Failure> {
    // Without a usable libtorch there is no worker whose class it could be.
    let Ok(Ok(program)) = worker_program(Some(pinned(lock))) else {
        return Ok(None);
    };
    let machine = MachineDescription::here(&program.libtorch, device_names(expected_device(spec)));
    Ok(store.known_class(&machine, portable(spec))?)
}

/// The results of a spec that a command shows: those of this machine's class or, if there are none, of the class that has
/// most.
pub fn results_to_read<'a>(
    store: &'a Store,
    spec: &'a Spec,
    keyed: &'a Keyed,
    lock: Option<&Lock>,
) -> Result<Results<'a>, Failure> {
    let class = class_here(store, spec, lock)?;
    Ok(Results::to_read(&spec.name, keyed, store, class)?)
}

/// The results of a spec that a run on this machine would use, and a note if its class is not known.
pub fn results_to_plan<'a>(
    store: &'a Store,
    spec: &'a Spec,
    keyed: &'a Keyed,
    lock: Option<&Lock>,
) -> Result<(Results<'a>, Option<String>), Failure> {
    let results = |class| Results {
        experiment: &spec.name,
        keyed,
        store,
        class,
    };
    let known = class_here(store, spec, lock)?;
    if known.is_some() {
        return Ok((results(known), None));
    }
    let mut classes = BTreeSet::new();
    for id in keyed.graph.ids().filter(|id| keyed.has_class(*id)) {
        classes.extend(store.classes_of(keyed.key(id))?);
    }
    let classes: Vec<NumericsClass> = classes.into_iter().collect();
    let unknown = "note: this machine's numerics class is not known before a worker has started here";
    Ok(match classes.as_slice() {
        [] => (results(None), None),
        [only] => {
            let note = format!("{unknown}: assumes {only}, the class of the results in the store");
            (results(Some(*only)), Some(note))
        }
        several => {
            let note = format!(
                "{unknown}: the results in the store ({}) are used only where the class agrees",
                joined(several)
            );
            (results(None), Some(note))
        }
    })
}
