#!/usr/bin/env python3
"""A run of Aurora sent to a real tracking server of MLflow, and read back through MLflow's own client.

    tracking.py AURORA

Trains the project of harness.py, sends it to `mlflow server` on a free port, and compares every step's loss and every score with
what the run's own record says.
"""

import json
import socket
import subprocess
import sys
import tempfile
import time
import urllib.request
from pathlib import Path

import harness


def main() -> None:
    aurora = Path(sys.argv[1]).resolve()
    with tempfile.TemporaryDirectory() as place:
        folder = Path(place)
        (folder / "lockfiles").mkdir()
        harness.write(folder)
        harness.run(folder, aurora, "run", "harness.aur", "--progress", "none")
        with socket.socket() as free:
            free.bind(("127.0.0.1", 0))
            port = free.getsockname()[1]
        url = f"http://127.0.0.1:{port}"
        server = subprocess.Popen([str(Path(sys.executable).parent / "mlflow"), "server", "--host", "127.0.0.1", "--port", str(port),
                                   "--workers", "1", "--backend-store-uri", f"sqlite:///{folder}/mlflow.db"],
                                  stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL, cwd=folder)
        try:
            for _ in range(120):
                try:
                    urllib.request.urlopen(f"{url}/health", timeout=2)
                    break
                except OSError:
                    time.sleep(1)
            told = subprocess.run([str(aurora), "export", "mlflow", "harness.aur", url, "--json"], cwd=folder, check=True,
                                  stdout=subprocess.PIPE, text=True).stdout
            from mlflow.tracking import MlflowClient

            client = MlflowClient(url)
            run = client.get_run(json.loads(told)["mlflow_run"])
            lines = (folder / ".aurora/runs/latest/metrics.jsonl").read_text().splitlines()
            own = [json.loads(line)["loss"] for line in lines]
            sent = [metric.value for metric in client.get_metric_history(run.info.run_id, "train/loss")]
            if sent != own:
                sys.exit(f"losses differ: {len(own)} here, {len(sent)} there")
            if run.info.status != "FINISHED" or "eval/rolling/bits_per_byte/en" not in run.data.metrics:
                sys.exit(f"the run is {run.info.status}, with {sorted(run.data.metrics)}")
            print(f"mlflow: {len(sent)} losses and {len(run.data.metrics)} metrics arrived as they were sent")
        finally:
            server.terminate()
            server.wait()


if __name__ == "__main__":
    main()
