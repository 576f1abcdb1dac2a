//! Joins the blocks of all files to one list, and collects the changes to apply to them.

use std::collections::BTreeSet;

use aurora_lang::ast::{Block, Body, Entry, Field, Name, StatementKind};
use aurora_lang::diagnostics::{Code, Diagnostic, sort};
use aurora_lang::keywords::STATEMENTS;
use aurora_lang::parse::Heading;

use super::names::{Names, Target};
use super::references::{references, words};
use super::sweep::{Sweep, distinct, experiment_at_point};
use super::{Bundle, Choice, SweepPoint};
use crate::names::{applicability, nearest};
use crate::schema;

/// The input of `check`: one list of blocks, without names of `let` and `param` in their values.
#[derive(Clone, Debug)]
pub(crate) struct Flat {
    pub blocks: Vec<Block>,
    /// The changes to apply to the blocks, in order.
    pub layers: Vec<SpecLayer>,
    pub profiles: Vec<Block>,
    pub sweeps: Vec<Sweep>,
    /// The blocks with syntax errors.
    pub broken: Vec<Heading>,
}

/// A set of changes to values of the blocks.
#[derive(Clone, Debug)]
pub(crate) struct SpecLayer {
    pub kind: LayerKind,
    pub entries: Vec<Entry>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum LayerKind {
    /// Applied to the blocks.
    Applied,
    /// A profile or a value of a sweep that is not chosen: only checked for errors.
    Checked,
}

/// The changes that a spec may have, from lowest to highest precedence. `--set` comes after all of them.
struct Changes<'b> {
    /// The file of the spec, the file that it extends, and so on.
    chain: &'b [usize],
    /// Each with the index of its file.
    profiles: &'b [(usize, &'b Block)],
    /// The chosen one.
    profile: Option<&'b str>,
    sweeps: &'b [Sweep],
    point: Option<&'b SweepPoint>,
}

impl Changes<'_> {
    /// The changes of the chosen point.
    fn of_point(&self) -> Option<Vec<Field>> {
        let point = self.point?;
        let sweep = self.sweeps.iter().find(|sweep| sweep.name.text == point.sweep)?;
        Some(sweep.fields(point.index()))
    }
}

impl Flat {
    /// Every word of the changes, including those of profiles and points that are not chosen.
    pub fn words(&self) -> BTreeSet<String> {
        let mut found = Vec::new();
        for layer in &self.layers {
            words(&layer.entries, &mut found);
        }
        found.into_iter().map(str::to_owned).collect()
    }
}

impl Bundle {
    /// Joins the files to one list of blocks.
    ///
    /// # Errors
    /// Every error of the composition: import cycles, ambiguous names, values that a parameter does not allow, invalid
    /// sweeps.
    pub(crate) fn flatten(&self, choice: &Choice<'_>) -> Result<Flat, Vec<Diagnostic>> {
        match self.join(choice) {
            (flat, None) => Ok(flat),
            (_, Some(errors)) => Err(errors),
        }
    }

    /// As [`flatten`](Self::flatten), but returns what could be joined also if there are errors.
    pub(crate) fn join(&self, choice: &Choice<'_>) -> (Flat, Option<Vec<Diagnostic>>) {
        let mut errors: Vec<Diagnostic> = self.errors.clone();
        let is_broken = |heading: &Heading| STATEMENTS.contains(&heading.keyword.as_str());
        let incomplete = self.files.iter().any(|file| file.parsed.broken.iter().any(is_broken));
        let chain = self.chain(&mut errors);
        let mut names = Names::of(self);
        let mut flat = Flat {
            blocks: Vec::new(),
            layers: Vec::new(),
            profiles: Vec::new(),
            sweeps: Vec::new(),
            broken: self.files.iter().flat_map(|file| file.parsed.broken.clone()).collect(),
        };
        let profiles = self.profiles(&chain, &names);
        let (sweeps, point) = self.sweeps(&mut names, choice, &mut errors);
        let changes = Changes {
            chain: &chain,
            profiles: &profiles,
            profile: choice.profile,
            point: point.as_ref(),
            sweeps: &sweeps,
        };
        self.set_parameters(&mut names, &changes, &mut errors);
        self.collect_blocks(&mut names, &chain, &mut flat.blocks);
        self.collect_layers(&mut names, &changes, &mut flat);
        flat.sweeps = sweeps;
        if let Some(point) = &point {
            rename_experiment(&mut flat, &point.name);
        }
        names.check_all();
        errors.append(&mut names.errors);
        if errors.is_empty() && !incomplete {
            return (flat, None);
        }
        for file in &self.files {
            errors.extend(file.parsed.errors.iter().cloned());
        }
        sort(&mut errors);
        (flat, Some(errors))
    }

