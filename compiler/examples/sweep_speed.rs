//! Checks and keys a sweep of 10,000 points, and checks a spec of 2,000 lines; prints seconds and bytes as JSON.

// The crate is pure; a measurement is not.
#![allow(clippy::disallowed_methods, clippy::disallowed_macros)]

use std::collections::BTreeSet;
use std::time::Instant;

use aurora_compiler::check::check;
use aurora_compiler::compose::Bundle;
use aurora_compiler::graph::Pins;

fn main() {
    let text = include_str!("../../specs/tiny.aur");
    let values = |step: u32| {
        (1..=100)
            .map(|at| format!("{}e-6", at * step))
            .collect::<Vec<_>>()
            .join(", ")
    };
    let swept = format!(
        "{text}\nsweep grid {{\n  stage.cap.learning_rate.floor = [{}]\n  stage.cat.learning_rate.rate = [{}]\n}}\n",
        values(1),
        values(3)
    );
    let start = Instant::now();
    let bundle = Bundle::alone("tiny.aur", &swept);
    let keys = bundle.sweep_keys(None, &Pins::new());
    let keys = keys.unwrap_or_else(|found| panic!("the sweep has errors: {:?}", found.first()));
    let sweep_seconds = start.elapsed().as_secs_f64();
    let different: BTreeSet<_> = keys.iter().flat_map(|point| &point.keys).collect();
    // 2,000 lines: a stage after another, each with its mixture.
    let mut long = text.to_owned();
    let mut before = "cat".to_owned();
    while long.lines().count() < 2000 {
        let name = format!("stage_{}", long.lines().count());
        let stage = text
            .split("\nstage cat {")
            .nth(1)
            .and_then(|rest| rest.split("\n}\n").next())
            .unwrap_or_default();
        long.push_str(&format!("\nstage {name} {{{stage}\n}}\n").replace("= cap", &format!("= {before}")));
        before = name;
    }
    let long = long.replace("every 10 steps, end]", "end]");
    let start = Instant::now();
    let spec = check("long.aur", &long, None).unwrap_or_else(|found| panic!("the long spec has errors: {found:?}"));
    let check_seconds = start.elapsed().as_secs_f64();
    let faulty = long.replace("steps", "stops");
    let start = Instant::now();
    let found = check("long.aur", &faulty, None).map_or_else(|found| found, |_| Vec::new());
    let drawn = aurora_lang::diagnostics::render_text(
        &found,
        aurora_lang::diagnostics::Source::new("long.aur", &faulty),
        false,
    );
    let faults_seconds = start.elapsed().as_secs_f64();
    let peak = std::fs::read_to_string("/proc/self/status").unwrap_or_default();
    let peak = peak
        .lines()
        .find_map(|line| line.strip_prefix("VmHWM:"))
        .unwrap_or_default()
        .trim();
    println!(
        "{{\"points\":{},\"keys\":{},\"sweep_seconds\":{sweep_seconds:.3},\"lines\":{},\"stages\":{},\"check_seconds\":{check_seconds:.4},\
         \"faults\":{},\"drawn_bytes\":{},\"faults_seconds\":{faults_seconds:.4},\"peak\":\"{peak}\"}}",
        keys.len(),
        different.len(),
        long.lines().count(),
        spec.blocks.len(),
        found.len(),
        drawn.len()
    );
}
