"""Images that only have a label → a dataset with pseudo-labels for their parts."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Literal

from pydantic import field_validator, model_validator

from partseg.errors import RecipeError
from partseg.layout import Category, Dataset, DatasetWriter
from partseg.parsing.config import ParserConfig, PictureSize
from partseg.parsing.naming import published_categories
from partseg.store.trees import canonical_json
from partseg.vocabulary import published, resolve
from pipelines.artifact import Artifact, Metrics, StageContext
from pipelines.base_index import load_reading
from pipelines.inputs import Group, chosen, open_dataset
from pipelines.params import Ref, StageParams
from pipelines.pretrained import load_describer
from pipelines.problems import suggestion
from pipelines.train import load_detector
from pipelines.vocabulary import load_table

if TYPE_CHECKING:
    from partseg.parsing.parts import Base

VERSION = "2"


class Params(StageParams):
    """What to parse, and with what.

    The base dataset does up to three things: its images lend their parts, its parts are what the detector
    looks for, and its categories are what is written. ``finds`` and ``writes`` take the last two from it.

    Attributes:
        images: a dataset with image-level labels.
        split: the split to parse; the result has a split of the same name.
        detector: the train stage of the base part model.
        vocabulary: embeddings of the names it looks for.
        by_detector: labels of the images that go to the detector: those named, ``all``, or ``base``, the
            objects of the base dataset. All others go to correspondence transfer.
        finds: a published vocabulary (``partseg vocabulary list``) that the detector looks for; by default
            the parts of the base dataset. Objects in it are written as they are found.
        writes: a published vocabulary whose names are written, beside the labels of the images; by default
            the categories of the base dataset.
        base: a dataset with masks of parts.
        base_split: the split of the base images.
        base_group: only objects of this group and their parts: those the detector was taught.
        index: for transfer, the base images.
        descriptors: for transfer, the vision transformer that the index was built with.
        reading: without an index, how large the images are for the detector; the index has a size of its own.
        parser: thresholds; see :class:`partseg.parsing.config.ParserConfig`.
    """

    images: Ref
    split: str = "train"
    detector: Ref
    vocabulary: Ref
    by_detector: Literal["base", "all"] | tuple[str, ...] = "base"
    finds: str | None = None
    writes: str | None = None
    base: Ref | None = None
    base_split: str = "train"
    base_group: Group = "base"
    index: Ref | None = None
    descriptors: Ref | None = None
    reading: PictureSize | None = None
    parser: ParserConfig = ParserConfig()

    @field_validator("finds", "writes")
    @classmethod
    def _known(cls, name: str | None) -> str | None:
        if name is not None and name not in (known := list(published())):
            raise ValueError(f"no vocabulary {name!r} is published; {suggestion(name, known)}")
        return name

    @model_validator(mode="after")
    def _together(self) -> Params:
        lenders = [name for name in ("base", "index", "descriptors") if getattr(self, name) is None]
        if self.by_detector != "all" and lenders:
            raise ValueError(f"transfer needs {' and '.join(lenders)}; or say by_detector: all")
        if self.by_detector == "all":
            if self.index or self.descriptors:
                raise ValueError("by_detector: all transfers nothing; leave out index and descriptors")
            if self.base and self.finds and self.writes:
                raise ValueError("nothing is taken from base; leave it out")
            if not self.base and not (self.finds and self.writes):
                raise ValueError("give base, or both finds and writes")
        if self.reading and (self.index or self.parser.detector_sees == "original"):
            why = "the index says how large" if self.index else "the detector sees the original"
            raise ValueError(f"reading changes nothing, {why}; leave it out")
        return self


def run(params: Params, inputs: Mapping[str, Artifact], out: Path, report: StageContext) -> Metrics:
    """Parse every image of the split.

    Raises:
        RecipeError: ``by_detector`` names something that is no label of the images.
    """
    import torch

    from partseg.parsing.detector import ModelDetector
    from partseg.parsing.parser import parse

    images = open_dataset(inputs[params.images])
    base = open_dataset(inputs[params.base]) if params.base else None
    labels = {c.category_id: c.name for c in images.categories}
    looked_for, objects = names_found(params, base)
    categories = names_written(params, base, list(labels.values()))
    reading = load_reading(inputs[params.index]) if params.index else params.reading or PictureSize()
    detector = load_detector(inputs[params.detector])
    with DatasetWriter(
        out,
        name=f"{images.manifest.name}_parsed",
        categories=categories,
        converter={"name": "partseg.parsing.parser", "settings": params.parser.model_dump(mode="json")},
        image_source=images.manifest.image_source,
        parents=[inputs[ref].digest for ref in (params.images, params.base, params.detector) if ref],
        origin="parse",
        run_id="parse-" + _fingerprint(params, inputs),
    ) as writer:
        return parse(
            params.parser,
            images.split(params.split),
            detector=ModelDetector(
                detector, looked_for, torch.from_numpy(load_table(inputs[params.vocabulary]).rows(looked_for))
            ),
            reading=reading,
            base=_lender(params, inputs, base) if base and params.index else None,
            by_detector=detected_labels(params, base, set(labels.values())),
            finds_objects=objects,
            labels=labels,
            writer=writer,
            split=params.split,
            categories=categories,
            report=report,
        )


def names_found(params: Params, base: Dataset | None) -> tuple[list[str], bool]:
    """What the detector looks for, and whether objects are among it."""
    if params.finds:
        vocabulary = resolve(params.finds)
        return list(vocabulary.names), "object" in vocabulary.kinds
    return [c.name for c in chosen(_of(base), kind="part", group=params.base_group)], False


def names_written(params: Params, base: Dataset | None, labels: list[str]) -> tuple[Category, ...]:
    """The category table of the result."""
    return published_categories(params.writes, labels) if params.writes else _of(base)


def _of(base: Dataset | None) -> tuple[Category, ...]:
    assert base is not None, "the parameters ask for a base dataset where it is needed"
    return tuple(base.categories)


def detected_labels(params: Params, base: Dataset | None, labels: set[str]) -> set[str]:
    """Labels whose images go to the detector.

    Raises:
        RecipeError: one of those that the parameters name is not there.
    """
    if params.by_detector == "all":
        return labels
    if params.by_detector == "base":
        return {c.name for c in chosen(_of(base), kind="object", group=params.base_group)}
    for name in params.by_detector:
        if name not in labels:
            raise RecipeError(
                f"by_detector: {params.images} has no label {name!r}", fix=suggestion(name, sorted(labels))
            )
    return set(params.by_detector)


def _lender(params: Params, inputs: Mapping[str, Artifact], dataset: Dataset) -> Base:
    """The base images that lend their parts."""
    from partseg.parsing.index import BaseImages, BaseIndex
    from partseg.parsing.parts import Base

    assert params.index is not None
    assert params.descriptors is not None
    index = BaseIndex.load(inputs[params.index].path)
    describer = load_describer(inputs[params.descriptors], load_reading(inputs[params.index]))
    lent = {c.category_id: c.name for c in chosen(dataset.categories, kind="part", group=params.base_group)}
    return Base(
        index=index,
        images=BaseImages(dataset.split(params.base_split), index, describer, part_ids=set(lent)),
        describer=describer,
        part_names=lent,
    )


def _fingerprint(params: Params, inputs: Mapping[str, Artifact]) -> str:
    """Names this parse in every annotation it writes, the same wherever it runs."""
    made_from = {"params": params.model_dump(mode="json"), "inputs": [a.digest for a in inputs.values()]}
    return hashlib.sha256(canonical_json(made_from)).hexdigest()[:12]
