//! The kinds of machines that a layout can name, with the properties that checks and plans need.

/// A kind of machine: the value of `layout.machine`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct MachineKind {
    /// The word in specs.
    pub name: &'static str,
    /// None: workers run on CPUs, any number per node.
    pub devices: Option<DeviceKind>,
}

/// The devices of a machine.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct DeviceKind {
    /// The name in messages: `MI250X`.
    pub title: &'static str,
    /// A part of the name by which its driver reports it.
    pub driver_name: &'static str,
    /// On a usual node; `layout.devices` states another number.
    pub per_node: u32,
    /// Memory of one device in bytes.
    pub memory: u64,
}

const fn machine(
    name: &'static str,
    title: &'static str,
    driver_name: &'static str,
    per_node: u32,
    gigabytes: u64,
) -> MachineKind {
    MachineKind {
        name,
        devices: Some(DeviceKind {
            title,
            driver_name,
            per_node,
            memory: gigabytes * 1_000_000_000,
        }),
    }
}

/// All kinds. Sources: LUMI's documentation (an MI250X is two devices of 64 GB); AMD's data sheet of MI300X; NVIDIA's data
/// sheets of A100 80 GB, H100 SXM
/// and H200 SXM.
const MACHINES: [MachineKind; 6] = [
    MachineKind {
        name: "cpu",
        devices: None,
    },
    machine("mi250x", "MI250X", "gfx90a", 8, 64),
    machine("mi300x", "MI300X", "gfx942", 8, 192),
    machine("a100", "A100", "A100", 8, 80),
    machine("h100", "H100", "H100", 8, 80),
    machine("h200", "H200", "H200", 8, 141),
];

impl MachineKind {
    /// The kind with this name; `cpu` for a name that `check` does not accept.
    pub fn named(name: &str) -> Self {
        let found = MACHINES.into_iter().find(|machine| machine.name == name);
        found.unwrap_or(MACHINES[0])
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::schema::{self, Type};

    #[test]
    fn the_schema_has_the_same_kinds() {
        let layout = schema::block(crate::spec::BlockKind::Layout);
        let field = layout.fields.iter().find(|field| field.name == "machine").unwrap();
        let Type::Word(words) = field.kind else {
            panic!("{:?}", field.kind)
        };
        let names: Vec<&str> = words.iter().map(|(name, _)| *name).collect();
        assert_eq!(names, MACHINES.map(|machine| machine.name));
    }
}
