"""Adds the numbers of other stages."""

from __future__ import annotations

from pipelines.params import Ref, StageParams

VERSION = "1"


class Params(StageParams):
    of: tuple[Ref, ...]
    plus: int = 0


def run(params, inputs, out, report):
    total = sum(int((inputs[name].path / "number.txt").read_text()) for name in params.of) + params.plus
    report.update(1, 1, "added")
    (out / "number.txt").write_text(str(total))
    return {"total": total}
