from __future__ import annotations

import numpy as np
import torch
from pycocotools import mask as coco_mask
from torch.nn import functional

from partseg.models import masks


def decoded(rles: list[bytes], height: int, width: int) -> torch.Tensor:
    coded = [{"size": [height, width], "counts": counts} for counts in rles]
    return torch.from_numpy(np.asarray(coco_mask.decode(coded))).permute(2, 0, 1).bool()


def test_pasting_equals_bilinear_sampling() -> None:
    generator = torch.Generator().manual_seed(1)
    probabilities = torch.rand(5, 14, 14, generator=generator)
    low = torch.rand(5, 2, generator=generator) * 20
    boxes = torch.cat([low, low + 3 + torch.rand(5, 2, generator=generator) * 25], dim=1)
    height, width = 37, 43
    x, y = torch.arange(width) + 0.5, torch.arange(height) + 0.5
    expected = []
    for probability, (x0, y0, x1, y1) in zip(probabilities, boxes.tolist(), strict=True):
        at_x, at_y = (x - x0) / (x1 - x0) * 2 - 1, (y - y0) / (y1 - y0) * 2 - 1
        grid = torch.stack(torch.meshgrid(at_x, at_y, indexing="xy"), dim=-1)
        expected.append(
            functional.grid_sample(probability[None, None], grid[None], align_corners=False)[0, 0]
        )
    wanted = torch.stack(expected)
    found = decoded(masks.paste(probabilities, boxes, height, width, 0.5), height, width)
    clear = (wanted - 0.5).abs() > 1e-4
    assert torch.equal(found[clear], (wanted >= 0.5)[clear])


def test_pasting_a_part_of_the_masks_gives_the_same_masks() -> None:
    probabilities = torch.rand(7, 4, 4, generator=torch.Generator().manual_seed(2))
    boxes = torch.tensor([[i, 2.0, i + 9, 20.0] for i in range(7)])
    whole = masks.paste(probabilities, boxes, 24, 24, 0.5)
    assert masks.paste(probabilities[3:], boxes[3:], 24, 24, 0.5) == whole[3:]
    assert masks.paste(probabilities[:0], boxes[:0], 24, 24, 0.5) == []


def test_targets_are_the_mask_inside_the_region() -> None:
    image = torch.zeros(2, 32, 32, dtype=torch.uint8)
    image[0, 8:16, 8:24] = 1
    image[1, :, :] = 1
    regions = torch.tensor([[8.0, 8, 24, 24], [8, 8, 24, 16], [4, 4, 20, 20]])
    found = masks.mask_targets([image], [regions], [torch.tensor([0, 0, 1])], 4)
    assert found[0].tolist() == [[1.0] * 4] * 2 + [[0.0] * 4] * 2
    assert found[1].min() == 1
    assert found[2].min() == 1
