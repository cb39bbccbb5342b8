"""Raw files → a dataset in the common layout."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

from partseg.datasets.convert import convert
from pipelines.acquire import described
from pipelines.artifact import Artifact, Metrics, StageContext
from pipelines.params import Ref, StageParams

VERSION = "2"


class Params(StageParams):
    """``raw`` is the acquire stage; it says which format the files have and how to read them."""

    raw: Ref


def run(params: Params, inputs: Mapping[str, Artifact], out: Path, report: StageContext) -> Metrics:
    """Convert every split of the source."""
    source, options = described(inputs[params.raw])
    root = inputs[params.raw].raw[source]
    return convert(
        source,
        root,
        out,
        options=options,
        workers=report.workers,
        work=report.work / "shards",
        mapper=report.mapper,
        report=report,
    )