    /// Every point of the sweeps of a spec. Sweeps with errors have no points.
    pub fn points(&self) -> Vec<SweepPoint> {
        let mut names = Names::of(self);
        let (sweeps, _) = self.sweeps(&mut names, &Choice::default(), &mut Vec::new());
        sweeps.iter().flat_map(Sweep::points).collect()
    }

    /// The file of the spec, the file that it extends, and so on.
    fn chain(&self, errors: &mut Vec<Diagnostic>) -> Vec<usize> {
        let mut chain = vec![0];
        while let Some(&file) = chain.last() {
            let loaded = &self.files[file];
            let mut extends =
                loaded
                    .parsed
                    .file
                    .statements
                    .iter()
                    .zip(&loaded.targets)
                    .filter_map(|(statement, target)| match &statement.kind {
                        StatementKind::Extends { path, .. } => Some((path, *target)),
                        _ => None,
                    });
            let first = extends.next();
            if let (Some((first, _)), Some((second, _))) = (&first, extends.next()) {
                errors.push(
                    Diagnostic::new(Code::BAD_EXTENDS, "a file can extend only one other file")
                        .label(second.span, "the second one")
                        .label(first.span, "the first one")
                        .help("import what is needed from the other by name"),
                );
            }
            match first {
                Some((_, Some(target))) if !chain.contains(&target) => chain.push(target),
                _ => break,
            }
        }
        chain
    }

    fn blocks_of<'b>(&'b self, file: usize, keyword: &'static str) -> impl Iterator<Item = &'b Block> {
        let items = &self.files[file].parsed.file.items;
        items.iter().filter(move |block| block.keyword.text == keyword)
    }

