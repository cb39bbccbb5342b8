"""What base images say about the parts of one image, and the vote over it.

A part is known by a key, the name it is written under, so that a cow's and a horse's leg vote together.
One lender alone decides everything, which is the published parser.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
import torch
from scipy import ndimage
from torch import Tensor

from partseg.parsing.base_images import BaseImage
from partseg.parsing.config import ParserConfig
from partseg.parsing.descriptors import Features
from partseg.parsing.transfer import carry, correspondences, return_distance

# So that a share of 1/3 is reached by 1 of 3 in floating point.
_SLACK = 1e-6


@dataclass(frozen=True, slots=True, kw_only=True)
class Lent:
    """The parts one base image lends, as they were found in the query image of h x w patches.

    Attributes:
        keys: for each of its P parts what it is called in the vote; one name may occur several times.
        partners: base patch of every query patch, int64 [h * w].
        cosine: how similar every patch is to its partner, float32 [h, w].
        carried: patches whose partner lies inside the part, bool [P, h, w].
        claims: those of them that count, bool [P, h, w].
    """

    keys: Sequence[str]
    partners: Tensor
    cosine: Tensor
    carried: Tensor
    claims: Tensor


@dataclass(frozen=True, slots=True, kw_only=True)
class Elected:
    """The P parts after the vote, in the order of the lenders and of their parts.

    Attributes:
        origins: for each part the position of the lender it is taken from, and its place among that
            lender's parts.
        patches: bool [P, h, w]; some are empty.
        cosine: mean over the lenders that see the part there, float32 [P, h, w].
        share: of the lenders with such a part, how many see it there, float32 [P, h, w].
        mutual: of the patches carried from its lender, the share that count, float32 [P]; 0 of none.
    """

    origins: tuple[tuple[int, int], ...]
    patches: Tensor
    cosine: Tensor
    share: Tensor
    mutual: Tensor


def lend(
    lender: BaseImage, keys: Sequence[str], query: Features, foreground: Tensor, config: ParserConfig
) -> Lent:
    """Carry the parts of one base image to an image.

    Args:
        lender: the base image.
        keys: what each of its parts is called in the vote.
        query: features of the image.
        foreground: patches of it that may belong to a part, bool [h, w], on the processor.
        config: whether patches have to find their way back.

    Returns:
        Tensors on the processor, wherever the patches were compared.
    """
    mutual = config.mutual_within
    found = correspondences(lender.features.descriptors, query.descriptors, back=mutual is not None)
    partners = found.partners.cpu()  # from here on there are a few thousand numbers
    carried = claims = carry(lender.grids.cpu(), partners, foreground)
    if found.back is not None and mutual is not None:
        distance = return_distance(partners, found.back.cpu(), query.grid[1])
        claims = carried & (distance <= mutual).view(query.grid)
    cosine = found.cosine.view(query.grid).cpu()
    return Lent(keys=keys, partners=partners, cosine=cosine, carried=carried, claims=claims)


def vote(lent: Sequence[Lent], needed: float, foreground: Tensor) -> Elected:
    """The parts of one image.

    How many parts of one name there are, and which is which, is taken from the first lender that finds any of
    them where the vote does. Patches the others add go to the nearest of these parts.

    Args:
        lent: what each base image says, the most similar first.
        needed: a patch belongs to a part if this share of the lenders that have the part say so.
        foreground: bool [h, w], for the shape of a result without parts.
    """
    names = dict.fromkeys(key for one in lent for key in one.keys)
    parts = sorted((part for key in names for part in _of(key, lent, needed)), key=lambda part: part.origin)
    mutual = [_kept(lent[lender], part) for (lender, part), *_ in parts]
    nothing = torch.zeros(0, *foreground.shape)
    return Elected(
        origins=tuple(part.origin for part in parts),
        patches=torch.stack([part.patches for part in parts]) if parts else nothing.bool(),
        cosine=torch.stack([part.cosine for part in parts]) if parts else nothing,
        share=torch.stack([part.share for part in parts]) if parts else nothing,
        mutual=torch.tensor(mutual, dtype=torch.float32),
    )


class _Part(NamedTuple):
    origin: tuple[int, int]
    patches: Tensor
    cosine: Tensor
    share: Tensor


def _of(key: str, lent: Sequence[Lent], needed: float) -> list[_Part]:
    """The parts of one name."""
    having = [i for i, one in enumerate(lent) if key in one.keys]
    said = torch.stack([lent[i].claims[_rows(lent[i], key)].any(dim=0) for i in having])
    count = said.sum(dim=0)
    agreed = count >= max(1.0, needed * len(having) - _SLACK)
    leads = (said & agreed).flatten(1).any(dim=1).tolist()
    leader = having[leads.index(True)] if True in leads else having[0]
    rows = _rows(lent[leader], key)
    cosine = (torch.stack([lent[i].cosine for i in having]) * said).sum(dim=0) / count.clamp_min(1)
    completed = _completed(lent[leader].claims[rows] & agreed, agreed)
    return [
        _Part(origin=(leader, row), patches=patches, cosine=cosine, share=count / len(having))
        for row, patches in zip(rows, completed, strict=True)
    ]


def _rows(lent: Lent, key: str) -> list[int]:
    return [i for i, own in enumerate(lent.keys) if own == key]


def _kept(lent: Lent, part: int) -> float:
    carried = int(lent.carried[part].sum())
    return int(lent.claims[part].sum()) / carried if carried else 0.0


def _completed(parts: Tensor, whole: Tensor) -> Tensor:
    """Parts [P, h, w] inside ``whole`` [h, w], and each patch of it they lack given to the nearest."""
    lacking = (whole & ~parts.any(dim=0)).numpy()
    present = torch.nonzero(parts.flatten(1).any(dim=1))[:, 0].tolist()
    if not present or not lacking.any():
        return parts
    distances = [ndimage.distance_transform_edt(~parts[i].numpy()) for i in present]
    nearest = np.stack(distances).argmin(axis=0)
    completed = parts.clone()
    for place, i in enumerate(present):
        completed[i] |= torch.from_numpy(lacking & (nearest == place))
    return completed
