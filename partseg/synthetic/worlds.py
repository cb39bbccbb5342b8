"""The made-up world of each source: how much of it is drawn, and what writes it."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from pydantic import BaseModel, ConfigDict, Field, ValidationError

from partseg.datasets.catalogue import source_options
from partseg.errors import SourceError
from partseg.synthetic.raw_coco import write_coco
from partseg.synthetic.raw_coco_json import write_coco_json
from partseg.synthetic.raw_files import write_imagenet_folder, write_pascal_part
from partseg.synthetic.raw_imagenet import write_imagenet_subset
from partseg.synthetic.raw_lvis import write_lvis
from partseg.synthetic.raw_paco import write_paco_ego4d, write_paco_lvis
from partseg.synthetic.raw_panoptic import write_coco_panoptic
from partseg.synthetic.raw_partimagenet import write_partimagenet
from partseg.synthetic.raw_uids import write_cityscapes_pp, write_pascal_pp
from partseg.synthetic.raw_voc import write_voc2007
from partseg.validation import faults


class World(BaseModel):
    """What every world has; the same settings give the same bytes.

    Attributes:
        seed: another seed shows other scenes.
        size: width of the images, pixels.
    """

    model_config = ConfigDict(extra="forbid", frozen=True)

    seed: int = Field(default=0, ge=0)
    size: int = Field(default=128, ge=32)


class SplitWorld(World):
    """How many images of the train and the val split (for Pascal-PP: training and validation)."""

    train: int = Field(default=8, ge=1)
    val: int = Field(default=4, ge=1)


class TestedWorld(SplitWorld):
    """As :class:`SplitWorld`, with a test split."""

    test: int = Field(default=2, ge=1)


class FolderWorld(World):
    """How many images of each class folder that the source's options name."""

    per_class: int = Field(default=3, ge=1)


class SubsetWorld(FolderWorld):
    """As :class:`FolderWorld`, with images that are larger than the selections take.

    Attributes:
        large: in so many folders the first image is too large.
    """

    large: int = Field(default=2, ge=0)


Writer = Callable[[Path, Any, Mapping[str, Any]], None]
"""Writes a world: root, settings, and the options of the source, which may say which folders there are."""


def _drawn(write: Callable[..., None]) -> Writer:
    """The writer of a world that the source's options have no say in."""
    return lambda root, settings, _: write(root, **settings.model_dump())


def _folders(root: Path, settings: FolderWorld, options: Mapping[str, Any]) -> None:
    checked: Any = source_options("imagenet_folder", options)
    write_imagenet_folder(root, classes=checked.folders(), **settings.model_dump())


def _lvis(root: Path, settings: SplitWorld, options: Mapping[str, Any]) -> None:
    checked: Any = source_options("lvis_v1", options)
    write_lvis(root, minival="minival" in checked.splits, **settings.model_dump())


def _subset(root: Path, settings: SubsetWorld, options: Mapping[str, Any]) -> None:
    checked: Any = source_options("imagenet_subset", options)
    write_imagenet_subset(root, wnids=checked.wnids(), **settings.model_dump())


WORLDS: Mapping[str, tuple[type[World], Writer]] = {
    "cityscapes_pp": (SplitWorld, _drawn(write_cityscapes_pp)),
    "coco": (SplitWorld, _drawn(write_coco)),
    "coco_json": (SplitWorld, _drawn(write_coco_json)),
    "coco_panoptic": (SplitWorld, _drawn(write_coco_panoptic)),
    "imagenet_folder": (FolderWorld, _folders),
    "imagenet_subset": (SubsetWorld, _subset),
    "lvis_v1": (SplitWorld, _lvis),
    "paco_ego4d_v1": (TestedWorld, _drawn(write_paco_ego4d)),
    "paco_lvis_v1": (TestedWorld, _drawn(write_paco_lvis)),
    "partimagenet": (TestedWorld, _drawn(write_partimagenet)),
    "partimagenet_supercat": (TestedWorld, _drawn(write_partimagenet)),
    "pascal_part": (SplitWorld, _drawn(write_pascal_part)),
    "pascal_pp": (SplitWorld, _drawn(write_pascal_pp)),
    "voc2007": (SplitWorld, _drawn(write_voc2007)),
}
"""Settings and writer of each source's world."""


def world_settings(source: str, settings: Mapping[str, Any]) -> World:
    """The settings of the world of ``source``, checked.

    Raises:
        SourceError: there is no such world, or a setting is unknown or has the wrong type.
    """
    model = _world(source)[0]
    try:
        return model.model_validate(dict(settings))
    except ValidationError as error:
        known = ", ".join(model.model_fields)
        raise SourceError(f"synthetic {source}: {faults(error)}", fix=f"it takes {known}") from error


def make_up(
    source: str,
    root: Path,
    settings: Mapping[str, Any] | World,
    options: Mapping[str, Any] | None = None,
) -> None:
    """Write the made-up world of ``source``.

    Args:
        source: name of the raw format.
        root: created where it does not exist.
        settings: how much is drawn.
        options: options of the source, where they say which folders there are.

    Raises:
        SourceError: there is no such world, or a setting or option is wrong.
    """
    write = _world(source)[1]
    if not isinstance(settings, World):
        settings = world_settings(source, settings)
    write(root, settings, options or {})


def _world(source: str) -> tuple[type[World], Writer]:
    if source not in WORLDS:
        raise SourceError(f"nothing is made up for {source!r}", fix=f"there are: {', '.join(WORLDS)}")
    return WORLDS[source]
