"""What a detector found in one image."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from partseg.layout import rle_area, rle_to_mask
from partseg.predict.drawing import draw


@dataclass(frozen=True, slots=True, kw_only=True)
class NamedClass:
    """One class to look for.

    Attributes:
        category_id: the id of a published vocabulary; position + 1 for words of one's own.
        name: such as "dog" or "dog:head".
        kind: object or part.
        owner: position of the object that it is a part of in the list of classes, or -1.
    """

    category_id: int
    name: str
    kind: Literal["object", "part"] = "object"
    owner: int = -1


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Prediction:
    """What was found in one image, best score first.

    Attributes:
        pixels: the image, uint8 [H, W, 3] RGB, as people see it (EXIF orientation applied).
        boxes: float32 [N, 4] xyxy px of that image.
        scores: float32 [N] in 0..1.
        labels: int64 [N], positions in ``classes``.
        rles: N masks as compressed COCO run-lengths (the ``counts`` bytes) of size H × W; None from a
            detector that finds boxes only.
        part_of: int64 [N], row of the object each detection is a part of; -1 for objects, and for parts whose
            object was not found.
        classes: what was looked for.
    """

    pixels: NDArray[np.uint8]
    boxes: NDArray[np.float32]
    scores: NDArray[np.float32]
    labels: NDArray[np.int64]
    rles: tuple[bytes | None, ...]
    part_of: NDArray[np.int64]
    classes: tuple[NamedClass, ...]

    def __len__(self) -> int:
        return len(self.scores)

    @property
    def height(self) -> int:
        """Of the image, in pixels."""
        return int(self.pixels.shape[0])

    @property
    def width(self) -> int:
        """Of the image, in pixels."""
        return int(self.pixels.shape[1])

    @property
    def names(self) -> tuple[str, ...]:
        """The name of each detection."""
        return tuple(self.classes[label].name for label in self.labels.tolist())

    @property
    def kinds(self) -> tuple[str, ...]:
        """Whether each detection is an object or a part."""
        return tuple(self.classes[label].kind for label in self.labels.tolist())

    def mask(self, row: int) -> NDArray[np.bool_]:
        """The mask of a detection, bool [H, W]; that of its box where it has none."""
        rle = self.rles[row]
        if rle is not None:
            return rle_to_mask(rle, self.height, self.width)
        x0, y0, x1, y1 = (max(0, round(value)) for value in self.boxes[row].tolist())
        result = np.zeros((self.height, self.width), np.bool_)
        result[y0:y1, x0:x1] = True
        return result

    def parts(self, row: int) -> list[int]:
        """Rows of the parts of an object, best first."""
        return [int(part) for part in np.flatnonzero(self.part_of == row)]

    def crop(self, row: int) -> Image.Image:
        """The detection cut out: RGBA, the size of its box, transparent outside its mask, if any."""
        x0, y0, x1, y1 = self.boxes[row].tolist()
        x, y = min(int(x0), self.width - 1), min(int(y0), self.height - 1)
        window = np.s_[y : max(y + 1, int(np.ceil(y1))), x : max(x + 1, int(np.ceil(x1)))]
        cut = self.pixels[window]
        alpha = np.full(cut.shape[:2], 255, np.uint8)
        if self.rles[row] is not None:
            alpha = self.mask(row)[window].astype(np.uint8) * 255
        return Image.fromarray(np.dstack([cut, alpha]))

    def draw(self, *, legend: bool = True) -> Image.Image:
        """The image with its objects outlined, their parts tinted in shades of their colour, and names.

        Of a detection without a mask its box is drawn.

        Args:
            legend: whether to list below the image what is in it.
        """
        return draw(self, legend=legend)

    def to_coco(self, image_id: int = 1) -> list[dict[str, Any]]:
        """The detections as COCO results; without ``segmentation`` where there are no masks."""
        return [
            {
                "image_id": image_id,
                "category_id": self.classes[label].category_id,
                "bbox": xyxy_to_xywh(box),
                "score": round(score, 6),
            }
            | ({} if rle is None else {"segmentation": self._segmentation(rle)})
            for label, box, score, rle in zip(
                self.labels.tolist(), self.boxes.tolist(), self.scores.tolist(), self.rles, strict=True
            )
        ]

    def to_dict(self) -> dict[str, Any]:
        """Everything but the pixels, ready for JSON; ``part_of`` is a position in ``detections`` or null.

        ``area``, of the mask, and ``segmentation`` are null where there are no masks.
        """
        return {
            "height": self.height,
            "width": self.width,
            "detections": [
                {
                    "name": self.classes[label].name,
                    "kind": self.classes[label].kind,
                    "score": found["score"],
                    "box_xyxy": [_px(value) for value in box],
                    "area": None if rle is None else rle_area(rle),
                    "part_of": None if owner < 0 else owner,
                    "category_id": found["category_id"],
                    "segmentation": found.get("segmentation"),
                }
                for label, box, rle, owner, found in zip(
                    self.labels.tolist(),
                    self.boxes.tolist(),
                    self.rles,
                    self.part_of.tolist(),
                    self.to_coco(),
                    strict=True,
                )
            ],
        }

    def _segmentation(self, rle: bytes) -> dict[str, Any]:
        return {"size": [self.height, self.width], "counts": rle.decode()}


def xyxy_to_xywh(box: Sequence[float]) -> list[float]:
    """A box as COCO writes it."""
    x0, y0, x1, y1 = box
    return [_px(x0), _px(y0), _px(x1 - x0), _px(y1 - y0)]


def _px(value: float) -> float:
    """A coordinate to a hundredth of a pixel."""
    return round(value, 2)
