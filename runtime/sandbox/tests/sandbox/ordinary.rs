//! Harmless programs: what they get, and when they pass.

use aurora_sandbox::Protection;
use aurora_sandbox::python::{Python, PythonVerdict};
use aurora_sandbox::{Limits, Program, ProgramEnd, ProgramOutcome, SandboxError, Unprotected, protection};

use crate::{available, limits, output_text, python};

fn run(protection: &Protection, code: &str, limits: &Limits) -> ProgramOutcome {
    protection
        .run(&python(&["program.py"], &[("program.py", code)]), limits, &|| false)
        .expect("it runs")
}

fn check(code: &str, limits: &Limits) -> Option<PythonVerdict> {
    let protection = available(&[])?;
    let python = Python::find(&protection)
        .expect("the sandbox works")
        .expect("Python is installed");
    Some(python.check(&protection, code, limits, &|| false).expect("it runs"))
}

#[test]
fn a_program_gets_its_files_and_nothing_of_the_caller() {
    let Some(protection) = available(&[]) else { return };
    let code =
        "import os, sys; print(sorted(os.environ.items()), sys.stdin.read(), open('note').read(), os.getcwd()[:1])";
    let mut program = python(&["-c", code], &[("note", "a note")]);
    program.stdin = b"an input".to_vec();
    let outcome = protection.run(&program, &limits(), &|| false).expect("it runs");
    let environment = "[('LANG', 'C.UTF-8'), ('PATH', '/usr/local/bin:/usr/bin:/bin'), ('PYTHONHASHSEED', '0')]";
    assert_eq!(output_text(&outcome), format!("{environment} an input a note /\n"));
    assert_eq!(outcome.ended, ProgramEnd::Exit(0));
}

#[test]
fn hash_orders_are_equal_in_every_run() {
    let Some(protection) = available(&[]) else { return };
    let code = "print({'one', 'two', 'three', 'four'}, {object() for _ in range(3)})";
    let first = run(&protection, code, &limits());
    assert_eq!(first.ended, ProgramEnd::Exit(0));
    for _ in 0..3 {
        assert_eq!(output_text(&run(&protection, code, &limits())), output_text(&first));
    }
}

#[test]
fn the_end_of_a_program_is_reported() {
    let Some(protection) = available(&[]) else { return };
    let ended = |code: &str| run(&protection, code, &limits()).ended;
    assert_eq!(ended(""), ProgramEnd::Exit(0));
    assert_eq!(ended("raise SystemExit(3)"), ProgramEnd::Exit(3));
    assert_eq!(
        ended("import ctypes; ctypes.string_at(0)"),
        ProgramEnd::Signal(libc::SIGSEGV)
    );
    let short = Limits {
        cpu: std::time::Duration::from_secs(1),
        ..limits()
    };
    assert_eq!(
        run(&protection, "while True: pass", &short).ended,
        ProgramEnd::OutOfTime
    );
}

#[test]
fn output_is_kept_up_to_the_limit_and_not_beyond() {
    let Some(protection) = available(&[]) else { return };
    let ten = Limits { output: 10, ..limits() };
    let outcome = run(&protection, "print('123456789')", &ten);
    assert_eq!(
        (outcome.ended, output_text(&outcome).as_str()),
        (ProgramEnd::Exit(0), "123456789\n")
    );
    let outcome = run(&protection, "print('1234567890')", &ten);
    assert_eq!(
        (outcome.ended, output_text(&outcome).as_str()),
        (ProgramEnd::TooMuchOutput, "1234567890")
    );
}

#[test]
fn errors_may_be_collected_apart() {
    let Some(protection) = available(&[]) else { return };
    let code = "import sys; print('one', file=sys.stderr); print('two'); print('three', file=sys.stderr)";
    let mut program = python(&["inner/more/program.py"], &[("inner/more/program.py", code)]);
    program.errors_apart = true;
    let outcome = protection.run(&program, &limits(), &|| false).expect("it runs");
    let texts = (
        output_text(&outcome),
        String::from_utf8_lossy(&outcome.errors).into_owned(),
    );
    assert_eq!(texts, ("two\n".to_owned(), "one\nthree\n".to_owned()));
    // The limit is that of both.
    let ten = Limits { output: 10, ..limits() };
    let outcome = protection.run(&program, &ten, &|| false).expect("it runs");
    assert_eq!(outcome.ended, ProgramEnd::TooMuchOutput);
    assert_eq!(outcome.output.len() + outcome.errors.len(), 10);
}

/// A program with the network reaches a server of this machine; without it, no socket can be made. In both cases it may not
/// wait for connections, and sees no other file.
#[test]
fn the_network_is_only_given_on_request() {
    let Some(protection) = available(&[]) else { return };
    let server = std::net::TcpListener::bind("127.0.0.1:0").expect("a port");
    let port = server.local_addr().expect("an address").port();
    let code = format!(
        "import socket\n\
         try: print(socket.create_connection(('127.0.0.1', {port})) and 'reached')\n\
         except OSError as error: print(error)\n\
         for attempt in ('socket.socket(socket.AF_UNIX)', 'socket.create_server((\"127.0.0.1\", 0))', 'open(\"/etc/passwd\")'):\n    \
             try: eval(attempt); print('BROKEN', attempt)\n    \
             except OSError: pass\n"
    );
    let with = |network| run(&protection, &code, &Limits { network, ..limits() });
    assert_eq!(output_text(&with(true)), "reached\n");
    assert_eq!(output_text(&with(false)), "[Errno 38] Function not implemented\n");
}

