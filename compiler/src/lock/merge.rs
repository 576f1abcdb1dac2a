//! A three-way merge of locks, entry by entry.
//!
//! In: the common base, and the locks of both sides. Out: a lock with the entries that both sides agree on or only one side
//! has changed, and the conflicts: pins that both sides have changed in different ways. Entries that follow from pins and
//! spec (keys, results, orders) never conflict: where the sides differ they are left out, and `aurora lock` or `aurora run`
//! writes them again.

use std::collections::{BTreeMap, BTreeSet};

use serde::Serialize;

use super::{Lock, LockedImport, LockedSource, VERSION, order_node};
use crate::hash::digest_of;

/// Both sides have changed one value in different ways.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct LockConflict {
    pub what: String,
    pub ours: String,
    pub theirs: String,
}

/// The value that both sides agree on, or that only one of them has changed.
enum Chosen<T> {
    One(T),
    Differ,
}

fn choose<T: Clone + PartialEq>(base: Option<&T>, ours: Option<&T>, theirs: Option<&T>) -> Chosen<Option<T>> {
    if ours == theirs || base == theirs {
        Chosen::One(ours.cloned())
    } else if base == ours {
        Chosen::One(theirs.cloned())
    } else {
        Chosen::Differ
    }
}

type Table<T> = BTreeMap<String, T>;

/// Joins tables; `differ` is called for the entries that both sides have changed in different ways, which are left out.
fn tables<T: Clone + PartialEq>(
    (base, ours, theirs): (Option<&Lock>, &Lock, &Lock),
    of: fn(&Lock) -> &Table<T>,
    mut differ: impl FnMut(&str, Option<&T>, Option<&T>),
) -> Table<T> {
    let (base, ours, theirs) = (base.map(of), of(ours), of(theirs));
    let names: BTreeSet<&String> = ours.keys().chain(theirs.keys()).collect();
    let mut joined = Table::new();
    for name in names {
        let base = base.and_then(|table| table.get(name));
        let (ours, theirs) = (ours.get(name), theirs.get(name));
        match choose(base, ours, theirs) {
            Chosen::One(Some(entry)) => drop(joined.insert(name.clone(), entry)),
            Chosen::One(None) => {}
            Chosen::Differ => differ(name, ours, theirs),
        }
    }
    joined
}

/// Merges a value of the header; keeps ours if both sides have changed it in different ways.
fn header<T: Clone + PartialEq + Serialize>(
    what: &str,
    (base, ours, theirs): (Option<&Lock>, &Lock, &Lock),
    of: fn(&Lock) -> &T,
    conflicts: &mut Vec<LockConflict>,
) -> T {
    match choose(base.map(of), Some(of(ours)), Some(of(theirs))) {
        Chosen::One(Some(chosen)) => chosen,
        _ => {
            let shown = |lock| serde_json::to_string(of(lock)).unwrap_or_default();
            conflicts.push(LockConflict {
                what: what.to_owned(),
                ours: shown(ours),
                theirs: shown(theirs),
            });
            of(ours).clone()
        }
    }
}

