"""Images that only have a label → a dataset with pseudo-labels for their parts."""

from __future__ import annotations

import hashlib
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

from pydantic import field_validator, model_validator

from partseg.errors import RecipeError
from partseg.layout import Category, Dataset, DatasetWriter, ImageRecord, Record
from partseg.parsing.config import ParserConfig, PictureSize
from partseg.parsing.naming import published_categories
from partseg.parsing.shards import OpenParser, parsing_folder
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

VERSION = "3"

COUNTS = ("images", "images_with_parts", "parts", "by_detector", "by_transfer")


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

    The processes of ``report.launch`` share the images, on this machine alone, however many nodes train. Each
    computes with as many threads as a run without processes: another number could change a digit. What one of
    them has finished outlives a kill.

    Raises:
        RecipeError: ``by_detector`` names something that is no label of the images.
        PartsegError: a process died, or something is wrong with an input.
    """
    images = open_dataset(inputs[params.images])
    base = open_dataset(inputs[params.base]) if params.base else None
    split, labels = images.split(params.split), _labels(images)
    categories = names_written(params, base, list(labels.values()))
    tally = _Tally(labels, detected_labels(params, base, set(labels.values())), categories)
    made_from = _made_from(params, inputs)
    with parsing_folder(report.work / "shards", made_from, len(split)) as shards:
        shards.make(
            partial(_open_parser_on, params, inputs),
            processes=report.launch.sharing(),
            parts=tally.parts,
            report=report,
        )
        writer = DatasetWriter(
            out,
            name=f"{images.manifest.name}_parsed",
            categories=categories,
            converter={"name": "partseg.parsing.parser", "settings": params.parser.model_dump(mode="json")},
            image_source=images.manifest.image_source,
            parents=[inputs[ref].digest for ref in (params.images, params.base, params.detector) if ref],
            origin="parse",
            run_id="parse-" + hashlib.sha256(canonical_json(made_from)).hexdigest()[:12],
            source_records={params.split: len(split)},
        )
        with writer:
            for source, record in zip(split, _selected(shards.records(), params.parser), strict=True):
                writer.write(params.split, record)
                tally.take(source, record)
    return tally.metrics()


def open_parser(params: Params, inputs: Mapping[str, Artifact]) -> OpenParser:
    """The stage's parser, its models loaded on the best device there is, and the images it is for.

    Raises:
        RecipeError: ``by_detector`` names something that is no label of the images.
        PartsegError: an input is damaged, or does not fit the others.
    """
    import torch

    from partseg.parsing.detector import ModelDetector
    from partseg.parsing.parser import Parser

    images = open_dataset(inputs[params.images])
    base = open_dataset(inputs[params.base]) if params.base else None
    labels = _labels(images)
    looked_for, objects = names_found(params, base)
    embeddings = torch.from_numpy(load_table(inputs[params.vocabulary]).rows(looked_for))
    parser = Parser(
        params.parser,
        detector=ModelDetector(load_detector(inputs[params.detector]), looked_for, embeddings),
        reading=load_reading(inputs[params.index]) if params.index else params.reading or PictureSize(),
        base=_lender(params, inputs, base) if base and params.index else None,
        by_detector=detected_labels(params, base, set(labels.values())),
        finds_objects=objects,
        labels=labels,
        categories=names_written(params, base, list(labels.values())),
    )
    return OpenParser(parser=parser, images=images.split(params.split))


def _open_parser_on(params: Params, inputs: Mapping[str, Artifact], number: int) -> OpenParser:
    """The parser for one of several processes; where there are GPUs, they take turns."""
    import torch

    if torch.cuda.is_available():
        torch.cuda.set_device(number % torch.cuda.device_count())
    return open_parser(params, inputs)


def _selected(records: Iterable[Record], config: ParserConfig) -> Iterable[Record]:
    """The records that are written, as many as there were; only a quota needs them all in memory."""
    if config.images_per_class is None:
        return records
    from partseg.parsing.parser import select

    return select(list(records), config)


class _Tally:
    """What the stage tells about its result."""

    def __init__(self, labels: Mapping[int, str], detected: set[str], categories: Sequence[Category]) -> None:
        self.parts = frozenset(c.category_id for c in categories if c.kind == "part")
        self._labels, self._detected = labels, detected
        self._counts = dict.fromkeys(COUNTS, 0)
        self._parts_of: Counter[str] = Counter()
        self._reasons: Counter[str] = Counter()

    def take(self, source: ImageRecord, record: Record) -> None:
        """An image of the split and what became of it."""
        parts = sum(row.category_id in self.parts for row in record.annotations)
        self._counts["images"] += 1
        self._counts["images_with_parts"] += record.image is not None
        self._counts["parts"] += parts
        self._reasons.update(finding.reason for finding in record.findings)
        if len(source.pos_category_ids):
            label = self._labels[int(source.pos_category_ids[0])]
            self._counts["by_detector" if label in self._detected else "by_transfer"] += 1
            self._parts_of[label] += parts

    def metrics(self) -> dict[str, int]:
        """Counts: of images and parts, of images by path, of images left out by reason, of parts by label."""
        left_out = {reason.replace("-", "_"): count for reason, count in sorted(self._reasons.items())}
        by_label = {f"parts/{label}": count for label, count in sorted(self._parts_of.items())}
        return {**self._counts, **left_out, **by_label}


def _labels(images: Dataset) -> dict[int, str]:
    return {c.category_id: c.name for c in images.categories}


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
    from partseg.parsing.base_images import BaseImages
    from partseg.parsing.index import BaseIndex
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


def _made_from(params: Params, inputs: Mapping[str, Artifact]) -> dict[str, Any]:
    """What every record depends on, the same wherever it is made."""
    return {"params": params.model_dump(mode="json"), "inputs": [a.digest for a in inputs.values()]}
