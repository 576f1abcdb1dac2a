//! `aurora import megatron`: the spec on standard output or in a file, the findings on standard error.

use crate::project::Project;

const SCRIPT: &str = include_str!("../../../compiler/src/megatron/tests/starcoder.slurm");

#[test]
fn a_launch_script_becomes_a_spec_without_errors() {
    let project = Project::new();
    project.write("starcoder.slurm", SCRIPT);
    let printed = project.aurora(&["import", "megatron", "starcoder.slurm", "--vocabulary", "49152"]);
    printed.exits(0);
    assert!(
        printed
            .out()
            .contains("layers          = 40          // starcoder.slurm:32 --num-layers"),
        "{}",
        printed.out()
    );
    assert!(
        printed.err().contains("line 54 --fim-rate 0.5: fill-in-the-middle"),
        "{}",
        printed.err()
    );
    let written = project.aurora(&[
        "import",
        "megatron",
        "starcoder.slurm",
        "--vocabulary",
        "49152",
        "-o",
        "specs/starcoder.aur",
    ]);
    written.exits(0);
    assert_eq!(written.out(), "");
    assert_eq!(project.read("specs/starcoder.aur"), printed.out());
    project.aurora(&["check", "specs/starcoder.aur"]).exits(0);
    project.aurora(&["fmt", "--check", "specs/starcoder.aur"]).exits(0);
    project
        .aurora(&["show", "specs/starcoder.aur", "--resolved"])
        .prints("15,517,456,384 parameters");
    // A file is not overwritten.
    let again = project.aurora(&["import", "megatron", "starcoder.slurm", "-o", "specs/starcoder.aur"]);
    again.exits(1);
    again.prints("`specs/starcoder.aur` already exists");
    let json = project
        .aurora(&["import", "megatron", "starcoder.slurm", "--json"])
        .json();
    let findings = json["findings"].as_array().expect("findings");
    let fim = findings.iter().find(|finding| finding["what"] == "--fim-rate 0.5");
    assert_eq!(fim.expect("a difference for it")["kind"], "changes_result");
    // Without the vocabulary, the spec reports what is missing, and where.
    project
        .aurora(&["import", "megatron", "starcoder.slurm", "-o", "specs/open.aur"])
        .prints("the number of entries of the tokenizer: set it with `--vocabulary`");
    let open = project.aurora(&["check", "specs/open.aur"]);
    open.exits(1);
    open.prints("`vocabulary` cannot be `unknown`");
}

#[test]
fn a_script_without_pretrain_gpt_is_refused() {
    let project = Project::new();
    project.write("job.sh", "#!/bin/bash\necho pretrain_gpt.py --num-layers 4\n");
    let done = project.aurora(&["import", "megatron", "job.sh"]);
    done.exits(1);
    done.prints("job.sh: no command of the script runs `pretrain_gpt.py` with its flags");
    project.aurora(&["import", "megatron", "nothing.sh"]).exits(1);
}
