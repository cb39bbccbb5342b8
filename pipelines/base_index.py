"""Annotated base images → the index a parser looks them up in."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

from partseg.parsing.config import DescriptorConfig
from partseg.resume import code_digest, working_folder
from pipelines.artifact import Artifact, Metrics, StageContext
from pipelines.inputs import Group, chosen, open_dataset
from pipelines.params import Ref, StageParams
from pipelines.pretrained import load_describer

VERSION = "2"
CONFIG = "descriptor.json"


class Params(StageParams):
    """Which images may lend their parts, and how they are described.

    Attributes:
        descriptors: the pretrained stage of the vision transformer.
        data: the annotated dataset.
        split: one of its splits.
        group: only images whose object is of this group.
        reading: how descriptors are read; see :class:`partseg.parsing.config.DescriptorConfig`.
    """

    descriptors: Ref
    data: Ref
    split: str = "train"
    group: Group = "all"
    reading: DescriptorConfig = DescriptorConfig()


def run(params: Params, inputs: Mapping[str, Artifact], out: Path, report: StageContext) -> Metrics:
    """Index every image of the split that shows exactly one object with parts.

    Tokens that were read before an interruption are not read again.
    """
    from partseg.parsing.index import build_index

    dataset = open_dataset(inputs[params.data])
    with working_folder(
        report.work / "tokens", {"code": code_digest("parsing")}, doing="reading tokens", kept=True
    ) as work:
        index = build_index(
            dataset.split(params.split),
            load_describer(inputs[params.descriptors], params.reading),
            object_ids={c.category_id for c in dataset.categories if c.kind == "object"},
            part_ids={c.category_id for c in chosen(dataset.categories, kind="part", group=params.group)},
            work=work,
            report=report,
        )
        index.save(out)
    (out / CONFIG).write_text(params.reading.model_dump_json(indent=2) + "\n")
    return {"images": len(index.image_ids)}


def load_reading(artifact: Artifact) -> DescriptorConfig:
    """How the descriptors of an index were read: queries must be read alike."""
    return DescriptorConfig.model_validate_json((artifact.path / CONFIG).read_bytes())
