//! The `#SBATCH` lines of a batch script.

use super::text::{SourceText, at};

/// An option of an `#SBATCH` line.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct SbatchOption {
    pub value: String,
    pub line: u32,
    /// The option as in the script.
    pub option: String,
}

#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct SbatchOptions {
    pub nodes: Option<SbatchOption>,
    /// Devices per node, such as `8`, `mi250:8`, `gpu:8`.
    pub devices: Option<SbatchOption>,
    pub tasks_per_node: Option<SbatchOption>,
}

impl SbatchOptions {
    /// Reads the lines like sbatch: those that start with `#SBATCH`. The last value of an option is used.
    pub fn read(script: &str) -> Self {
        let mut batch = Self::default();
        for (line, text) in (1..).zip(script.lines()) {
            let Some(options) = text
                .strip_prefix("#SBATCH")
                .filter(|rest| rest.starts_with([' ', '\t']))
            else {
                continue;
            };
            // Text after another `#` is a comment.
            let mut words = options.split_whitespace().take_while(|word| !word.starts_with('#'));
            while let Some(word) = words.next() {
                let (option, value) = match word.split_once('=') {
                    Some((option, value)) => (option, value.to_owned()),
                    None if word.len() > 2
                        && word.starts_with('-')
                        && !word.starts_with("--")
                        && word.is_char_boundary(2) =>
                    {
                        (&word[..2], word[2..].to_owned())
                    }
                    None if is_read(word) => (word, words.next().unwrap_or_default().to_owned()),
                    None => continue,
                };
                let found = SbatchOption {
                    value,
                    line,
                    option: format!("#SBATCH {option}"),
                };
                match option {
                    "--nodes" | "-N" => batch.nodes = Some(found),
                    "--gpus-per-node" | "--gres" => batch.devices = Some(found),
                    "--ntasks-per-node" => batch.tasks_per_node = Some(found),
                    _ => {}
                }
            }
        }
        batch
    }

    /// The environment variables that Slurm sets according to these lines.
    pub fn variables(&self) -> Vec<(String, SourceText)> {
        let mut variables = Vec::new();
        let mut set = |names: &[&str], option: &Option<SbatchOption>, value: Option<u64>| {
            if let (Some(option), Some(value)) = (option, value) {
                let value = at(option.line, &value.to_string());
                variables.extend(names.iter().map(|name| ((*name).to_owned(), value.clone())));
            }
        };
        set(
            &["SLURM_NNODES", "SLURM_JOB_NUM_NODES"],
            &self.nodes,
            number(&self.nodes),
        );
        set(&["SLURM_GPUS_ON_NODE"], &self.devices, number(&self.devices));
        set(
            &["SLURM_NTASKS_PER_NODE"],
            &self.tasks_per_node,
            number(&self.tasks_per_node),
        );
        variables
    }
}

fn is_read(option: &str) -> bool {
    matches!(
        option,
        "--nodes" | "-N" | "--gpus-per-node" | "--gres" | "--ntasks-per-node"
    )
}

/// The count at the end of a value: 8 in `8`, `mi250:8` and `gpu:mi250:8`.
pub fn number(option: &Option<SbatchOption>) -> Option<u64> {
    option.as_ref()?.value.rsplit(':').next()?.parse().ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lines_are_read_as_sbatch_does() {
        let batch = SbatchOptions::read(
            "#!/bin/bash\n#SBATCH --nodes=4\n##SBATCH --nodes=9\n# SBATCH --nodes=9\n#SBATCH -N8 --gpus-per-node mi250:8 # note\n\
             #SBATCH --ntasks-per-node=2\n",
        );
        let nodes = batch.nodes.clone().expect("nodes");
        assert_eq!((nodes.value.as_str(), nodes.line), ("8", 5));
        assert_eq!(number(&batch.devices), Some(8));
        let names: Vec<String> = batch.variables().into_iter().map(|(name, _)| name).collect();
        assert_eq!(
            names,
            [
                "SLURM_NNODES",
                "SLURM_JOB_NUM_NODES",
                "SLURM_GPUS_ON_NODE",
                "SLURM_NTASKS_PER_NODE"
            ]
        );
    }
}
