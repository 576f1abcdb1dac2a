//! The worker's command line.

use crate::model::Fault;

/// What a worker is started with.
#[derive(Clone, Debug, Default)]
pub struct Arguments {
    /// `HOST:PORT` of the engine if a launcher, not the engine, started the worker.
    pub engine: Option<String>,
    /// Compare this device's kernels with their references, print the results, and end.
    pub test_device: Option<u32>,
    pub fault: Fault,
}

impl Arguments {
    /// Parses `--join=HOST:PORT`, `--test-device=INDEX`, and `--fault NAME` if fault injection is compiled in: the name of a sum over shards, an
    /// operation of the trace with `-` between its words.
    ///
    /// Returns nothing for other arguments.
    pub fn parse(mut arguments: impl Iterator<Item = String>) -> Option<Self> {
        let mut parsed = Self::default();
        while let Some(argument) = arguments.next() {
            let is_new = if let Some(engine) = argument.strip_prefix("--join=") {
                parsed.engine.replace(engine.to_owned()).is_none()
            } else if let Some(index) = argument.strip_prefix("--test-device=") {
                parsed.test_device.replace(index.parse().ok()?).is_none()
            } else {
                argument == "--fault" && parsed.inject(&arguments.next()?)
            };
            if !is_new {
                return None;
            }
        }
        Some(parsed)
    }

    #[cfg(any(test, feature = "fault-injection"))]
    fn inject(&mut self, name: &str) -> bool {
        use aurora_runtime::trace::Operation;
        let named = |sum: &&Operation| sum.is_sum_over_shards() && sum.argument() == name;
        self.fault.sum = Operation::ALL.iter().find(named).copied();
        self.fault.sum.is_some()
    }

    #[cfg(not(any(test, feature = "fault-injection")))]
    fn inject(&mut self, _name: &str) -> bool {
        false
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parse(arguments: &[&str]) -> Option<Arguments> {
        Arguments::parse(arguments.iter().map(|argument| (*argument).to_owned()))
    }

    #[test]
    fn only_known_arguments_are_accepted() {
        assert!(parse(&[]).unwrap().engine.is_none());
        assert_eq!(parse(&["--join=a:1"]).unwrap().engine.unwrap(), "a:1");
        assert_eq!(parse(&["--test-device=1"]).unwrap().test_device, Some(1));
        let fault = parse(&["--fault", "feed-forward-down-sum-over-shards"]).unwrap().fault;
        assert!(fault.sum.is_some());
        for refused in [
            &["--join=a:1", "--join=b:2"][..],
            &["x"],
            &["--test-device=x"],
            &["--fault", "embedding"],
            &["--fault"],
        ] {
            assert!(parse(refused).is_none(), "{refused:?}");
        }
    }
}
