"""Loses information, so that a changed input need not change its output."""

from __future__ import annotations

from pipelines.params import Ref, StageParams

VERSION = "1"


class Params(StageParams):
    of: Ref


def run(params, inputs, out, report):
    (out / "number.txt").write_text(str(int((inputs[params.of].path / "number.txt").read_text()) % 2))
    return {}