/// Merges two changes of `base`, or two new locks if there is no base.
///
/// A pin that both sides have changed is left out, so that `aurora lock` pins it again.
pub fn merge(base: Option<&Lock>, ours: &Lock, theirs: &Lock) -> (Lock, Vec<LockConflict>) {
    let mut conflicts = Vec::new();
    let all = (base, ours, theirs);
    let experiment = header("experiment", all, |lock| &lock.experiment, &mut conflicts);
    let spec = header("spec", all, |lock| &lock.spec, &mut conflicts);
    let profile = header("profile", all, |lock| &lock.profile, &mut conflicts);
    let point = header("point", all, |lock| &lock.point, &mut conflicts);
    let set = header("set", all, |lock| &lock.set, &mut conflicts);
    let libtorch = header("libtorch", all, |lock| &lock.libtorch, &mut conflicts);
    let source = tables(
        all,
        |lock| &lock.source,
        |name, ours, theirs| {
            let shown = |pin: Option<&LockedSource>| pin.map_or("no pin".to_owned(), LockedSource::brief);
            conflicts.push(LockConflict {
                what: format!("the pin of source `{name}`"),
                ours: shown(ours),
                theirs: shown(theirs),
            });
        },
    );
    let import = tables(
        all,
        |lock| &lock.import,
        |address, ours, theirs| {
            let shown = |pin: Option<&LockedImport>| pin.map_or("no pin".to_owned(), |pin| pin.content.clone());
            conflicts.push(LockConflict {
                what: format!("the pin of import `{address}`"),
                ours: shown(ours),
                theirs: shown(theirs),
            });
        },
    );
    let node = tables(all, |lock| &lock.node, |_, _, _| {});
    // Results of two numerics classes are not comparable: neither side's are kept.
    let (class, comparable) = match choose(
        base.and_then(|base| base.class.as_ref()),
        ours.class.as_ref(),
        theirs.class.as_ref(),
    ) {
        Chosen::One(class) => (class, true),
        Chosen::Differ => (None, false),
    };
    // Both sides may describe different machines of one class.
    let describes = |side: &&Lock| side.class == class;
    let fingerprint = [ours, theirs].into_iter().find(describes);
    let fingerprint = fingerprint.and_then(|side| side.fingerprint.clone());
    let mut order = tables(all, |lock| &lock.order, |_, _, _| {});
    order.retain(|stage, _| node.contains_key(&order_node(stage)));
    let mut result = tables(all, |lock| &lock.result, |_, _, _| {});
    let has_order = |name: &str| {
        name.strip_prefix("order/")
            .is_none_or(|stage| order.contains_key(stage))
    };
    result.retain(|name, _| comparable && node.contains_key(name) && has_order(name));
    let mut joined = Lock {
        version: VERSION,
        experiment,
        spec,
        profile,
        point,
        set,
        libtorch,
        class,
        fingerprint,
        intent: theirs.intent,
        import,
        source,
        order,
        node,
        result,
        ..theirs.clone()
    };
    joined.count_results();
    if joined != *theirs {
        joined.intent = ours.intent;
        let follows = |side: &Lock| side.node == joined.node && side.source == joined.source;
        if joined != *ours && !(ours.intent == theirs.intent && (follows(ours) || follows(theirs))) {
            // The intent of the merged spec is not known here. This matches no spec, so `aurora lock` updates the lock.
            let both = [("ours", ours.intent.to_hex()), ("theirs", theirs.intent.to_hex())];
            joined.intent = digest_of(both.iter().map(|(side, key)| (*side, 0, key.as_str())));
        }
    }
    (joined, conflicts)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::check::check;
    use crate::graph::{Pins, lower};
    use crate::hash::hash;

    fn made(libtorch: &str) -> Lock {
        let spec = check("a.aur", "experiment a { seed = 1 }", None).expect("a valid spec");
        let pins = Pins::new();
        super::super::lock(&hash(lower(&spec, &pins)), &spec, "a.aur", &pins, libtorch)
    }

    #[test]
    fn what_one_side_changes_is_taken_and_what_both_change_is_told() {
        let (old, new, other) = (made("1"), made("2"), made("3"));
        for (base, ours, theirs) in [(&old, &new, &old), (&old, &old, &new), (&old, &new, &new)] {
            let (joined, conflicts) = merge(Some(base), ours, theirs);
            assert_eq!((joined.libtorch.as_str(), conflicts), ("2", Vec::new()));
        }
        // Without a common base, the sides also conflict.
        for base in [Some(&old), None] {
            let (_, conflicts) = merge(base, &new, &other);
            assert_eq!(conflicts.len(), 1);
            assert_eq!(
                (conflicts[0].ours.as_str(), conflicts[0].theirs.as_str()),
                ("\"2\"", "\"3\"")
            );
        }
    }

    #[test]
    fn merged_results_are_counted_and_belong_to_the_spec() {
        let spec = check("a.aur", "experiment a { seed = 1 }", None).expect("a valid spec");
        let (old, mut ours, mut theirs) = (made("1"), made("1"), made("1"));
        let name = old.node.keys().next().expect("a node").clone();
        for (side, result) in [(&mut ours, old.intent), (&mut theirs, old.node[&name].key)] {
            side.result.insert(name.clone(), result);
            side.count_results();
        }
        let (joined, conflicts) = merge(Some(&old), &ours, &theirs);
        assert_eq!(conflicts, []);
        let read = Lock::parse(&joined.to_text()).expect("a lock");
        assert!(read.result.is_empty());
        read.check_against(&spec).expect("a lock of the spec");
        let (joined, _) = merge(Some(&old), &ours, &old);
        assert_eq!(Lock::parse(&joined.to_text()), Ok(ours));
    }
}
