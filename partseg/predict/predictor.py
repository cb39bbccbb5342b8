"""A detector with its vocabulary, ready to be called."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Literal, cast, get_args

import numpy as np
import torch
from numpy.typing import NDArray
from PIL import Image
from torch._dynamo.exc import BackendCompilerFailed

from partseg.errors import RecipeError, SourceError, WeightsError
from partseg.layout.images import read_rgb, to_rgb
from partseg.models.config import InferenceConfig
from partseg.models.structures import Detections
from partseg.models.vlpart import VLPart
from partseg.predict.linking import link_parts
from partseg.predict.prediction import NamedClass, Prediction
from partseg.predict.sources import embedded_classes, load

SCORE = 0.5

Precision = Literal["float32", "bf16"]

Photo = str | Path | Image.Image | NDArray[np.uint8]


class Predictor:
    """Finds the objects and parts of a vocabulary in photos.

    Args:
        model: on the device to compute on.
        classes: what to look for.
        text: [C, D] embeddings of the classes, D as the model takes them.
        options: sizes and thresholds; the model's own where not given.
        precision: ``bf16`` computes backbone and pyramid with 16 bits, the heads never.
        compile: translate backbone and pyramid with ``torch.compile``, at the first photo.

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
        precision: Precision = "float32",
        compile: bool = False,
    ) -> None:
        if text.shape != (len(classes), model.config.text_dim):
            raise WeightsError(
                f"the embeddings have shape {text.shape}; the model takes "
                f"{model.config.text_dim} numbers for each of {len(classes)} classes",
                fix="choose the text encoder the model was trained with",
            )
        self.model, self.classes = model.eval(), tuple(classes)
        self.amp = torch.bfloat16 if precision == "bf16" else None
        if compile:
            self.model.backbone.compile()
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
        objects: bool = True,
        precision: str = "float32",
        compile: bool = False,
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
            objects: look for the objects of the vocabulary's parts, too, where it does not name them, so that
                parts find their object; not with a model that was trained with parts only.
            precision: ``float32``, or ``bf16`` for backbone and pyramid: faster where the processor has it.
            compile: translate backbone and pyramid with ``torch.compile``; for many photos.

        Raises:
            WeightsError: the weights or the embeddings cannot be had, or do not fit.
            RecipeError: the vocabulary, the encoder or the device cannot be used.
        """
        where = choose_device(device)
        if precision not in get_args(Precision):
            raise RecipeError(f"precision {precision!r} is not known", fix="write float32 or bf16")
        if not 0 <= score <= 1:
            raise RecipeError(f"a score is between 0 and 1, not {score}")
        model, card = load(Path(path))
        classes, text = embedded_classes(
            card.vocabulary,
            vocabulary,
            encoder=encoder,
            weights=None if text_weights is None else Path(text_weights),
            table=None if embeddings is None else Path(embeddings),
            objects=objects,
        )
        return cls(
            model=model.to(where),
            classes=classes,
            text=text,
            options=model.config.inference.model_copy(update={"score_threshold": score}),
            precision=cast(Precision, precision),
            compile=compile,
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
        try:
            with torch.inference_mode():
                found = self.model.detect(images, self.text, self.options, amp=self.amp)
        except BackendCompilerFailed as error:
            raise RecipeError(
                f"the network cannot be compiled here ({error.inner_exception!s:.200})",
                fix="leave compile out, or install what it needs: a C++ compiler, for CUDA Triton",
            ) from error
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
