"""Counts slowly, with a checkpoint after every step, and says so in a file beside the store."""

from __future__ import annotations

import os
import time
from pathlib import Path

from partseg.errors import TrainingError
from pipelines.params import Ref, StageParams

VERSION = "1"


class Params(StageParams):
    of: Ref
    steps: int = 5
    seconds: float = 0.0
    fail: bool = False


def run(params, inputs, out, report):
    checkpoint = report.work / "count"
    count = int(checkpoint.read_text()) if checkpoint.exists() else 0
    trace = os.environ.get("FAKE_TRACE")
    while count < params.steps:
        if params.fail:
            raise TrainingError("the loss is not finite", fix="lower the learning rate")
        if trace:
            with Path(trace).open("a") as file:
                file.write(f"step {count}\n")
        time.sleep(params.seconds)
        count += 1
        checkpoint.write_text(str(count))
        report.update(count, params.steps, "counting")
    start = int((inputs[params.of].path / "number.txt").read_text())
    (out / "number.txt").write_text(str(start + count))
    return {"count": count}
