//! Content keys: one walk over a node with two visitors, one that hashes and one that explains.
//!
//! The encoding, version 1, of what is hashed (integers little-endian, lengths before bytes):
//!
//! ```text
//! "aurora key 1\0"
//! 'K' string(kind) u32(version of the kind's meaning)
//! for every field in the byte order of its path:  'F' string(path) value
//! for every input in declared order:              'I' string(role) 32 bytes of the input's key
//! for every unknown value, in order:              'U' string(spec path)
//!
//! string = u64(length) bytes        value = 's' string | 'u' u64 | 'i' i64 | 'b' u8 | '0' | '[' u64(count)
//! ```
//!
//! A list's elements are fields under the path of the list and their index (`files.0`), after the list's count; an
//! object's members are fields under its path. Numbers with a fraction are text (`Exact`), so there is no NaN and no
//! rounding.

use std::collections::BTreeMap;
use std::fmt::{self, Write};

use serde::{Deserialize, Serialize};
use serde_json::Value;

use crate::graph::{Graph, Input, Node, NodeId, Role, Work};

/// The content key of a node: BLAKE3 of the encoding above. Nodes with equal keys do the same work.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Key([u8; 32]);

impl Key {
    pub fn to_hex(self) -> String {
        blake3::Hash::from_bytes(self.0).to_hex().to_string()
    }

    /// Reads 64 hexadecimal digits.
    pub fn from_hex(text: &str) -> Option<Self> {
        blake3::Hash::from_hex(text).ok().map(|hash| Self(*hash.as_bytes()))
    }
}

impl fmt::Display for Key {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.to_hex())
    }
}

impl fmt::Debug for Key {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.to_hex()[..12])
    }
}

impl schemars::JsonSchema for Key {
    fn schema_name() -> std::borrow::Cow<'static, str> {
        "Key".into()
    }

    fn json_schema(_: &mut schemars::SchemaGenerator) -> schemars::Schema {
        schemars::json_schema!({ "type": "string", "pattern": "^[0-9a-f]{64}$" })
    }
}

impl Serialize for Key {
    fn serialize<S: serde::Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(self)
    }
}

impl<'de> Deserialize<'de> for Key {
    fn deserialize<D: serde::Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let text = String::deserialize(deserializer)?;
        Self::from_hex(&text).ok_or_else(|| serde::de::Error::custom("a key is 64 hexadecimal digits"))
    }
}

/// Receives everything that a key is computed from.
pub trait KeyVisitor {
    fn enter(&mut self, kind: &str, version: u32);
    /// `value` is a scalar, or the count of a list.
    fn field(&mut self, path: &str, value: Scalar<'_>);
    fn input(&mut self, role: &str, name: &str, key: Key);
    fn unknown(&mut self, path: &str);
}

/// A leaf of a node's fields.
#[derive(Clone, Copy, Debug)]
pub enum Scalar<'a> {
    Text(&'a str),
    Unsigned(u64),
    Signed(i64),
    Bool(bool),
    Null,
    Count(u64),
}

/// Visits a node's kind and fields.
fn visit_work(node: &Node, to: &mut dyn KeyVisitor) {
    to.enter(node.kind().name(), node.version);
    for (path, scalar) in flatten(&encoded(&node.work)) {
        to.field(&path, scalar);
    }
}

/// Visits the rest of a node: `inputs` are those in the key, with their names and keys.
fn visit_inputs<'a>(node: &Node, inputs: impl IntoIterator<Item = (&'a Role, &'a str, Key)>, to: &mut dyn KeyVisitor) {
    for (role, name, key) in inputs {
        to.input(&role.name(), name, key);
    }
    for path in &node.unknown {
        to.unknown(path);
    }
}

