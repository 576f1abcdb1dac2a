//! Slurm's compressed lists of host names and of tasks per node.
//!
//! `nid[0001-0003,0007],node2` means five hosts. Leading zeros of a range's first number set the width. Slurm itself
//! refuses text after a bracket other than another bracket (`nid[1-2]-ib`); this parser accepts it.
//! Source: the man pages scontrol(1), `show hostnames`, and srun(1), SLURM_TASKS_PER_NODE; and what Slurm 22.05 answers.

/// The most names in a list: Slurm's limit for one range (MAX_RANGE).
pub const MAX_HOSTS: usize = 65_536;

#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum HostListError {
    #[error("host list `{list}`: `{part}` has an unmatched bracket")]
    Bracket { list: String, part: String },
    #[error("host list `{list}`: `{range}` is not a number or a range of numbers")]
    Range { list: String, range: String },
    #[error("host list `{list}`: range `{range}` is descending")]
    Backwards { list: String, range: String },
    #[error("host list `{list}` has more than {MAX_HOSTS} hosts")]
    TooMany { list: String },
    #[error("host list `{list}` is empty")]
    Empty { list: String },
    #[error("task list `{list}`: `{part}` is not a count such as `2` or `2(x3)`")]
    Tasks { list: String, part: String },
}

/// Expands a host list, in the order in which Slurm numbers the nodes: the leftmost bracket changes slowest.
///
/// # Errors
/// [`HostListError`] for text that is not a list, and for a list of more than [`MAX_HOSTS`] names.
pub fn expand(list: &str) -> Result<Vec<String>, HostListError> {
    let mut hosts = Vec::new();
    for part in parts(list)? {
        let names = names(list, part)?;
        if hosts.len() + names.len() > MAX_HOSTS {
            return Err(HostListError::TooMany { list: list.to_owned() });
        }
        hosts.extend(names);
    }
    if hosts.is_empty() {
        return Err(HostListError::Empty { list: list.to_owned() });
    }
    Ok(hosts)
}

/// Splits at commas outside brackets; empty parts are ignored, as in Slurm.
fn parts(list: &str) -> Result<Vec<&str>, HostListError> {
    let unpaired = |part: &str| HostListError::Bracket {
        list: list.to_owned(),
        part: part.to_owned(),
    };
    let (mut parts, mut start, mut inside) = (Vec::new(), 0, false);
    for (at, character) in list.char_indices() {
        match character {
            '[' if !inside => inside = true,
            ']' if inside => inside = false,
            '[' | ']' => return Err(unpaired(&list[start..])),
            ',' if !inside => {
                parts.push(list[start..at].trim());
                start = at + 1;
            }
            _ => {}
        }
    }
    if inside {
        return Err(unpaired(&list[start..]));
    }
    parts.push(list[start..].trim());
    parts.retain(|part| !part.is_empty());
    Ok(parts)
}

/// The names of one part: alternating text and brackets.
fn names(list: &str, part: &str) -> Result<Vec<String>, HostListError> {
    let mut names = vec![String::new()];
    for piece in part.split_inclusive(['[', ']']) {
        let numbers = match piece.strip_suffix(']') {
            Some(ranges) => numbers(list, ranges, MAX_HOSTS / names.len())?,
            None => vec![piece.trim_end_matches('[').to_owned()],
        };
        let longer = |name: &String| {
            numbers
                .iter()
                .map(|number| format!("{name}{number}"))
                .collect::<Vec<_>>()
        };
        names = names.iter().flat_map(longer).collect();
    }
    Ok(names)
}

/// The numbers of one bracket, as text of their width; at most `most`.
fn numbers(list: &str, ranges: &str, most: usize) -> Result<Vec<String>, HostListError> {
    let mut numbers = Vec::new();
    for range in ranges.split(',') {
        let invalid = || HostListError::Range {
            list: list.to_owned(),
            range: range.to_owned(),
        };
        let number = |text: &str| -> Result<u64, HostListError> {
            if text.is_empty() || !text.bytes().all(|byte| byte.is_ascii_digit()) {
                return Err(invalid());
            }
            text.parse().map_err(|_| invalid())
        };
        let (first, last) = range.split_once('-').unwrap_or((range, range));
        let (from, to) = (number(first)?, number(last)?);
        if to < from {
            return Err(HostListError::Backwards {
                list: list.to_owned(),
                range: range.to_owned(),
            });
        }
        if to - from >= most as u64 || numbers.len() + (to - from) as usize >= most {
            return Err(HostListError::TooMany { list: list.to_owned() });
        }
        numbers.extend((from..=to).map(|number| format!("{number:0width$}", width = first.len())));
    }
    Ok(numbers)
}

