"""Trains a small vision transformer for descriptors, on the images of the run itself.

For a world for which no released weights exist or can be fetched. Up to three signals are learned
together, each with its weight:

* The class token must tell the image-level label.
* On annotated base images, the descriptor of a patch must tell the part word under it ("head",
  whatever the animal). Nothing is known, or used, about the parts of other images.
* Two random views of an image are cut out, mirrored and recoloured. A place seen in both must have
  the same descriptor in both, and a different one from other places (InfoNCE).

Descriptors are the keys of the last block, as :mod:`partseg.parsing.descriptors` reads them. The
same images, configuration and number of threads give the same bytes. It is meant to take well under
a minute, so an interrupted run simply starts again.
"""

from __future__ import annotations

import math
from collections.abc import Collection, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import numpy.typing as npt
import orjson
import torch
from torch import Tensor, nn
from torch.nn import functional

from partseg.errors import TrainingError
from partseg.files import write_file
from partseg.layout import Category, Split, rle_to_mask
from partseg.parsing.config import PretrainConfig
from partseg.parsing.forward import Transformer, run_blocks
from partseg.parsing.vit import build_vit, normalise, resize, save_vit
from partseg.progress import Progress, Silent

WEIGHTS = "descriptors.safetensors"

# Descriptors are compared by their angle, so parts are told from their direction alone. The length
# decides how sharp the answer can get.
DIRECTION_LENGTH = 12.0


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class LabelledImage:
    """An image with what is known about it.

    Attributes:
        pixels: uint8 [H, W, 3].
        label: name of what it shows.
        parts: part word and mask bool [H, W] of every part, or None where nobody annotated parts.
    """

    pixels: npt.NDArray[np.uint8]
    label: str
    parts: Sequence[tuple[str, npt.NDArray[np.bool_]]] | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class _Samples:
    pixels: Tensor  # float32 [N, 3, S, S]
    labels: Tensor  # int64 [N]
    words: Tensor  # float32 [N, 1, S, S]: 0 unknown, 1 background, 2... part words
    label_names: list[str]
    part_words: list[str]

    def __getitem__(self, rows: Tensor) -> _Samples:
        return replace(self, pixels=self.pixels[rows], labels=self.labels[rows], words=self.words[rows])


def training_images(
    split: Split, categories: Sequence[Category], part_ids: Collection[int] = (), separator: str = ":"
) -> list[LabelledImage]:
    """The images of a split for which a label is known: their own, or the object in them.

    Args:
        split: a dataset of image-level labels or of annotated parts.
        categories: its categories.
        part_ids: parts that may be learned from; empty for a dataset without parts.
        separator: between object and part in names.
    """
    names = {c.category_id: c.name for c in categories}
    objects = {c.category_id for c in categories if c.kind == "object"}
    found = []
    for row in range(len(split)):
        record = split[row]
        shown = [i for i in record.category_ids.tolist() if i in objects] or record.pos_category_ids.tolist()
        if not shown:
            continue
        parts = [
            (names[i].partition(separator)[2], rle_to_mask(rle, record.height, record.width))
            for i, rle in zip(record.category_ids.tolist(), record.rles, strict=True)
            if i in part_ids and rle is not None
        ]
        image = split.read_image(row)
        found.append(LabelledImage(pixels=image, label=names[shown[0]], parts=parts or None))
    return found


