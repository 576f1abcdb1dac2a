//! Mixtures by tokens and over time, in real training.

use crate::project::Project;

#[test]
fn weights_that_change_over_a_stage_are_exact() {
    let project = Project::new();
    for (old, new) in [
        (
            "en from [en] weight 50%",
            "en from [en] weight ramp(start = 50%, end = 20%)",
        ),
        (
            "fi from [fi] weight 30%",
            "fi from [fi] weight ramp(start = 30%, end = 60%)",
        ),
        ("en from [en] weight 40%", "en from [en] weight 2000 tokens"),
        ("fi from [fi] weight 60%", "fi from [fi] weight 6000 tokens"),
    ] {
        project.edit(old, new);
    }
    project.aurora(&["check", "specs/small.aur"]).exits(0);
    project
        .aurora(&["show", "specs/small.aur", "--resolved"])
        .prints("// 8,000 tokens: en 25%, fi 75%");
    project.run();
    let page = std::fs::read_to_string(project.path(".aurora/runs/latest/report.html")).expect("the report");
    // 128 samples: 35% and 45% of them over the complete stage.
    for part in ["35.00%", "45.00%", "20.00%"] {
        assert!(page.contains(part), "the share {part}");
    }
    let layout = [
        "rerun",
        "lockfiles/small.lock",
        "--layout",
        "tensor=2,data=2",
        "--progress",
        "none",
    ];
    project.aurora(&layout).exits(0);
    // A longer stage has another slope, and therefore another order from the start.
    let before = project.keys();
    project.edit("budget        = 16 steps", "budget        = 24 steps");
    let after = project.keys();
    assert_ne!(before["order/cap"], after["order/cap"]);
    assert_eq!(before["order/cat"], after["order/cat"]);
}
