"""Makes a number out of nothing."""

from __future__ import annotations

from pipelines.params import StageParams

VERSION = "1"


class Schedule(StageParams):
    max_iter: int = 100
    steps: tuple[int, ...] = ()


class Params(StageParams):
    value: int = 1
    schedule: Schedule = Schedule()


def run(params, inputs, out, report):
    (out / "number.txt").write_text(str(params.value))
    return {"value": params.value}