def pretrain(
    config: PretrainConfig, images: Sequence[LabelledImage], out: Path, report: Progress | None = None
) -> dict[str, float]:
    """Train, and write ``descriptors.safetensors`` with its configuration beside it.

    Args:
        config: model and schedule.
        images: training images of any size.
        out: folder to write into; ``metrics.jsonl`` there holds the losses.
        report: told after every iteration.

    Returns:
        The mean losses over the last tenth of the iterations.

    Raises:
        TrainingError: there are fewer images than one batch, parts are to be learned but no image has
            any, or a loss is not finite.
    """
    if len(images) < config.batch:
        raise TrainingError(
            f"{len(images)} images do not fill a batch of {config.batch}",
            fix="use more images or a smaller batch",
        )
    if config.part_weight and not any(image.parts for image in images):
        raise TrainingError(
            "no image has parts to learn from",
            fix="add the annotated base images, or set part_weight to 0 and place_weight to 1",
        )
    report = report or Silent()
    samples = _samples(images, config.vit.image_size)
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(config.seed)
        model = build_vit(config.vit)
        heads = nn.ModuleDict(
            {
                "label": nn.Linear(config.vit.dim, len(samples.label_names)),
                "part": nn.Linear(config.vit.dim, 1 + len(samples.part_words)),
                "place": nn.Linear(config.vit.dim, 64),
            }
        )
        spread_positions(model)
    history = _fit(config, model, heads, samples, report)
    _write(out, config, model, history)
    last = history[-max(1, len(history) // 10) :]
    return {name: float(np.mean([row[name] for row in last])) for name in last[0]}


def _samples(images: Sequence[LabelledImage], side: int) -> _Samples:
    label_names = sorted({image.label for image in images})
    part_words = sorted({word for image in images for word, _ in image.parts or ()})
    words = torch.zeros(len(images), 1, side, side)
    for row, image in enumerate(images):
        if image.parts is not None:
            words[row] = 1
            for word, mask in sorted(image.parts, key=lambda part: -int(part[1].sum())):
                small = functional.interpolate(torch.from_numpy(mask)[None, None].float(), size=(side, side))
                words[row][small[0] > 0] = 2 + part_words.index(word)
    return _Samples(
        pixels=torch.stack([normalise(resize(image.pixels, (side, side))) for image in images]),
        labels=torch.tensor([label_names.index(image.label) for image in images]),
        words=words,
        label_names=label_names,
        part_words=part_words,
    )


def _fit(
    config: PretrainConfig,
    model: Transformer,
    heads: nn.ModuleDict,
    samples: _Samples,
    report: Progress,
) -> list[dict[str, float]]:
    parameters = [*model.parameters(), *heads.parameters()]
    optimiser = torch.optim.AdamW(
        parameters, lr=config.rate, weight_decay=config.weight_decay, betas=(0.9, 0.95)
    )
    draw = torch.Generator().manual_seed(config.seed)
    history = []
    model.train()
    for step in range(config.iterations):
        rate = learning_rate(config, step)
        for group in optimiser.param_groups:
            group["lr"] = rate
        chosen = torch.randperm(len(samples.labels), generator=draw)[: config.batch]
        losses = _losses(config, model, heads, samples[chosen], draw)
        total = torch.stack(list(losses.values())).sum()
        if not torch.isfinite(total):
            raise TrainingError(
                f"the loss is not finite at iteration {step + 1}", fix="lower the learning rate"
            )
        optimiser.zero_grad()
        total.backward()  # type: ignore[no-untyped-call]
        nn.utils.clip_grad_norm_(parameters, 1.0)
        optimiser.step()
        history.append({"loss": total.item(), **{name: loss.item() for name, loss in losses.items()}})
        report.update(step + 1, config.iterations, f"loss {history[-1]['loss']:.2f}")
    model.eval()
    return history


def learning_rate(config: PretrainConfig, step: int) -> float:
    """Linear over the first 20 iterations, then a half cosine down to nothing."""
    warm = min(1.0, (step + 1) / 20)
    return config.rate * warm * (0.5 + 0.5 * math.cos(math.pi * step / config.iterations))


def spread_positions(model: Transformer, scale: float = 0.3) -> None:
    """Start the position embedding as sines of row and column instead of noise.

    A short training cannot discover where patches are; from this start it need not.
    """
    assert model.pos_embed is not None
    side = round((model.pos_embed.shape[1] - 1) ** 0.5)
    waves = model.embed_dim // 4
    pitch = 30.0 ** (-torch.arange(waves) / waves)  # wavelengths of about 6 to 190 patches
    angle = torch.arange(side)[:, None] * pitch
    wave = torch.cat([angle.sin(), angle.cos()], dim=1)  # [side, 2 * waves]
    grid = torch.cat([wave[:, None].expand(-1, side, -1), wave[None].expand(side, -1, -1)], dim=2)
    with torch.no_grad():
        model.pos_embed[0, 1:, : 4 * waves] = scale * grid.reshape(side * side, -1)


@dataclass(frozen=True, slots=True, kw_only=True)
class Views:
    """Recoloured cut-outs of images.

    Attributes:
        pixels: [B, 3, S, S].
        to_image: [B, 2, 3], maps from coordinates (-1 to 1) in the view to those in the image.
    """

    pixels: Tensor
    to_image: Tensor


def random_views(images: Tensor, config: PretrainConfig, draw: torch.Generator) -> Views:
    """One random view of each image [B, 3, H, W]."""
    count = len(images)

    def uniform(*shape: int, low: float = 0.0, high: float = 1.0) -> Tensor:
        return low + (high - low) * torch.rand(shape, generator=draw)

    scale = uniform(count, low=config.smallest_crop).sqrt()
    to_image = torch.zeros(count, 2, 3)
    to_image[:, 0, 0] = scale * torch.where(uniform(count) < 0.5, -1.0, 1.0)
    to_image[:, 1, 1] = scale
    to_image[:, :, 2] = uniform(count, 2, low=-1.0) * (1 - scale)[:, None]
    size = [count, 3, config.crop, config.crop]
    grid = functional.affine_grid(to_image, size, align_corners=False)
    views = functional.grid_sample(images, grid, align_corners=False, padding_mode="reflection")
    gain = (0.25 * torch.randn(count, 3, 1, 1, generator=draw)).exp()
    views = views * gain + 0.35 * torch.randn(count, 3, 1, 1, generator=draw)
    grey = (uniform(count, 1, 1, 1) < 0.2).float()
    return Views(
        pixels=torch.lerp(views, views.mean(1, keepdim=True).expand_as(views), grey), to_image=to_image
    )


def _losses(
    config: PretrainConfig,
    model: Transformer,
    heads: nn.ModuleDict,
    samples: _Samples,
    draw: torch.Generator,
) -> dict[str, Tensor]:
    """The weighted losses; a signal of weight 0 costs nothing."""
    views = [random_views(samples.pixels, config, draw) for _ in range(2 if config.place_weight else 1)]
    seen = run_blocks(model, torch.cat([view.pixels for view in views]), config.vit.patch_size)
    losses: dict[str, Tensor] = {}
    if config.label_weight:
        told = heads["label"](model.norm(seen.token))
        losses["loss_label"] = functional.cross_entropy(told, samples.labels.repeat(len(views)))
    if config.part_weight and (samples.words > 0).any():
        words = torch.cat([words_seen(samples.words, view, seen.grid) for view in views])
        told = heads["part"](functional.normalize(seen.keys, dim=-1) * DIRECTION_LENGTH).mT
        losses["loss_part"] = functional.cross_entropy(told, words, ignore_index=-1)
    if config.place_weight:
        keys = heads["place"](seen.keys).mT.unflatten(2, seen.grid).chunk(2)  # [B, 64, h, w] twice
        places = torch.rand(len(samples.labels), config.places, 2, generator=draw) * 2 - 1
        other, shared = same_places(places, *views)
        a, b = _sample(keys[0], places)[shared], _sample(keys[1], other)[shared]
        losses["loss_place"] = contrast(a, b, config.temperature)
    weights = {"loss_label": config.label_weight, "loss_part": config.part_weight}
    return {name: weights.get(name, config.place_weight) * loss for name, loss in losses.items()}


def words_seen(words: Tensor, view: Views, grid: tuple[int, int]) -> Tensor:
    """Part words at the patches of a view, int64 [B, h * w].

    Args:
        words: float32 [B, 1, H, W]: 0 unknown, 1 background, 2... part words.
        view: which piece of each image is seen.
        grid: (h, w).

    Returns:
        -1 unknown, 0 background, 1... part words.
    """
    places = functional.affine_grid(view.to_image, [len(words), 1, *grid], align_corners=False)
    seen = functional.grid_sample(words, places, mode="nearest", align_corners=False)
    return seen.flatten(1).long() - 1


def same_places(places: Tensor, first: Views, second: Views) -> tuple[Tensor, Tensor]:
    """Where places of one view are in the other.

    Args:
        places: (x, y) in the first view, [B, N, 2], -1 to 1.
        first: the view they are in.
        second: the view to look in.

    Returns:
        (x, y) in the second view [B, N, 2], and whether they are inside it, bool [B, N].
    """
    factor, shift = _parts(first.to_image)
    in_image = places * factor + shift
    factor, shift = _parts(second.to_image)
    found = (in_image - shift) / factor
    return found, (found.abs() < 1).all(dim=-1)


def _parts(to_image: Tensor) -> tuple[Tensor, Tensor]:
    """Factors and shifts [B, 1, 2] of maps without rotation."""
    return to_image[:, None, :, :2].diagonal(dim1=-2, dim2=-1), to_image[:, None, :, 2]


def _sample(maps: Tensor, places: Tensor) -> Tensor:
    """Features [B, N, D] of maps [B, D, h, w] at (x, y) places [B, N, 2]."""
    return functional.grid_sample(maps, places[:, :, None], align_corners=False)[..., 0].mT


def contrast(a: Tensor, b: Tensor, temperature: float) -> Tensor:
    """InfoNCE: row i of ``a`` [N, D] belongs to row i of ``b`` and to no other, and the other way round."""
    logits = functional.normalize(a, dim=1) @ functional.normalize(b, dim=1).T / temperature
    target = torch.arange(len(a))
    return (functional.cross_entropy(logits, target) + functional.cross_entropy(logits.T, target)) / 2


def _write(
    out: Path, config: PretrainConfig, model: Transformer, history: Sequence[dict[str, float]]
) -> None:
    lines = b"".join(orjson.dumps({"iteration": i, **row}) + b"\n" for i, row in enumerate(history, start=1))
    out.mkdir(parents=True, exist_ok=True)
    write_file(out / "metrics.jsonl", lines)
    save_vit(out / WEIGHTS, model, config.vit, pretrain=config.model_dump(exclude={"vit"}))