#[test]
fn namespaces_allow_processes_and_files() {
    let Some(protection) = available(&[]) else { return };
    let more = Limits {
        processes: 4,
        files: 1 << 20,
        ..limits()
    };
    let code = "import subprocess, os\n\
                open('own', 'w').write('text')\n\
                os.rename('own', 'other')\n\
                print(subprocess.run(['cat', 'other'], capture_output=True, text=True).stdout, os.listdir('.').__len__())";
    let program = python(&["program.py"], &[("program.py", code)]);
    match protection.run(&program, &more, &|| false) {
        Ok(outcome) => assert_eq!(output_text(&outcome), "text 2\n"),
        Err(SandboxError::NeedsNamespaces) => {
            assert!(protection.to_string().contains("one process"));
            assert_eq!(protection.fit(more).processes, 1);
        }
        Err(error) => panic!("{error}"),
    }
}

#[test]
fn a_program_passes_only_if_it_reaches_its_end() {
    let ends = |code: &str| check(code, &limits()).map(|verdict| (verdict.passed, verdict.outcome.ended));
    if available(&[]).is_none() {
        return;
    }
    let tests = "\nassert add(1, 2) == 3\n";
    assert_eq!(
        ends(&format!("def add(a, b): return a + b{tests}")),
        Some((true, ProgramEnd::Exit(0)))
    );
    assert_eq!(
        ends(&format!("def add(a, b): return a - b{tests}")),
        Some((false, ProgramEnd::Exit(1)))
    );
    // None of these fails its tests, because none reaches them.
    for early in [
        "import os; os._exit(0)",
        "import sys; sys.exit(0)",
        "exit = quit = None\nraise SystemExit",
        "import os; os.execv('/bin/true', ['true'])",
        "import os; os.close(1)",
        "import sys; sys.stdout.flush = lambda: None\nraise SystemExit(0)",
        "import builtins, os; builtins.AssertionError = None\nos._exit(0)",
        // The driver's word, if stdin still had it.
        "import os\ntry: os.lseek(0, 0, 0)\nexcept OSError: pass\nos.write(1, os.read(0, 4096)); os._exit(0)",
        "import os, sys\nos.write(1, sys.stdin.buffer.read()); os._exit(0)",
    ] {
        let verdict = ends(&format!("{early}\ndef add(a, b): return 0{tests}")).expect("protection");
        assert!(!verdict.0, "{early}: {verdict:?}");
    }
    // Nor does one pass that fails after them.
    assert_eq!(
        ends("import atexit, os; atexit.register(os._exit, 3)"),
        Some((false, ProgramEnd::Exit(3)))
    );
    // Code guarded by `__name__` is not run, as in the published harness.
    assert_eq!(
        ends("if __name__ == '__main__': raise Exception"),
        Some((true, ProgramEnd::Exit(0)))
    );
}

#[test]
fn the_word_of_the_driver_is_not_in_the_output() {
    let Some(verdict) = check("print('out', end='')", &Limits { output: 3, ..limits() }) else {
        return;
    };
    assert_eq!((verdict.passed, output_text(&verdict.outcome).as_str()), (true, "out"));
    let Some(verdict) = check("print('out')", &Limits { output: 3, ..limits() }) else {
        return;
    };
    assert_eq!(
        (verdict.passed, verdict.outcome.ended),
        (false, ProgramEnd::TooMuchOutput)
    );
}

#[test]
fn invalid_programs_are_refused() {
    let Some(protection) = available(&[]) else { return };
    let refused = |program: &Program| {
        protection
            .run(program, &limits(), &|| false)
            .expect_err("it cannot run")
            .to_string()
    };
    for name in ["", ".", "..", "a/../b", "a//b", "a/", "/etc/passwd"] {
        assert!(refused(&python(&[], &[(name, "")])).contains("not the name of a file in a folder"));
    }
    assert!(refused(&python(&["a\0b"], &[])).contains("NUL"));
    let mut program = python(&[], &[]);
    program.command = vec!["/etc/passwd".to_owned()];
    assert!(refused(&program).contains("cannot start `/etc/passwd`"));
    program.command.clear();
    assert!(refused(&program).contains("no program is given"));
}

#[test]
fn a_store_among_the_libraries_is_refused() {
    let library = std::path::Path::new("/usr/lib/python3");
    let why = protection(&[library]).expect_err("every program reads it");
    assert!(matches!(why, Unprotected::Visible { .. }));
    assert!(why.to_string().contains("/usr/lib/python3"));
    let anyway = why.anyway();
    assert!(!anyway.contained() && anyway.to_string().starts_with("not contained"));
}
