"""Reads the raw folder of its ancestors and offers a page for the end of the run."""

from __future__ import annotations

from pipelines.params import Ref, StageParams

VERSION = "1"


class Params(StageParams):
    of: Ref
    raw: str | None = None


def run(params, inputs, out, report):
    text = (inputs[params.of].path / "number.txt").read_text() if params.raw is None else ""
    if params.raw is not None:
        text = (inputs[params.of].raw[params.raw] / "number.txt").read_text()
    (out / "number.txt").write_text(text)
    return {}


def finish(artifact, run_summary, destination):
    states = " ".join(f"{stage['stage']}={stage['state']}" for stage in run_summary["stages"])
    destination.write_text(f"<p>{(artifact.path / 'number.txt').read_text()}</p><p>{states}</p>")