/// The fields of a node's work in the form that is hashed: the struct as JSON, with these differences.
///
/// | Kind | Encoded | In the struct |
/// |---|---|---|
/// | `train` | `first_step`, always 0 | absent: removing it from the encoding would change every key of a checkpoint |
///
/// A new field must be left out of the encoding at its default (`skip_serializing_if`), or the kind's version rises.
pub fn encoded(work: &Work) -> Value {
    fn plain(fields: &impl Serialize) -> Value {
        serde_json::to_value(fields).expect("the fields of a node are plain data with text keys")
    }
    match work {
        Work::Source(fields) => plain(fields),
        Work::Extract(fields) => plain(fields),
        Work::Filter(fields) => plain(fields),
        Work::Tokenizer(fields) => plain(fields),
        Work::Tokens(fields) => plain(fields),
        Work::Order(fields) => plain(fields),
        Work::Weights(fields) => plain(fields),
        Work::Train(fields) => {
            let mut fields = plain(fields);
            fields["first_step"] = 0.into();
            fields
        }
        Work::Eval(fields) | Work::Answers(fields) => plain(fields),
        Work::Judge(fields) => plain(fields),
        Work::Expect(fields) => plain(fields),
        Work::Report(fields) => plain(fields),
    }
}

/// The leaves of a node's fields, sorted by path.
fn flatten(fields: &Value) -> Vec<(String, Scalar<'_>)> {
    let mut leaves = Vec::new();
    collect(&mut String::new(), fields, &mut leaves);
    leaves.sort_unstable_by(|(left, _), (right, _)| left.cmp(right));
    leaves
}

fn collect<'a>(path: &mut String, value: &'a Value, leaves: &mut Vec<(String, Scalar<'a>)>) {
    let mut below = |name: &dyn fmt::Display, value: &'a Value, leaves: &mut Vec<(String, Scalar<'a>)>| {
        let length = path.len();
        let dot = if path.is_empty() { "" } else { "." };
        let _ = write!(path, "{dot}{name}");
        collect(path, value, leaves);
        path.truncate(length);
    };
    let scalar = match value {
        Value::Object(members) => {
            for (name, member) in members {
                below(name, member, leaves);
            }
            return;
        }
        Value::Array(elements) => {
            for (index, element) in elements.iter().enumerate() {
                below(&index, element, leaves);
            }
            Scalar::Count(elements.len() as u64)
        }
        Value::String(text) => Scalar::Text(text),
        Value::Bool(value) => Scalar::Bool(*value),
        Value::Null => Scalar::Null,
        Value::Number(number) => match (number.as_u64(), number.as_i64()) {
            (Some(value), _) => Scalar::Unsigned(value),
            (None, Some(value)) => Scalar::Signed(value),
            (None, None) => unreachable!("fields hold whole numbers; fractions are `Exact`, which is text"),
        },
    };
    leaves.push((path.clone(), scalar));
}

#[derive(Clone)]
struct Hashing(blake3::Hasher);

impl Hashing {
    fn string(&mut self, text: &str) {
        self.0.update(&(text.len() as u64).to_le_bytes());
        self.0.update(text.as_bytes());
    }
}

impl KeyVisitor for Hashing {
    fn enter(&mut self, kind: &str, version: u32) {
        self.0.update(b"K");
        self.string(kind);
        self.0.update(&version.to_le_bytes());
    }

    fn field(&mut self, path: &str, value: Scalar<'_>) {
        self.0.update(b"F");
        self.string(path);
        match value {
            Scalar::Text(text) => {
                self.0.update(b"s");
                self.string(text);
            }
            Scalar::Unsigned(value) => {
                self.0.update(b"u").update(&value.to_le_bytes());
            }
            Scalar::Signed(value) => {
                self.0.update(b"i").update(&value.to_le_bytes());
            }
            Scalar::Bool(value) => {
                self.0.update(&[b'b', u8::from(value)]);
            }
            Scalar::Null => {
                self.0.update(b"0");
            }
            Scalar::Count(count) => {
                self.0.update(b"[").update(&count.to_le_bytes());
            }
        }
    }

    fn input(&mut self, role: &str, _name: &str, key: Key) {
        self.0.update(b"I");
        self.string(role);
        self.0.update(&key.0);
    }

