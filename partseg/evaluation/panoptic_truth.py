"""True maps out of a dataset in the common layout: segments, uids and classes of any image of a split."""

from __future__ import annotations

from functools import cached_property
from typing import Any

import numpy as np

from partseg.errors import LayoutError
from partseg.evaluation.match_counts import ImageId
from partseg.evaluation.panoptic_image import PanopticImage, ThingOrStuff
from partseg.evaluation.part_specs import PartSpec, published_spec, spec_of
from partseg.layout import Dataset, Split
from partseg.layout.export.panoptic import PANOPTIC_IDS, require_uids, source_ids
from partseg.layout.export.semantic import Ids, Kind, Painter, values_of
from partseg.layout.runs import Ints, Runs, relabel_runs
from partseg.layout.uids import unpack_uids


class Truth:
    """A split and the names that predictions give to its images.

    It pickles only its paths. The images have the ids that the layout gives them.

    Args:
        dataset: in the common layout.
        split: name of the split.

    Raises:
        LayoutError: there is no such split.
    """

    def __init__(self, dataset: Dataset, split: str) -> None:
        self.dataset, self.split_name = dataset, split
        self.split: Split = dataset.split(split)

    def __reduce__(self) -> tuple[Any, ...]:
        return _open, (type(self), self.dataset.folder, self.dataset.cache, self._state())

    def _state(self) -> tuple[Any, ...]:
        return (self.split_name,)

    def __len__(self) -> int:
        return len(self.split)

    def image_id(self, index: int) -> int:
        """The layout's id of an image."""
        return int(self._images["image_id"][index])

    def key(self, index: int) -> ImageId:
        """The source's number of an image, or its name where it has none."""
        number = int(self._images["source_id"][index])
        return number if number >= 0 else str(self.split.batch("images")["source_key"][index].as_py())

    def file_name(self, index: int) -> str:
        """The file of an image, relative to the raw folder."""
        return str(self.split.batch("images")["file_name"][index].as_py())

    @cached_property
    def _images(self) -> dict[str, Ints]:
        batch = self.split.batch("images")
        return {name: batch[name].to_numpy() for name in ("image_id", "source_id", "ann_offset")}

    @cached_property
    def _source_ids(self) -> Ints:
        return np.asarray(self.split.batch("annotations")["source_id"].to_numpy())


class PanopticTruth(Truth):
    """Segments: things, stuff and crowds. Of a panoptic-parts dataset the evaluated classes, without parts.

    Raises:
        LayoutError: there is no such split, or it has no panoptic maps.
    """

    def __init__(self, dataset: Dataset, split: str) -> None:
        super().__init__(dataset, split)
        if not self.split.entry.panoptic:
            raise LayoutError(
                f"split {split} has no panoptic maps",
                where=dataset.folder,
                fix="convert coco_panoptic, cityscapes_pp or pascal_pp",
            )
        self.is_parts = self.split.entry.details.get(PANOPTIC_IDS) == "panoptic-parts"

    def categories(self) -> tuple[ThingOrStuff, ...]:
        """The evaluated classes, with the layout's ids."""
        return tuple(
            ThingOrStuff(item.category_id, item.name, item.is_thing)
            for item in self.dataset.categories
            if item.kind != "part" and (not self.is_parts or item.extra)
        )

    def category_of(self) -> dict[int, int]:
        """The layout's category for each of the source, which predictions name."""
        evaluated = {item.category_id for item in self.categories()}
        return {
            source: category for category, source in source_ids(self.dataset).items() if category in evaluated
        }

    def image(self, index: int) -> PanopticImage:
        """The segments of an image.

        Raises:
            LayoutError: the image has no map.
        """
        record, runs = self.split[index], self.split.panoptic(index).runs
        start = int(self._images["ann_offset"][index])
        ids = self._source_ids[start : start + len(record.ann_ids)]
        chosen = (record.parent_rows < 0) & (ids >= 0) & ~record.is_ignore
        if self.is_parts:
            wholes = unpack_uids(runs.labels).sids_iids
            runs = relabel_runs(runs, np.where(np.isin(wholes, ids[chosen]), wholes, 0))
        return PanopticImage(
            labels=runs,
            ids=ids[chosen],
            category_ids=record.category_ids[chosen].astype(np.int64),
            is_crowd=record.is_crowd[chosen],
            areas=record.areas[chosen],
        )


class PartTruth(Truth):
    """Uids of a panoptic-parts dataset, and what an evaluation makes of them.

    Args:
        dataset: converted from cityscapes_pp or pascal_pp.
        split: name of the split.
        spec: a published specification; by default that of the dataset's own category table.

    Raises:
        LayoutError: there is no such split or specification, or the split has no uids.
    """

    def __init__(self, dataset: Dataset, split: str, spec: str | None = None) -> None:
        super().__init__(dataset, split)
        require_uids(dataset, split)
        self.spec_name = spec
        self.spec: PartSpec = (
            spec_of(dataset.manifest.name, dataset.categories) if spec is None else published_spec(spec)
        )

    def _state(self) -> tuple[Any, ...]:
        return (self.split_name, self.spec_name)

    def runs(self, index: int) -> Runs:
        """The uids of an image.

        Raises:
            LayoutError: the image has no map.
        """
        return self.split.panoptic(index).runs


class SemanticTruth(Truth):
    """The class of every pixel, from panoptic maps or from masks; see ``write_semantic``.

    Args:
        dataset: one with masks or panoptic maps.
        split: name of the split.
        ids: "train" for 0, 1, 2, ... in the published order, "category" for the layout's ids, "source" for
            the source's.
        kind: "object" for objects and stuff, "part" for parts alone, "both" for parts over objects.
        ignore: value of the pixels that belong to nothing.

    Raises:
        LayoutError: there is no such split, or nothing of this kind.
    """

    def __init__(
        self, dataset: Dataset, split: str, *, ids: Ids = "train", kind: Kind = "object", ignore: int = 255
    ) -> None:
        super().__init__(dataset, split)
        self.ids, self.kind, self.ignore = ids, kind, ignore
        self._category_values = values_of(dataset, ids, kind)
        if ignore in self._category_values.values():
            raise LayoutError(
                f"{ignore} is the value of a category, so it cannot mean that pixels do not count",
                where=dataset.folder,
                fix="choose another value to ignore, or ids 'train'",
            )

    def _state(self) -> tuple[Any, ...]:
        return (self.split_name, self.ids, self.kind, self.ignore)

    def classes(self) -> dict[int, str]:
        """Name of every class by the value of its pixels, in ascending order."""
        names = {item.category_id: item.name for item in self.dataset.categories}
        by_value = sorted((value, names[category]) for category, value in self._category_values.items())
        return dict(by_value)

    def runs(self, index: int) -> Runs:
        """The values of an image's pixels."""
        return self._painter.runs(index, self.split[index])

    @cached_property
    def _painter(self) -> Painter:
        return Painter(self.dataset, self.split, self._category_values, self.kind, self.ignore)


def _open(kind: type[Truth], folder: Any, cache: Any, state: tuple[Any, ...]) -> Truth:
    dataset = Dataset.open(folder, cache=cache)
    if kind is SemanticTruth:
        split, ids, values, ignore = state
        return SemanticTruth(dataset, split, ids=ids, kind=values, ignore=ignore)
    return kind(dataset, *state)
