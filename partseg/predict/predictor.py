"""A detector with its vocabulary, ready to be called."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray
from PIL import Image

from partseg.errors import RecipeError, SourceError, WeightsError
from partseg.layout.images import read_rgb, to_rgb
from partseg.models.config import InferenceConfig
from partseg.models.structures import Detections
from partseg.models.vlpart import VLPart
from partseg.predict.linking import link_parts
from partseg.predict.prediction import NamedClass, Prediction
from partseg.predict.sources import embedded_classes, load

SCORE = 0.5

Photo = str | Path | Image.Image | NDArray[np.uint8]


class Predictor:
    """Finds the objects and parts of a vocabulary in photos.

    Args:
        model: on the device to compute on.
        classes: what to look for.
        text: [C, D] embeddings of the classes, D as the model takes them.
        options: sizes and thresholds; the model's own where not given.
        amp: ``torch.bfloat16`` computes backbone and pyramid with 16 bits; for CUDA.

    Example:
        >>> from partseg.predict import Predictor
        >>> predictor = Predictor.from_pretrained("model", vocabulary="dog,dog:head", encoder="offline:128")
        >>> found = predictor("photo.jpg")
        >>> found.boxes.shape == (len(found), 4) and set(found.names) <= {"dog", "dog:head"}
        True
        >>> masks = [found.mask(row) for row in range(len(found))]
        >>> all(mask.shape == (found.height, found.width) for mask in masks)
        True
        >>> found.draw().save("overlay.png")
        >>> results = found.to_coco(image_id=1)
    """

    def __init__(
        self,
        *,
        model: VLPart,
        classes: Sequence[NamedClass],
        text: NDArray[np.float32],
        options: InferenceConfig | None = None,
        amp: torch.dtype | None = None,
    ) -> None:
        if text.shape != (len(classes), model.config.text_dim):
            raise WeightsError(
                f"the embeddings have shape {text.shape}; the model takes "
                f"{model.config.text_dim} numbers for each of {len(classes)} classes",
                fix="choose the text encoder the model was trained with",
            )
        self.model, self.classes, self.amp = model.eval(), tuple(classes), amp
        self.text = torch.as_tensor(np.ascontiguousarray(text), device=model.pixel_mean.device)
        self.options = options or model.config.inference

    @classmethod
    def from_pretrained(
        cls,
        path: str | Path,
        vocabulary: str | None = None,
        *,
        encoder: str | None = None,
        text_weights: str | Path | None = None,
        embeddings: str | Path | None = None,
        device: str = "auto",
        score: float = SCORE,
        amp: str | None = None,
    ) -> Predictor:
        """Load a model and embed what it should look for.

        Args:
            path: a folder with ``model.json``, or a file of weights.
            vocabulary: a known dataset's name, words with commas between them, or a file of names. A model
                folder says what it was trained with; that is the default.
            encoder: what turns names into vectors; the model folder's own where not given.
            text_weights: a local file of the encoder's weights.
            embeddings: a table of vectors for the names, in place of an encoder.
            device: ``auto``, ``cpu``, ``cuda`` or ``cuda:1``.
            score: the least score of a detection.
            amp: ``bf16`` computes backbone and pyramid with 16 bits; for CUDA only.

        Raises:
            WeightsError: the weights or the embeddings cannot be had, or do not fit.
            RecipeError: the vocabulary, the encoder or the device cannot be used.
        """
        where = choose_device(device)
        if amp not in (None, "bf16"):
            raise RecipeError(f"amp {amp!r} is not known", fix="give bf16, or leave it out")
        if amp is not None and where.type != "cuda":
            raise RecipeError("amp bf16 is for CUDA", fix="leave it out")
        if not 0 <= score <= 1:
            raise RecipeError(f"a score is between 0 and 1, not {score}")
        model, card = load(Path(path))
        classes, text = embedded_classes(
            card.vocabulary,
            vocabulary,
            encoder=encoder,
            weights=None if text_weights is None else Path(text_weights),
            table=None if embeddings is None else Path(embeddings),
        )
        return cls(
            model=model.to(where),
            classes=classes,
            text=text,
            options=model.config.inference.model_copy(update={"score_threshold": score}),
            amp=torch.bfloat16 if amp else None,
        )

    def __call__(self, photo: Photo) -> Prediction:
        """What is in one photo: a path, a Pillow image, or an array [H, W, 3] RGB or [H, W] grey.

        Raises:
            SourceError: the photo cannot be read.
        """
        return self.predict([photo])[0]

    def predict(self, photos: Sequence[Photo]) -> list[Prediction]:
        """What is in some photos, which are computed at once.

        They are padded to a common size, which moves scores a little where their sizes differ.

        Raises:
            SourceError: a photo cannot be read.
        """
        if not photos:
            return []
        pixels = [as_pixels(photo) for photo in photos]
        # A copy with the channels first: Pillow's pixels are read-only.
        images = [torch.from_numpy(np.array(image.transpose(2, 0, 1), order="C")) for image in pixels]
        with torch.inference_mode():
            found = self.model.detect(images, self.text, self.options, amp=self.amp)
        return [self._prediction(image, detections) for image, detections in zip(pixels, found, strict=True)]

    def _prediction(self, pixels: NDArray[np.uint8], found: Detections) -> Prediction:
        labels, boxes = found.labels.numpy(), found.boxes.float().numpy()
        part_of = link_parts(
            labels, boxes, found.rles, (found.height, found.width), [item.owner for item in self.classes]
        )
        return Prediction(
            pixels=pixels,
            boxes=boxes,
            scores=found.scores.float().numpy(),
            labels=labels,
            rles=found.rles,
            part_of=part_of,
            classes=self.classes,
        )


def choose_device(name: str) -> torch.device:
    """The device of a name; ``auto`` is CUDA where there is one.

    Raises:
        RecipeError: there is no such device.
    """
    if name == "auto":
        return torch.device("cuda" if torch.cuda.is_available() else "cpu")
    try:
        device = torch.device(name)
    except RuntimeError as error:
        raise RecipeError(f"there is no device {name!r}", fix="write auto, cpu or cuda") from error
    if device.type == "cuda" and (device.index or 0) >= torch.cuda.device_count():
        raise RecipeError(f"device {name!r} was asked for, but there is no such GPU", fix="write auto or cpu")
    return device


def as_pixels(photo: Photo) -> NDArray[np.uint8]:
    """A photo as uint8 [H, W, 3] RGB.

    Raises:
        SourceError: it cannot be read, or is not a photo.
    """
    if isinstance(photo, str | Path):
        return read_rgb(Path(photo))
    if isinstance(photo, Image.Image):
        return to_rgb(photo)
    array = np.asarray(photo)
    if array.dtype == np.uint16:
        array = (array >> 8).astype(np.uint8)
    if array.ndim == 2:
        array = np.repeat(array[:, :, None], 3, axis=2)
    if array.dtype != np.uint8 or array.ndim != 3 or array.shape[2] not in (3, 4) or not array.size:
        raise SourceError(
            f"an array of {array.dtype} {array.shape} is not an image",
            fix="give uint8 [height, width, 3] RGB",
        )
    return np.ascontiguousarray(array[:, :, :3])