    fn unknown(&mut self, path: &str) {
        self.0.update(b"U");
        self.string(path);
    }
}

/// What a key is the hash of, in readable form (the pre-image of the hash): kept with every result, so that a later change
/// can be explained, and printed by `aurora why`.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Preimage {
    pub kind: String,
    pub version: u32,
    pub fields: BTreeMap<String, String>,
    pub inputs: Vec<PreimageInput>,
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub unknown: Vec<String>,
    /// The values of the spec that these fields came from, by spec path. Not hashed: only for explanations.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub spec: BTreeMap<String, String>,
}

/// An input in a pre-image.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct PreimageInput {
    pub role: String,
    pub name: String,
    pub key: Key,
}

struct Explaining(Preimage);

impl KeyVisitor for Explaining {
    fn enter(&mut self, kind: &str, version: u32) {
        self.0.kind = kind.to_string();
        self.0.version = version;
    }

    fn field(&mut self, path: &str, value: Scalar<'_>) {
        let text = match value {
            Scalar::Text(text) => text.to_string(),
            Scalar::Unsigned(value) => value.to_string(),
            Scalar::Signed(value) => value.to_string(),
            Scalar::Bool(value) => value.to_string(),
            Scalar::Null => "null".to_string(),
            Scalar::Count(count) => format!("[{count}]"),
        };
        self.0.fields.insert(path.to_string(), text);
    }

    fn input(&mut self, role: &str, name: &str, key: Key) {
        self.0.inputs.push(PreimageInput {
            role: role.to_string(),
            name: name.to_string(),
            key,
        });
    }

    fn unknown(&mut self, path: &str) {
        self.0.unknown.push(path.to_string());
    }
}

/// A graph whose nodes have their keys.
#[derive(Clone, Debug)]
pub struct Keyed {
    pub graph: Graph,
    keys: Vec<Key>,
    /// The nodes whose results depend on the numerics class of the machine, by index.
    classed: Vec<bool>,
}

impl Keyed {
    pub fn key(&self, id: NodeId) -> Key {
        self.keys[id.index()]
    }

    /// Whether the node's result depends on the numerics class of the machine: workers compute it, or one of its inputs.
    pub fn has_class(&self, id: NodeId) -> bool {
        self.classed[id.index()]
    }

    /// Returns the pre-image of the node's key.
    pub fn preimage(&self, id: NodeId) -> Preimage {
        let node = self.graph.node(id);
        let inputs = identity_inputs(&self.graph, id);
        let named = inputs
            .iter()
            .map(|input| (&input.role, self.graph.node(input.node).name(), self.key(input.node)));
        let mut listener = Explaining(Preimage::default());
        visit_work(node, &mut listener);
        visit_inputs(node, named, &mut listener);
        listener.0.spec = node.spec_values.as_ref().clone();
        listener.0
    }

    /// Returns the key that the node would have if its inputs were identified by the `digests` of their results. Two
    /// nodes with equal realised keys have equal results, even if their inputs were computed in different ways.
    pub fn realised(&self, id: NodeId, digests: &dyn Fn(NodeId) -> Key) -> Key {
        let node = self.graph.node(id);
        finish(
            hash_work(RESULT_DOMAIN, node),
            node,
            &identity_inputs(&self.graph, id),
            digests,
        )
    }
}

/// The inputs that are part of a node's key, in their order.
fn identity_inputs(graph: &Graph, id: NodeId) -> Vec<Input> {
    graph.inputs(id).filter(|input| input.role.is_identity()).collect()
}

/// The hash of a domain and of a node up to its inputs.
fn hash_work(domain: &str, node: &Node) -> Hashing {
    let mut listener = Hashing(blake3::Hasher::new());
    listener.0.update(domain.as_bytes());
    visit_work(node, &mut listener);
    listener
}

/// Completes the hash of a node whose inputs have these keys.
fn finish(mut listener: Hashing, node: &Node, inputs: &[Input], key: impl Fn(NodeId) -> Key) -> Key {
    let inputs = inputs.iter().map(|input| (&input.role, "", key(input.node)));
    visit_inputs(node, inputs, &mut listener);
    Key(*listener.0.finalize().as_bytes())
}

