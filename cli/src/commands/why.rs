//! `aurora why`: the reason for a node's state, and what its key is made of.

use aurora_compiler::plan::plan;
use aurora_runtime::store::Store;
use serde_json::json;

use crate::arguments::SpecArgument;
use crate::context::Context;
use crate::failure::{Exit, Failure};
use crate::numerics::results_to_plan;
use crate::output;
use crate::plan_nodes::state_name;
use crate::project::compile;
use crate::stdio::{errln, outln};

pub fn run(context: &Context, argument: &SpecArgument, name: &str) -> Result<Exit, Failure> {
    let (project, loaded) = context.open(argument)?;
    let (keyed, _, lock) = compile(&project, &loaded.spec)?;
    let name = name.strip_prefix(&format!("{}/", loaded.spec.name)).unwrap_or(name);
    let Some(id) = keyed.graph.find(name) else {
        let near = aurora_compiler::names::nearest(name, keyed.graph.names());
        let failure = Failure::error(format!("there is no node `{name}` in `{}`", loaded.spec.name));
        return Err(match near {
            Some(near) => failure.help(format!("a node with a similar name exists: `{near}`")),
            None => failure.help("`aurora build SPEC` lists the nodes"),
        });
    };
    let store = Store::open_read_only(&project.store)?;
    let (results, note) = results_to_plan(&store, &loaded.spec, &keyed, lock.as_ref())?;
    let plan = plan(&keyed, &results)?;
    if let Some(note) = note {
        errln!("{note}");
    }
    let planned = &plan.nodes[id.index()];
    // The first cause is the node where the chain of changed inputs begins.
    let mut causes = Vec::new();
    let mut seen = std::collections::BTreeSet::new();
    let mut open = vec![id];
    while let Some(at) = open.pop() {
        if !seen.insert(at) || plan.nodes[at.index()].reason.is_none() {
            continue;
        }
        let own: Vec<String> = plan.nodes[at.index()]
            .changes()
            .iter()
            .filter(|change| !matches!(change, aurora_compiler::why::KeyChange::Input { .. }))
            .map(ToString::to_string)
            .collect();
        if !own.is_empty() && at != id {
            causes.push((keyed.graph.node(at).name().to_owned(), own));
        }
        open.extend(
            keyed
                .graph
                .inputs(at)
                .filter(|input| input.role.is_identity())
                .map(|input| input.node),
        );
    }
    causes.sort();
    let preimage = keyed.preimage(id);
    if context.json {
        output::json(json!({
            "name": name,
            "key": keyed.key(id),
            "state": planned.state(),
            "reason": planned.explanation(),
            "changes": planned.changes(),
            "first_causes": causes.iter().map(|(node, why)| json!({ "node": node, "changes": why })).collect::<Vec<_>>(),
            "preimage": preimage,
        }))?;
        return Ok(Exit::Done);
    }
    outln!("{name}: {}", state_name(planned.state()))?;
    if let Some(reason) = planned.explanation() {
        outln!("  because {reason}")?;
    }
    for (node, why) in &causes {
        outln!("  first cause in {node}: {}", why.join("; "))?;
    }
    outln!("key {}", keyed.key(id))?;
    outln!("  kind = {} (version {})", preimage.kind, preimage.version)?;
    for (path, value) in &preimage.fields {
        outln!("  {path} = {value}")?;
    }
    for input in &preimage.inputs {
        outln!("  {} ← {} {}", input.role, input.name, &input.key.to_hex()[..12])?;
    }
    Ok(Exit::Done)
}
