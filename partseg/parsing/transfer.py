"""Carrying part masks from an annotated image to another one.

Every patch of the query image finds the base patch it resembles most. A part's mask in the query
is the set of foreground patches whose partner lies inside that part's mask in the base image, of
which the largest connected piece is kept. The steps follow VLPart's parser (facebookresearch/VLPart,
parser_net_mixer); each one is a function of its own.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
import torch
from scipy import ndimage
from torch import Tensor
from torch.nn import functional

PATCH_EPS = 1e-8  # smallest norm of a descriptor that is divided by, as published
CHUNK = 2**22  # cosines held at once when patches are compared: 16 MiB, whatever the size of the images


@dataclass(frozen=True, slots=True, kw_only=True)
class Transferred:
    """P part masks carried to a query image.

    Attributes:
        patches: bool [P, h, w] on the query's grid of patches; a part that was not found is empty.
        boxes: float32 [P, 4] xyxy in pixels of the described image; zeros for an empty mask.
        similarity: mean cosine over the patches of each mask, float32 [P]; 0 for an empty mask.
        size: (H, W) of the described image.
    """

    patches: Tensor
    boxes: Tensor
    similarity: Tensor
    size: tuple[int, int]

    @property
    def masks(self) -> Tensor:
        """The masks in pixels of the described image, bool [P, H, W].

        Every pixel a patch has any influence on is inside, as published, so these are up to a patch wider
        than the part.
        """
        return upsample(self.patches, self.size)


class Correspondences(NamedTuple):
    """Which patches of two images belong together.

    Attributes:
        partners: for every query patch the most similar base patch, int64 [Nq], the first on ties.
        cosine: how similar it is, float32 [Nq].
        back: for every base patch the most similar query patch, int64 [Nb]; None where not asked for.
    """

    partners: Tensor
    cosine: Tensor
    back: Tensor | None


def correspondences(base: Tensor, query: Tensor, *, back: bool = False) -> Correspondences:
    """Compare all patches of two images.

    Beside the descriptors it takes :data:`CHUNK` cosines of memory, not Nb x Nq of them.

    Args:
        base: descriptors [Nb, D].
        query: descriptors [Nq, D].
        back: whether the way back is wanted as well.
    """
    left = base / base.norm(dim=1, keepdim=True).clamp_min(PATCH_EPS)
    right = query / query.norm(dim=1, keepdim=True).clamp_min(PATCH_EPS)
    best, partners = [], []
    highest = base.new_full((len(base),), -torch.inf)
    returned = torch.zeros(len(base), dtype=torch.int64, device=base.device)
    step = max(1, CHUNK // max(1, len(base)))
    for start in range(0, len(query), step):
        cosines = right[start : start + step] @ left.mT
        values, rows = cosines.max(dim=1)
        best.append(values)
        partners.append(rows)
        if back:
            values, rows = cosines.max(dim=0)
            returned = torch.where(values > highest, rows + start, returned)
            highest = torch.maximum(highest, values)
    return Correspondences(torch.cat(partners), torch.cat(best), returned if back else None)


def return_distance(partners: Tensor, back: Tensor, width: int) -> Tensor:
    """How far from a query patch one ends on the way to the base image and back.

    Args:
        partners: base patch of every query patch, int64 [hq * wq].
        back: query patch of every base patch, int64 [Nb].
        width: of the query's grid, wq.

    Returns:
        The larger of the distances in rows and in columns, in patches, int64 [hq * wq].
    """
    end, start = back[partners], torch.arange(len(partners), device=partners.device)
    rows = torch.div(end, width, rounding_mode="floor") - torch.div(start, width, rounding_mode="floor")
    return torch.maximum(rows.abs(), (end % width - start % width).abs())


def masks_to_grid(masks: Tensor, grid: tuple[int, int]) -> Tensor:
    """Masks in pixels, [P, H, W] bool, on a grid of patches, [P, h, w] bool.

    A patch belongs to the mask when bilinear sampling at its centre is not zero.
    """
    if not len(masks):
        return masks.new_zeros((0, *grid))
    sampled = functional.interpolate(masks[None].float(), size=grid, mode="bilinear", align_corners=False)
    return sampled[0] != 0


def carry(grids: Tensor, partners: Tensor, foreground: Tensor) -> Tensor:
    """Follow the correspondences.

    Args:
        grids: masks of the base image on its grid of patches, bool [P, hb, wb].
        partners: base patch of every query patch, int64 [hq * wq].
        foreground: patches of the query that may belong to a part, bool [hq, wq].

    Returns:
        bool [P, hq, wq].
    """
    moved = grids.flatten(1)[:, partners].view(-1, *foreground.shape)
    return moved & foreground


def largest_component(masks: Tensor) -> Tensor:
    """The largest 8-connected piece of each mask, bool [P, h, w]; the first one on ties."""
    kept = np.zeros(masks.shape, dtype=bool)
    for i, mask in enumerate(masks.cpu().numpy()):
        labels, count = ndimage.label(mask, structure=np.ones((3, 3)))
        if count:
            kept[i] = labels == np.bincount(labels.ravel())[1:].argmax() + 1
    return torch.from_numpy(kept).to(masks.device)


def upsample(masks: Tensor, size: tuple[int, int]) -> Tensor:
    """Grid masks [P, h, w] at ``size`` (H, W): wherever bilinear sampling is positive, bool [P, H, W]."""
    if not len(masks):
        return masks.new_zeros((0, *size))
    fine = functional.interpolate(masks[None].float(), size=size, mode="bilinear", align_corners=False)
    return fine[0] > 0


def patch_boxes(patches: Tensor, size: tuple[int, int]) -> Tensor:
    """Boxes of upsampled masks as the published parser draws them.

    The centre is the mean position of the occupied columns and rows, the size their number. For a
    connected mask that is the tight box, half a pixel up and to the left. Which columns and rows are
    occupied follows from those of the patches, so that nothing is done in full resolution.

    Args:
        patches: bool [P, h, w].
        size: (H, W) of the image. Below 128 pixels torch interpolates in another way, and sides that lie
            exactly between two pixels may be one off those of the upsampled masks.

    Returns:
        float32 [P, 4] xyxy in pixels; zeros for an empty mask.
    """
    sides = []
    columns, rows = patches.any(dim=1)[:, None], patches.any(dim=2)[..., None]
    # Bands one patch wide get the weights that whole masks would get, to the last digit: one that is not
    # quite 0 moves a side by a pixel.
    for band, shape in ((columns, (1, size[1])), (rows, (size[0], 1))):
        inside = upsample(band, shape).flatten(1).float()
        count = inside.sum(dim=1)
        places = torch.arange(max(shape), device=patches.device, dtype=torch.float32)
        sides.append(((inside @ places) / count.clamp_min(1), count))
    (x, w), (y, h) = sides
    return torch.stack([x - w / 2, y - h / 2, x + w / 2, y + h / 2], dim=1)


def transferred(claims: Tensor, cosine: Tensor, size: tuple[int, int]) -> Transferred:
    """The largest piece of each part, with its box.

    Args:
        claims: patches of each part, bool [P, h, w].
        cosine: how similar each patch is to its partner, float32 [P, h, w].
        size: (H, W) of the described image.
    """
    if not len(claims):
        none = cosine.new_zeros(0)
        return Transferred(patches=claims, boxes=cosine.new_zeros((0, 4)), similarity=none, size=size)
    patches = largest_component(claims)
    return Transferred(
        patches=patches,
        boxes=patch_boxes(patches, size),
        similarity=mean_inside(cosine, patches),
        size=size,
    )


def mean_inside(values: Tensor, masks: Tensor) -> Tensor:
    """Mean of values [P, h, w] over each mask bool [P, h, w]; 0 where that is empty."""
    return (values * masks).sum(dim=(1, 2)) / masks.sum(dim=(1, 2)).clamp_min(1)
