//! A run's metrics on a tracking server. The server here implements the few paths of MLflow's REST interface that are used;
//! `make peers` sends to a real one.

use std::io::{BufRead, BufReader, Read, Write};
use std::net::TcpListener;
use std::sync::mpsc::{Receiver, channel};

use serde_json::{Value, json};

use crate::project::{Done, Project};

/// Serves until the receiver is dropped; returns the address, and the posted values with their paths.
fn serve() -> (String, Receiver<(String, Value)>) {
    let listener = TcpListener::bind("127.0.0.1:0").expect("a port");
    let address = format!("http://{}", listener.local_addr().expect("an address"));
    let (sender, receiver) = channel();
    std::thread::spawn(move || {
        for stream in listener.incoming() {
            let mut stream = stream.expect("a connection");
            let mut reader = BufReader::new(stream.try_clone().expect("a second handle"));
            let (mut first, mut length) = (String::new(), 0);
            reader.read_line(&mut first).expect("a request");
            loop {
                let mut line = String::new();
                reader.read_line(&mut line).expect("a header");
                if line.trim().is_empty() {
                    break;
                }
                if let Some(value) = line.to_ascii_lowercase().strip_prefix("content-length:") {
                    length = value.trim().parse().expect("a length");
                }
            }
            let mut body = vec![0; length];
            reader.read_exact(&mut body).expect("a body");
            let path = first.split_whitespace().nth(1).unwrap_or_default();
            let path = path.trim_start_matches("/api/2.0/mlflow/").to_owned();
            let answer = match path.as_str() {
                "experiments/search" => json!({}),
                "experiments/create" => json!({ "experiment_id": "7" }),
                "runs/create" => json!({ "run": { "info": { "run_id": "abc" } } }),
                _ => json!({}),
            };
            // Noted before the answer: the client ends with its last answer, and what was posted is read then.
            if sender
                .send((path, serde_json::from_slice(&body).expect("JSON")))
                .is_err()
            {
                return;
            }
            let answer = answer.to_string();
            let length = answer.len();
            write!(
                stream,
                "HTTP/1.1 200 OK\r\nContent-Length: {length}\r\nConnection: close\r\n\r\n{answer}"
            )
            .expect("sent");
        }
    });
    (address, receiver)
}

#[test]
fn a_complete_run_is_sent() {
    let project = Project::new();
    project.run();
    let (address, posted) = serve();
    // A proxy is not asked for a server of this machine: it would read the token.
    let export = [
        "export",
        "mlflow",
        "specs/small.aur",
        &address,
        "--token",
        "AURORA_TEST_KEY",
    ];
    let mut command = project.command(&export);
    command
        .env("AURORA_TEST_KEY", "a-token")
        .env_remove("NO_PROXY")
        .env_remove("no_proxy");
    for name in ["ALL_PROXY", "HTTP_PROXY", "http_proxy"] {
        command.env(name, "http://127.0.0.1:9");
    }
    let done = Done(command.output().expect("the binary starts"));
    done.exits(0);
    done.prints("is run abc at");
    let posted: Vec<(String, Value)> = posted.try_iter().collect();
    let paths: Vec<&str> = posted.iter().map(|(path, _)| path.as_str()).collect();
    assert_eq!(
        paths,
        [
            "experiments/search",
            "experiments/create",
            "runs/create",
            "runs/log-batch",
            "runs/log-batch",
            "runs/update"
        ]
    );
    assert_eq!(posted[1].1, json!({ "name": "small" }));
    let metrics = posted[4].1["metrics"].as_array().expect("metrics");
    let of = |key: &str| metrics.iter().filter(|metric| metric["key"] == key).collect::<Vec<_>>();
    let losses = of("train/loss");
    assert_eq!(losses.len(), 24, "16 steps of cap, 8 of cat");
    // 8 sequences of 32 tokens per step; cat continues where cap ended.
    assert_eq!(
        (&losses[0]["step"], &losses[23]["step"]),
        (&json!(256), &json!(24 * 256))
    );
    assert_eq!(of("eval/heldout/bits_per_byte/fi").len(), 4);
    assert_eq!(posted[5].1["status"], "FINISHED");
    let done = project.aurora(&["export", "mlflow", "specs/small.aur", "http://127.0.0.1:9"]);
    done.exits(1);
    done.prints("cannot get an answer from `http://127.0.0.1:9/api");
}