/// Tasks on each node, from `2(x3),1`.
///
/// # Errors
/// [`HostListError`] for text that is not such a list, and for a list of more than [`MAX_HOSTS`] nodes.
pub fn tasks_per_node(list: &str) -> Result<Vec<usize>, HostListError> {
    let mut tasks = Vec::new();
    for part in list.split(',') {
        let invalid = || HostListError::Tasks {
            list: list.to_owned(),
            part: part.to_owned(),
        };
        let (count, times) = match part.split_once("(x") {
            Some((count, times)) => (count, times.strip_suffix(')').ok_or_else(invalid)?),
            None => (part, "1"),
        };
        let count: usize = count.trim().parse().map_err(|_| invalid())?;
        let times: usize = times.parse().map_err(|_| invalid())?;
        if times > MAX_HOSTS - tasks.len() {
            return Err(HostListError::TooMany { list: list.to_owned() });
        }
        tasks.extend(std::iter::repeat_n(count, times));
    }
    Ok(tasks)
}

#[cfg(test)]
mod tests {
    use std::process::Command;

    use proptest::prelude::*;

    use super::*;
    use crate::missing_tools::missing_tool;

    /// Width, first and last number.
    type Range = (usize, u64, u64);

    /// Text and a bracket of ranges, by turns; then a suffix.
    #[derive(Clone, Debug)]
    struct Part(Vec<(String, Vec<Range>)>, String);

    impl Part {
        fn compressed(&self) -> String {
            let bracket = |ranges: &Vec<Range>| {
                let range = |&(width, first, last): &Range| {
                    if first == last {
                        format!("{first:0width$}")
                    } else {
                        format!("{first:0width$}-{last:0width$}")
                    }
                };
                ranges.iter().map(range).collect::<Vec<_>>().join(",")
            };
            let piece = |(text, ranges): &(String, Vec<_>)| format!("{text}[{}]", bracket(ranges));
            self.0.iter().map(piece).collect::<String>() + &self.1
        }

        /// The same names, expanded by counting.
        fn names(&self) -> Vec<String> {
            let wheels: Vec<Vec<String>> = self
                .0
                .iter()
                .map(|(text, ranges)| {
                    let numbers = ranges.iter().flat_map(|&(width, first, last)| {
                        (first..=last).map(move |number| format!("{number:0width$}"))
                    });
                    numbers.map(|number| format!("{text}{number}")).collect()
                })
                .collect();
            let total: usize = wheels.iter().map(Vec::len).product();
            (0..total)
                .map(|index| {
                    let (mut rest, mut name) = (index, self.1.clone());
                    for wheel in wheels.iter().rev() {
                        name = format!("{}{name}", wheel[rest % wheel.len()]);
                        rest /= wheel.len();
                    }
                    name
                })
                .collect()
        }
    }

    fn part(brackets: std::ops::Range<usize>, suffix: &'static str) -> impl Strategy<Value = Part> {
        let range = (1usize..5, 0u64..1200, 0u64..5).prop_map(|(width, first, more)| (width, first, first + more));
        let piece = ("[a-z][a-z0-9.-]{0,4}[a-z]", prop::collection::vec(range, 1..4));
        (prop::collection::vec(piece, brackets), suffix).prop_map(|(pieces, suffix)| Part(pieces, suffix))
    }

    fn compress(parts: &[Part]) -> (String, Vec<String>) {
        let list: Vec<String> = parts.iter().map(Part::compressed).collect();
        (list.join(","), parts.iter().flat_map(Part::names).collect())
    }

    proptest! {
        #[test]
        fn what_was_compressed_comes_back(parts in prop::collection::vec(part(0..3, "[a-z]{1,3}"), 1..4)) {
            let (list, names) = compress(&parts);
            prop_assert_eq!(expand(&list), Ok(names));
        }

        #[test]
        fn any_text_gives_hosts_or_an_error(list in r"[a-c0-9\[\],x() -]{0,24}") {
            if let Ok(hosts) = expand(&list) {
                prop_assert!(!hosts.is_empty() && hosts.len() <= MAX_HOSTS);
            }
            if let Ok(tasks) = tasks_per_node(&list) {
                prop_assert!(!tasks.is_empty() || list.contains("x0"));
            }
        }
    }

