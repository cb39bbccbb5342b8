"""What form predictions in files have."""

from __future__ import annotations

import mmap
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from PIL import Image

from partseg.errors import PartsegError
from partseg.evaluation.panoptic_truth import PanopticTruth
from partseg.evaluation.predictions import PredictionError
from partseg.layout import Dataset

Form = Literal["table", "results", "panoptic", "parts", "semantic"]

MEANING: dict[Form, str] = {
    "table": "a table of predictions (parquet)",
    "results": "COCO results JSON",
    "panoptic": "COCO panoptic JSON with PNG",
    "parts": "part-aware panoptic maps",
    "semantic": "maps of classes",
}

TABLE = "predictions.parquet"
_MAPS = (".png", ".tif", ".tiff")
_FIX = "give a predictions.parquet, COCO results JSON, panoptic JSON with its PNGs, or a folder of maps"


@dataclass(frozen=True, slots=True, kw_only=True)
class Found:
    """Predictions in files.

    Attributes:
        path: the file, or the folder of maps.
        folder: of the PNGs of a panoptic JSON.
    """

    form: Form
    path: Path
    folder: Path | None = None


def find(path: Path, dataset: Dataset, split: str) -> Found:
    """Recognise predictions.

    Args:
        path: a file or a folder.
        dataset: if it is panoptic-parts, maps of three channels or of numbers above 255 are part-aware.
        split: name of the split.

    Raises:
        PredictionError: there is nothing, or nothing known.
    """
    if path.is_dir():
        if (path / TABLE).is_file():
            return Found(form="table", path=path / TABLE)
        files = sorted(item for item in path.glob("*.json") if _has_segments(item))
        if len(files) > 1:
            raise PredictionError(
                f"{len(files)} panoptic JSON files", where=path, fix=f"name one of them, such as {files[0]}"
            )
        if files:
            return _panoptic(files[0])
        return Found(form=_of_maps(path, dataset, split), path=path)
    if not path.is_file():
        raise PredictionError("there are no predictions", where=path, fix=_FIX)
    if path.suffix == ".parquet":
        return Found(form="table", path=path)
    if path.suffix == ".json":
        return _panoptic(path) if _has_segments(path) else Found(form="results", path=path)
    raise PredictionError(
        f"{path.suffix or 'a file without suffix'} is no form of predictions", where=path, fix=_FIX
    )


def _panoptic(path: Path) -> Found:
    """A panoptic JSON; its maps lie in the folder of its name, or else beside it."""
    own = path.with_suffix("")
    return Found(form="panoptic", path=path, folder=own if own.is_dir() else path.parent)


def _has_segments(path: Path) -> bool:
    if not path.stat().st_size:
        return False
    with path.open("rb") as stream, mmap.mmap(stream.fileno(), 0, access=mmap.ACCESS_READ) as content:
        return content.find(b'"segments_info"') >= 0


def _of_maps(folder: Path, dataset: Dataset, split: str) -> Form:
    maps = sorted(item for item in folder.rglob("*") if item.suffix.lower() in _MAPS)
    if not maps:
        raise PredictionError("neither JSON, nor parquet, nor maps in this folder", where=folder, fix=_FIX)
    entry = dataset.split(split).entry
    with_parts = bool(entry.panoptic) and PanopticTruth(dataset, split).is_parts
    return "parts" if with_parts and _are_uids(maps) else "semantic"


def _are_uids(maps: Sequence[Path]) -> bool:
    """Whether maps hold more than classes; the largest of a few files tell most."""
    for path in sorted(maps, key=lambda item: -item.stat().st_size)[:8]:
        try:
            with Image.open(path) as image:
                if image.mode in ("RGB", "RGBA"):
                    return True
                if image.mode not in ("L", "P") and float(image.getextrema()[1]) > 255:  # type: ignore[arg-type]
                    return True
        except (OSError, ValueError) as error:
            raise PredictionError(f"the map is damaged ({error})", where=path) from error
    return False


def require(found: Found, forms: Sequence[Form], protocol: str) -> None:
    """Refuse predictions that a protocol cannot be used for.

    Raises:
        PartsegError: names both.
    """
    if found.form not in forms:
        raise PartsegError(
            f"the protocol {protocol} does not evaluate {MEANING[found.form]}",
            where=found.path,
            fix=f"it takes {' or '.join(MEANING[form] for form in forms)}",
        )