const KEY_DOMAIN: &str = "aurora key 1\0";
const RESULT_DOMAIN: &str = "aurora result 1\0";

/// Gives every node its key. Inputs come before their users in a graph, so one pass is enough.
pub fn hash(graph: Graph) -> Keyed {
    let mut keys: Vec<Key> = Vec::with_capacity(graph.len());
    let mut classed: Vec<bool> = Vec::with_capacity(graph.len());
    for id in graph.ids() {
        let node = graph.node(id);
        let inputs = identity_inputs(&graph, id);
        classed.push(node.kind().runs_on_workers() || inputs.iter().any(|input| classed[input.node.index()]));
        keys.push(finish(hash_work(KEY_DOMAIN, node), node, &inputs, |input| {
            keys[input.index()]
        }));
    }
    Keyed { graph, keys, classed }
}

/// A keyed graph that speeds up hashing similar graphs: it keeps the hash of every node up to its inputs.
pub struct Base {
    keyed: Keyed,
    works: Vec<Hashing>,
}

impl Base {
    pub fn of(keyed: Keyed) -> Self {
        let nodes = keyed.graph.ids().map(|id| keyed.graph.node(id));
        let works = nodes.map(|node| hash_work(KEY_DOMAIN, node)).collect();
        Self { keyed, works }
    }

    pub fn graph(&self) -> &Graph {
        &self.keyed.graph
    }

    /// Keys of all nodes, in the graph's order, after these nodes replace those of the graph.
    pub fn keys_with(&self, changed: &[(NodeId, Node)]) -> Vec<Key> {
        let mut keys = self.keyed.keys.clone();
        let graph = &self.keyed.graph;
        for id in graph.ids() {
            let other = changed.iter().find(|(changed, _)| *changed == id).map(|(_, node)| node);
            let inputs = identity_inputs(graph, id);
            let has_moved = |input: &Input| keys[input.node.index()] != self.keyed.key(input.node);
            if other.is_none() && !inputs.iter().any(has_moved) {
                continue;
            }
            let work = match other {
                Some(node) => hash_work(KEY_DOMAIN, node),
                None => self.works[id.index()].clone(),
            };
            let node = other.unwrap_or_else(|| graph.node(id));
            keys[id.index()] = finish(work, node, &inputs, |input| keys[input.index()]);
        }
        keys
    }
}

/// The content of a source, as pins and keys have it: BLAKE3 of the manifest of its files, also of a single one, so that a
/// renamed file changes it. Each file has a name relative to the source's root, a length in bytes and a BLAKE3. The order
/// of the files counts: pins have them sorted by name.
///
/// ```text
/// for every file:  u64(length of the name) name u64(bytes) 32 bytes of BLAKE3        integers little-endian
/// ```
pub fn source_content<'a>(files: impl IntoIterator<Item = (&'a str, u64, [u8; 32])>) -> Key {
    let mut manifest = blake3::Hasher::new();
    for (name, bytes, hash) in files {
        manifest.update(&(name.len() as u64).to_le_bytes());
        manifest.update(name.as_bytes());
        manifest.update(&bytes.to_le_bytes());
        manifest.update(&hash);
    }
    Key(*manifest.finalize().as_bytes())
}

/// Returns the digest of a node's outputs: BLAKE3 over the sorted names and contents of its files.
pub fn digest_of<'a>(files: impl IntoIterator<Item = (&'a str, u64, &'a str)>) -> Key {
    let mut sorted: Vec<_> = files.into_iter().collect();
    sorted.sort_unstable();
    let mut hasher = Hashing(blake3::Hasher::new());
    hasher.0.update(b"aurora output 1\0");
    for (name, bytes, content) in sorted {
        hasher.string(name);
        hasher.0.update(&bytes.to_le_bytes());
        hasher.string(content);
    }
    Key(*hasher.0.finalize().as_bytes())
}