    /// The profiles of the spec, of the files that it extends, and the imported ones, each with the index of its file.
    fn profiles<'b>(&'b self, chain: &[usize], names: &Names<'b>) -> Vec<(usize, &'b Block)> {
        let mut found: Vec<(usize, &Block)> = Vec::new();
        for &file in chain {
            found.extend(self.blocks_of(file, "profile").map(|block| (file, block)));
        }
        for name in self.imported(0) {
            for &target in names.targets(0, &name.text) {
                if let (Target::Block(file, _), Some(block)) = (target, names.block(target))
                    && block.keyword.text == "profile"
                    && !chain.contains(&file)
                {
                    found.push((file, block));
                }
            }
        }
        found
    }

    /// The names in the braces of the imports of a file.
    fn imported(&self, file: usize) -> impl Iterator<Item = &Name> {
        let statements = self.files[file].parsed.file.statements.iter();
        statements
            .filter_map(|statement| match &statement.kind {
                StatementKind::Import { names, .. } => names.as_ref(),
                _ => None,
            })
            .flatten()
    }

    fn sweeps(
        &self,
        names: &mut Names<'_>,
        choice: &Choice<'_>,
        errors: &mut Vec<Diagnostic>,
    ) -> (Vec<Sweep>, Option<SweepPoint>) {
        let mut sweeps: Vec<Sweep> = Vec::new();
        let errors_before = errors.len();
        for block in self.blocks_of(0, "sweep") {
            if let Some(first) = sweeps.iter().find(|sweep| sweep.name.text == block.name.text) {
                let message = format!("there are two sweeps `{}`", block.name.text);
                errors.push(
                    Diagnostic::new(Code::DUPLICATE_BLOCK, message)
                        .label(block.name.span, "declared again")
                        .label(first.name.span, "declared here first")
                        .help("rename one of them, or remove it"),
                );
                continue;
            }
            let mut block = block.clone();
            names.replace_block(0, &mut block);
            sweeps.extend(Sweep::read(&block, errors));
        }
        if errors.len() == errors_before {
            distinct(&sweeps, errors);
        }
        let Some(wanted) = choice.point else {
            return (sweeps, None);
        };
        let experiment = self
            .blocks_of(0, "experiment")
            .next()
            .map(|block| block.name.text.as_str());
        let is_wanted = |point: &SweepPoint| {
            point.name == wanted
                || experiment
                    .and_then(|experiment| wanted.strip_prefix(experiment)?.strip_prefix('_'))
                    .is_some_and(|name| name == point.name)
        };
        let found = sweeps.iter().flat_map(Sweep::points).find(is_wanted);
        if found.is_none() && errors.len() == errors_before {
            let points: Vec<String> = sweeps.iter().flat_map(Sweep::points).map(|point| point.name).collect();
            let diagnostic = Diagnostic::new(Code::UNKNOWN_POINT, format!("no point is called `{wanted}`"));
            errors.push(match nearest(wanted, points.iter().map(String::as_str)) {
                Some(near) => diagnostic.help(format!("a point with a similar name exists: `{near}`")),
                None if points.is_empty() => diagnostic.help("the file has no sweep"),
                None => {
                    let first: Vec<String> = points.iter().take(10).map(|point| format!("`{point}`")).collect();
                    diagnostic.help(format!("there are {}: {}", points.len(), first.join(", ")))
                }
            });
        }
        (sweeps, found)
    }

    /// Sets every parameter to its chosen value, and checks the values that are not chosen.
    fn set_parameters(&self, names: &mut Names<'_>, changes: &Changes<'_>, errors: &mut Vec<Diagnostic>) {
        let mut chosen: Vec<(usize, Field)> = Vec::new();
        let mut checked: Vec<(usize, Field)> = Vec::new();
        for &file in changes.chain.iter().rev() {
            for statement in &self.files[file].parsed.file.statements {
                if let StatementKind::Extends { entries, .. } = &statement.kind {
                    chosen.extend(param_fields(entries).map(|field| (file, field.clone())));
                }
            }
        }
        for (file, profile) in changes.profiles {
            let Body::Entries(entries) = &profile.body else {
                continue;
            };
            let is_chosen = changes.profile == Some(profile.name.text.as_str());
            let to = if is_chosen { &mut chosen } else { &mut checked };
            to.extend(param_fields(entries).map(|field| (*file, field.clone())));
        }
        for sweep in changes.sweeps {
            for (path, values) in sweep.dimensions.iter().flat_map(|dimension| &dimension.paths) {
                if path.len() > 1 {
                    continue;
                }
                if names.param(0, &path[0].text).is_none() {
                    errors.push(no_param(&path[0], names));
                }
                checked.extend(values.iter().map(|value| {
                    let field = Field {
                        path: path.clone(),
                        value: value.clone(),
                        span: value.span,
                    };
                    (0, field)
                }));
            }
        }
        if let Some(fields) = changes.of_point() {
            let fields = fields.into_iter();
            chosen.extend(fields.filter(|field| field.path.len() == 1).map(|field| (0, field)));
        }
        let mut earlier: Vec<&Field> = Vec::new();
        for field in &self.settings {
            let path = |field: &Field| field.path.iter().map(|name| name.text.clone()).collect::<Vec<_>>();
            if let Some(first) = earlier.iter().find(|first| path(first) == path(field)) {
                errors.push(
                    Diagnostic::new(Code::BAD_SETTING, format!("`{}` is set twice", path(field).join(".")))
                        .label(field.span, "set again")
                        .label(first.span, "set here first")
                        .help("use `--set` once for each name"),
                );
            }
            earlier.push(field);
            let [name] = field.path.as_slice() else { continue };
            if names.param(0, &name.text).is_none() {
                errors.push(no_param(name, names));
            }
            chosen.push((0, field.clone()));
        }
        for (file, field) in chosen {
            if let Some(param) = names.param(file, &field.path[0].text) {
                names.set_param(param, file, field.value);
            }
        }
        for (file, field) in checked {
            if let Some(param) = names.param(file, &field.path[0].text) {
                names.check_param(param, file, &field.value);
            }
        }
    }

    /// Collects the blocks of the spec, of the files that it extends, the imported ones, and all blocks that these refer to.
    fn collect_blocks(&self, names: &mut Names<'_>, chain: &[usize], blocks: &mut Vec<Block>) {
        let mut collected: BTreeSet<Target> = BTreeSet::new();
        let mut wanted: Vec<Target> = Vec::new();
        for &file in chain {
            wanted.extend((0..self.files[file].parsed.file.items.len()).map(|index| Target::Block(file, index)));
            for name in self.imported(file) {
                wanted.extend(names.targets(file, &name.text).iter().copied());
            }
            // Changes may refer to other blocks.
            let mut found = Vec::new();
            for statement in &self.files[file].parsed.file.statements {
                if let StatementKind::Extends { entries, .. } = &statement.kind {
                    words(entries, &mut found);
                }
            }
            for keyword in ["profile", "sweep"] {
                for block in self.blocks_of(file, keyword) {
                    if let Body::Entries(entries) = &block.body {
                        words(entries, &mut found);
                    }
                }
            }
            for word in found {
                wanted.extend(names.targets(file, word).iter().copied());
            }
        }
        let settings: Vec<Entry> = self.settings.iter().cloned().map(Entry::Field).collect();
        let mut found = Vec::new();
        words(&settings, &mut found);
        for word in found {
            wanted.extend(names.targets(0, word).iter().copied());
        }
        wanted.reverse();
        let mut experiments: Vec<Block> = Vec::new();
        while let Some(target) = wanted.pop() {
            let (Target::Block(file, _), Some(block)) = (target, names.block(target)) else {
                continue;
            };
            if matches!(block.keyword.text.as_str(), "profile" | "sweep") || !collected.insert(target) {
                continue;
            }
            let mut block = block.clone();
            names.replace_block(file, &mut block);
            for (kinds, word) in references(&block) {
                let fits = |target: &Target| {
                    let keyword = names.block(*target).map(|block| block.keyword.text.as_str());
                    keyword.and_then(schema::kind).is_some_and(|kind| kinds.contains(&kind))
                };
                wanted.extend(names.targets(file, &word).iter().copied().filter(fits));
            }
            if block.keyword.text == "experiment" && file != 0 && chain.contains(&file) {
                experiments.push(block);
            } else {
                blocks.push(block);
            }
        }
        inherit(blocks, &experiments);
    }

    /// Collects the changes to apply, and those to check.
    fn collect_layers(&self, names: &mut Names<'_>, changes: &Changes<'_>, flat: &mut Flat) {
        let mut layer = |names: &mut Names<'_>, file: usize, kind: LayerKind, entries: &[Entry]| {
            let is_param = |entry: &Entry| matches!(entry, Entry::Field(field) if field.path.len() == 1 && names.param(file, &field.path[0].text).is_some());
            let mut entries: Vec<Entry> = entries.iter().filter(|entry| !is_param(entry)).cloned().collect();
            names.replace_entries(file, &mut entries);
            flat.layers.push(SpecLayer { kind, entries });
        };
        for &file in changes.chain.iter().rev() {
            for statement in &self.files[file].parsed.file.statements {
                if let StatementKind::Extends { entries, .. } = &statement.kind {
                    layer(names, file, LayerKind::Applied, entries);
                }
            }
        }
        for (file, profile) in changes.profiles {
            let Body::Entries(entries) = &profile.body else {
                continue;
            };
            let kind = if changes.profile == Some(profile.name.text.as_str()) {
                LayerKind::Applied
            } else {
                LayerKind::Checked
            };
            layer(names, *file, kind, entries);
        }
        for sweep in changes.sweeps {
            for (path, values) in sweep.dimensions.iter().flat_map(|dimension| &dimension.paths) {
                for value in values.iter().filter(|_| path.len() > 1) {
                    let field = Field {
                        path: path.clone(),
                        value: value.clone(),
                        span: value.span,
                    };
                    layer(names, 0, LayerKind::Checked, &[Entry::Field(field)]);
                }
            }
        }
        if let Some(fields) = changes.of_point() {
            let entries: Vec<Entry> = fields.into_iter().map(Entry::Field).collect();
            layer(names, 0, LayerKind::Applied, &entries);
        }
        let settings: Vec<Entry> = self.settings.iter().cloned().map(Entry::Field).collect();
        layer(names, 0, LayerKind::Applied, &settings);
        flat.profiles = changes.profiles.iter().map(|(_, block)| (*block).clone()).collect();
    }
}