    #[test]
    fn slurms_own_examples() {
        let hosts = |list| expand(list).expect("a list").join(" ");
        assert_eq!(
            hosts("nid[0001-0003,0007],node2"),
            "nid0001 nid0002 nid0003 nid0007 node2"
        );
        assert_eq!(hosts("n[1-2]r[1-2]"), "n1r1 n1r2 n2r1 n2r2");
        assert_eq!(hosts("a[9-11] , a[09-11],,b"), "a9 a10 a11 a09 a10 a11 b");
        assert_eq!(hosts("a[099-101]"), "a099 a100 a101");
        assert_eq!(hosts("[1-3]"), "1 2 3");
        assert_eq!(hosts("nid[1-2]-ib"), "nid1-ib nid2-ib");
        assert_eq!(tasks_per_node("2(x2),1"), Ok(vec![2, 2, 1]));
        assert_eq!(tasks_per_node("8"), Ok(vec![8]));
    }

    #[test]
    fn invalid_lists_are_refused() {
        let message = |list| expand(list).expect_err("an error").to_string();
        for list in ["a[1", "a1]", "a[[1]]", "a]1["] {
            assert!(message(list).contains("has an unmatched bracket"), "{list}");
        }
        for list in [
            "a[]",
            "a[1-x]",
            "a[0-8:2]",
            "a[-1]",
            "a[1,]",
            "a[+1]",
            "a[99999999999999999999]",
        ] {
            assert!(
                message(list).contains("is not a number or a range of numbers"),
                "{list}"
            );
        }
        assert_eq!(message("a[3-1]"), "host list `a[3-1]`: range `3-1` is descending");
        assert!(message(" , ").contains("is empty"));
        for list in ["", "2(x", "2(y3)", "(x2)", "-1", "2,"] {
            assert!(tasks_per_node(list).is_err(), "{list}");
        }
    }

    /// Huge lists are refused before their names are expanded.
    #[test]
    fn absurd_lists_are_refused() {
        assert_eq!(expand("a[1-65536]").map(|hosts| hosts.len()), Ok(MAX_HOSTS));
        for list in [
            "a[1-65537]",
            "a[0-18446744073709551615]",
            "a[1-60000,1-60000]",
            "a[1-300]b[1-300]",
            "a[1-9999]b[1-9999]c[1-9999]d[1-9999]",
            "a[1-60000],b[1-60000]",
        ] {
            let error = expand(list).expect_err(list);
            assert!(matches!(error, HostListError::TooMany { .. }), "{list}: {error}");
        }
        assert!(matches!(
            tasks_per_node("1(x99999999)"),
            Err(HostListError::TooMany { .. })
        ));
    }

    /// The same names as Slurm's program, if it is installed. Slurm does not support suffixes, and orders the names of three
    /// or more brackets differently.
    #[test]
    fn the_same_as_scontrol() {
        if Command::new("scontrol").arg("--version").output().is_err() {
            return missing_tool("scontrol", "expansion of host lists");
        }
        let folder = tempfile::tempdir().expect("a temporary folder");
        let configuration = folder.path().join("slurm.conf");
        std::fs::write(&configuration, "ClusterName=none\nSlurmctldHost=localhost\n").expect("written");
        let mut runner = proptest::test_runner::TestRunner::new(ProptestConfig::with_cases(24));
        let lists = prop::collection::vec(part(1..3, ""), 1..4);
        runner
            .run(&lists, |parts| {
                let (list, names) = compress(&parts);
                let output = Command::new("scontrol")
                    .args(["show", "hostnames", &list])
                    .env("SLURM_CONF", &configuration)
                    .output()
                    .expect("scontrol ran");
                let theirs = String::from_utf8_lossy(&output.stdout);
                prop_assert_eq!(theirs.lines().collect::<Vec<_>>(), names.iter().collect::<Vec<_>>());
                prop_assert_eq!(expand(&list), Ok(names));
                Ok(())
            })
            .expect("the same names");
    }
}
