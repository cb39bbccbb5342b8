"""The table of predictions: one row per predicted object or part.

A prediction file is one parquet table, sorted by image, then falling score, then category and
box. The order is total, so two runs that predict the same things write the same bytes, in
whatever order the predictions came.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from itertools import chain
from pathlib import Path

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.parquet as pq

from partseg.errors import PartsegError
from partseg.files import replacing_file

SCHEMA = pa.schema(
    [
        pa.field("image_id", pa.int64(), nullable=False),
        pa.field("category_id", pa.int32(), nullable=False),
        pa.field("score", pa.float64(), nullable=False),
        pa.field("bbox", pa.list_(pa.float64(), 4), nullable=False),  # x, y, width, height in pixels
        pa.field("rle", pa.large_binary()),  # COCO compressed counts; null where only a box is known
    ]
)


class PredictionError(PartsegError):
    """Predictions that cannot be read, or that do not belong to the data they are scored on."""


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Predictions:
    """Predicted objects or parts of any number of images.

    Attributes:
        image_ids: int64 [N].
        category_ids: int32 [N], ids of the category table of the dataset.
        scores: float64 [N].
        boxes_xywh: float64 [N, 4] in pixels of the original image.
        rles: N COCO compressed run-length counts of the mask in the original image, or None.
        attribute_probs: float64 [N, attributes] where a model tells attributes (PACO); not kept in files.
    """

    image_ids: npt.NDArray[np.int64]
    category_ids: npt.NDArray[np.int32]
    scores: npt.NDArray[np.float64]
    boxes_xywh: npt.NDArray[np.float64]
    rles: tuple[bytes | None, ...]
    attribute_probs: npt.NDArray[np.float64] | None = None

    def __len__(self) -> int:
        return len(self.image_ids)

    def __getitem__(self, rows: npt.NDArray[np.int64] | npt.NDArray[np.bool_] | slice) -> Predictions:
        """The chosen rows, as a boolean mask, indices or a slice."""
        if isinstance(rows, slice):
            rles = self.rles[rows]
        else:
            rles = tuple([self.rles[i] for i in np.arange(len(self))[rows].tolist()])
        return Predictions(
            image_ids=self.image_ids[rows],
            category_ids=self.category_ids[rows],
            scores=self.scores[rows],
            boxes_xywh=self.boxes_xywh[rows],
            rles=rles,
            attribute_probs=None if self.attribute_probs is None else self.attribute_probs[rows],
        )

    def of_image(self, image_id: int) -> Predictions:
        """The predictions of one image, in the order of the table."""
        return self[self.image_ids == image_id]

    def canonical(self) -> Predictions:
        """The same predictions in the order of the file: image, falling score, category, box, mask."""
        return self[self.order_by_score(self.image_ids)]

    def order_by_score(
        self, groups: npt.NDArray[np.int64], *, keep_order: bool = False
    ) -> npt.NDArray[np.int64]:
        """Rows by group, in it by falling score, and equal scores by category, box and mask.

        Args:
            groups: int64 [N].
            keep_order: leave equal scores of a group in the order they have.
        """
        order = np.lexsort((-self.scores, groups))
        same = (np.diff(groups[order]) == 0) & (np.diff(self.scores[order]) == 0)
        if keep_order or not same.any():
            return order
        tied = np.flatnonzero(np.append(same, False) | np.append(False, same))
        rows, run = order[tied], np.cumsum(np.append(True, ~same))[tied]
        keys = (*self.boxes_xywh[rows].T[::-1], self.category_ids[rows], run)
        place = np.lexsort(keys)
        equal = np.logical_and.reduce([np.diff(key[place]) == 0 for key in keys])
        sorted_rows = rows[place].tolist()
        if equal.any():
            starts = np.flatnonzero(np.append(True, ~equal)).tolist()
            for start, stop in zip(starts, [*starts[1:], len(place)], strict=True):
                if stop - start > 1:
                    twins = sorted(sorted_rows[start:stop], key=lambda row: self.rles[row] or b"")
                    sorted_rows[start:stop] = twins
        order[tied] = sorted_rows
        return order


def make(
    image_ids: npt.ArrayLike,
    category_ids: npt.ArrayLike,
    scores: npt.ArrayLike,
    boxes_xywh: npt.ArrayLike,
    rles: Iterable[bytes | None] | None = None,
    attribute_probs: npt.ArrayLike | None = None,
) -> Predictions:
    """Predictions from plain sequences.

    Args:
        image_ids: [N] image ids; a single number stands for all rows.
        category_ids: [N].
        scores: [N].
        boxes_xywh: [N, 4] pixels.
        rles: N mask run-lengths; without them the predictions are boxes only.
        attribute_probs: [N, attributes], probabilities of attributes, where there are any.

    Raises:
        PredictionError: the columns differ in length, or a score or a box is not finite.
    """
    categories = np.asarray(category_ids, dtype=np.int32).reshape(-1)
    n = len(categories)
    ids = np.asarray(image_ids, dtype=np.int64)
    result = Predictions(
        image_ids=np.full(n, ids) if ids.ndim == 0 else ids,
        category_ids=categories,
        scores=np.asarray(scores, dtype=np.float64).reshape(-1),
        boxes_xywh=np.asarray(boxes_xywh, dtype=np.float64).reshape(-1, 4),
        rles=tuple(rles) if rles is not None else (None,) * n,
        attribute_probs=None if attribute_probs is None else np.asarray(attribute_probs, np.float64),
    )
    lengths = {
        "image_ids": len(result.image_ids),
        "category_ids": n,
        "scores": len(result.scores),
        "boxes_xywh": len(result.boxes_xywh),
        "rles": len(result.rles),
        "attribute_probs": n if result.attribute_probs is None else len(result.attribute_probs),
    }
    if len(set(lengths.values())) > 1:
        raise PredictionError(f"columns of different length: {lengths}")
    if not (np.isfinite(result.scores).all() and np.isfinite(result.boxes_xywh).all()):
        raise PredictionError(
            "a score or a box is not a finite number", fix="look at the model that predicted it"
        )
    return result


def concatenate(parts: Iterable[Predictions]) -> Predictions:
    """All predictions of several tables, one after the other."""
    tables = list(parts)
    if not tables:
        return make([], [], [], [])
    return Predictions(
        image_ids=np.concatenate([t.image_ids for t in tables]),
        category_ids=np.concatenate([t.category_ids for t in tables]),
        scores=np.concatenate([t.scores for t in tables]),
        boxes_xywh=np.concatenate([t.boxes_xywh for t in tables]),
        rles=tuple(chain.from_iterable(t.rles for t in tables)),
        attribute_probs=_joined_probs([t.attribute_probs for t in tables if len(t)]),
    )


def _joined_probs(
    parts: list[npt.NDArray[np.float64] | None],
) -> npt.NDArray[np.float64] | None:
    """All rows, or nothing where a table has none."""
    found = [part for part in parts if part is not None]
    if not found or len(found) < len(parts) or len({part.shape[1] for part in found}) > 1:
        return None
    return np.concatenate(found)


def write_predictions(path: Path, predictions: Predictions) -> None:
    """Write a prediction table; the file appears complete or not at all.

    Args:
        path: the parquet file to write.
        predictions: rows in any order.
    """
    rows = predictions.canonical()
    boxes = pa.FixedSizeListArray.from_arrays(pa.array(rows.boxes_xywh.reshape(-1)), 4)
    table = pa.table(
        [
            pa.array(rows.image_ids),
            pa.array(rows.category_ids),
            pa.array(rows.scores),
            boxes,
            pa.array(rows.rles, type=pa.large_binary()),
        ],
        schema=SCHEMA,
    )
    with replacing_file(path) as temporary:
        pq.write_table(table, temporary, compression="zstd", compression_level=3, write_page_checksum=True)


def read_predictions(path: Path) -> Predictions:
    """Read a prediction table.

    Raises:
        PredictionError: the file is missing, damaged or another kind of table.
    """
    try:
        table = pq.read_table(path)
    except FileNotFoundError:
        raise PredictionError("there is no prediction file", where=path) from None
    except (pa.ArrowInvalid, OSError) as error:
        raise PredictionError(f"not a readable parquet file ({error})", where=path) from error
    missing = [name for name in SCHEMA.names if name not in table.column_names]
    if missing:
        raise PredictionError(f"not a prediction table: no column {', '.join(missing)}", where=path)
    columns = table.select(SCHEMA.names).cast(SCHEMA).combine_chunks()
    boxes = columns["bbox"].combine_chunks() if len(columns) else None
    return Predictions(
        image_ids=columns["image_id"].to_numpy(),
        category_ids=columns["category_id"].to_numpy(),
        scores=columns["score"].to_numpy(),
        boxes_xywh=np.zeros((0, 4)) if boxes is None else boxes.flatten().to_numpy().reshape(-1, 4),
        rles=tuple(columns["rle"].to_pylist()),
    )