/// Fields with a single name: values of parameters.
fn param_fields(entries: &[Entry]) -> impl Iterator<Item = &Field> {
    entries.iter().filter_map(|entry| match entry {
        Entry::Field(field) if field.path.len() == 1 => Some(field),
        _ => None,
    })
}

fn no_param(name: &Name, names: &Names<'_>) -> Diagnostic {
    let diagnostic = Diagnostic::new(Code::BAD_SETTING, format!("no parameter is called `{}`", name.text))
        .label(name.span, "unknown parameter");
    let known: Vec<&str> = names.params(0).collect();
    match nearest(&name.text, known.iter().copied()) {
        Some(near) => diagnostic.help_edit(
            format!("a parameter with a similar name exists: `{near}`"),
            name.span,
            near,
            applicability(&name.text, near, known.iter().copied()),
        ),
        None if known.is_empty() => {
            diagnostic.help("the spec has no `param`; set a value by its path, such as `stage.cap.budget`")
        }
        None => {
            let known: Vec<String> = known.iter().map(|name| format!("`{name}`")).collect();
            diagnostic.help(format!("there are: {}; set a value by its path", known.join(", ")))
        }
    }
}

/// Adds the fields that an experiment inherits from the experiments that it extends.
fn inherit(blocks: &mut [Block], bases: &[Block]) {
    let Some(own) = blocks.iter_mut().find(|block| block.keyword.text == "experiment") else {
        return;
    };
    let Body::Entries(entries) = &mut own.body else { return };
    for base in bases {
        let Body::Entries(inherited) = &base.body else { continue };
        for entry in inherited {
            let name = |entry: &Entry| match entry {
                Entry::Field(field) => Some(field.path.iter().map(|name| name.text.clone()).collect::<Vec<_>>()),
                _ => None,
            };
            if !entries.iter().any(|own| name(own) == name(entry)) {
                entries.push(entry.clone());
            }
        }
    }
}

/// Renames the experiment of a point, and the references to it.
fn rename_experiment(flat: &mut Flat, point: &str) {
    let own = flat.blocks.iter_mut().find(|block| block.keyword.text == "experiment");
    let Some(own) = own else { return };
    let old = own.name.text.clone();
    own.name.text = experiment_at_point(&old, point);
    let new = own.name.text.clone();
    for layer in &mut flat.layers {
        for entry in &mut layer.entries {
            match entry {
                Entry::Field(field) => {
                    if let [kind, name, ..] = field.path.as_mut_slice()
                        && kind.text == "experiment"
                        && name.text == old
                    {
                        name.text.clone_from(&new);
                    }
                }
                Entry::Block(block) if block.keyword.text == "experiment" && block.name.text == old => {
                    block.name.text.clone_from(&new);
                }
                Entry::Block(_) | Entry::Component(_) => {}
            }
        }
    }
}
