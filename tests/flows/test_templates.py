"""What comes for Slurm and Kubernetes, as far as it can be checked without either."""

from __future__ import annotations

import os
import signal
import subprocess
import time
from pathlib import Path

import pytest
import yaml

from flows.deploy import POOL
from flows.deployments import CPU, GPU
from pipelines.recipe import CONFIGS

SBATCH = CONFIGS / "workers/slurm.sbatch"
NEEDED = {"PARTSEG_HOME": "/shared/home", "PARTSEG_STORE": "/shared/store", "SLURM_JOB_ID": "7"}
STUB = """#!/bin/bash
echo "$(basename "$0") $* processes=$PARTSEG_PROCESSES" >> "$CALLS"
[ "$(basename "$0")" = scontrol ] && exit 0
trap 'exit 130' TERM
if [ "$(basename "$0")" = prefect ] && [ -n "${STUB_STEPS:-}" ]; then
  # waits for its run whatever it is told, as a worker does
  trap : TERM
  bash -c 'trap "echo run asked >> $CALLS; exit 1" TERM; echo run >> $CALLS
    for i in $(seq 200); do sleep 0.1; done'
  exit 0
fi
for i in $(seq "${STUB_STEPS:-0}"); do sleep 0.1; done
exit "${STUB_CODE:-0}"
"""


@pytest.fixture
def job(tmp_path: Path):
    """Starts the script with programs that only say how they were called."""
    for name in ("partseg", "prefect", "scontrol"):
        (tmp_path / name).write_text(STUB)
        (tmp_path / name).chmod(0o755)
    calls = tmp_path / "calls"
    outer = {name: v for name, v in os.environ.items() if not name.startswith(("PARTSEG_", "PREFECT_"))}

    def start(*arguments: str, **variables: str):
        environment = {**outer, **NEEDED, "PATH": f"{tmp_path}:{os.environ['PATH']}", "CALLS": str(calls)}
        process = subprocess.Popen(
            ["bash", str(SBATCH), *arguments],
            env={name: value for name, value in {**environment, **variables}.items() if value},
            stderr=subprocess.PIPE,
            text=True,
        )
        return process, lambda: calls.read_text().splitlines() if calls.exists() else []

    return start


def test_a_slurm_job_runs_a_recipe_with_one_process_per_gpu(job) -> None:
    process, calls = job("vlpart_r50", "--profile", "smoke", SLURM_CPUS_PER_TASK="64")
    assert process.wait(timeout=20) == 0
    assert calls() == ["partseg run vlpart_r50 --profile smoke --workers 64 --no-prefect processes=auto"]


def test_a_failed_recipe_fails_the_job_and_is_not_started_again(job) -> None:
    process, calls = job("vlpart_r50", STUB_CODE="2", PREFECT_API_URL="http://server/api")
    assert process.wait(timeout=20) == 2
    assert calls() == ["partseg run vlpart_r50 --workers 1 processes=auto"]


def test_before_its_time_is_up_a_job_saves_its_state_and_queues_again(job) -> None:
    process, calls = job("vlpart_r50", STUB_STEPS="200")
    deadline = time.monotonic() + 20
    while not calls():
        assert time.monotonic() < deadline
        time.sleep(0.05)
    time.sleep(0.3)  # the stub sets its trap
    process.send_signal(signal.SIGTERM)
    assert process.wait(timeout=20) == 130
    assert calls()[1].startswith("scontrol requeue 7 ")


def test_a_workers_run_is_asked_to_end_itself(job) -> None:
    process, calls = job(PREFECT_API_URL="http://server/api", STUB_STEPS="200")
    deadline = time.monotonic() + 20
    while "run" not in calls():
        assert time.monotonic() < deadline
        time.sleep(0.05)
    time.sleep(0.3)
    process.send_signal(signal.SIGTERM)
    assert process.wait(timeout=20) == 0
    assert calls()[2] == "run asked"
    assert calls()[3].startswith("scontrol requeue 7 ")


def test_without_a_recipe_a_job_is_a_worker(job) -> None:
    process, calls = job(PREFECT_API_URL="http://server/api", PARTSEG_PROCESSES="4")
    assert process.wait(timeout=20) == 0
    (call,) = calls()
    assert call == (
        f"prefect worker start --pool {POOL} --type process --work-queue {GPU} "
        "--limit 1 --run-once processes=4"
    )


@pytest.mark.parametrize(("arguments", "name"), [(("demo",), "PARTSEG_STORE"), ((), "PREFECT_API_URL")])
def test_a_job_says_which_setting_it_misses(job, arguments, name) -> None:
    process, calls = job(*arguments, **({name: ""}))
    _, err = process.communicate(timeout=20)
    assert process.returncode != 0
    assert name in err
    assert not calls()


def test_slurm_asks_the_script_itself_and_early_enough() -> None:
    options = [line.split()[1] for line in SBATCH.read_text().splitlines() if line.startswith("#SBATCH")]
    assert "--signal=B:TERM@300" in options
    assert "--requeue" in options


def test_the_kubernetes_workers_belong_together() -> None:
    documents = list(yaml.safe_load_all((CONFIGS / "workers/kubernetes.yaml").read_text()))
    by_kind: dict[str, list[dict]] = {}
    for document in documents:
        by_kind.setdefault(document["kind"], []).append(document)
    assert set(by_kind) == {"ConfigMap", "PersistentVolumeClaim", "Deployment"}
    settings, claim = by_kind["ConfigMap"][0], by_kind["PersistentVolumeClaim"][0]
    assert set(settings["data"]) == {"PREFECT_API_URL", "PARTSEG_STORE", "PARTSEG_HOME", "PARTSEG_PROCESSES"}
    queues = {}
    for deployment in by_kind["Deployment"]:
        spec = deployment["spec"]
        assert spec["selector"]["matchLabels"] == spec["template"]["metadata"]["labels"]
        pod = spec["template"]["spec"]
        (container,) = pod["containers"]
        command = container["command"]
        assert command[:5] == ["prefect", "worker", "start", "--pool", POOL]
        queues[command[command.index("--work-queue") + 1]] = command
        mounted = {mount["name"]: mount["mountPath"] for mount in container["volumeMounts"]}
        assert set(mounted) == {volume["name"] for volume in pod["volumes"]}
        assert mounted["home"] == settings["data"]["PARTSEG_HOME"]
        claims = [
            v["persistentVolumeClaim"]["claimName"] for v in pod["volumes"] if "persistentVolumeClaim" in v
        ]
        assert claims == [claim["metadata"]["name"]]
        assert container["envFrom"][0]["configMapRef"]["name"] == settings["metadata"]["name"]
    assert set(queues) == {GPU, CPU}
    assert queues[GPU][-2:] == ["--limit", "1"]
