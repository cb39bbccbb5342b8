"""What is drawn of a transfer: the right patches in the right colours, on one page or in one picture."""

from __future__ import annotations

import re
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from partseg.evaluation.parsed_parts import ParsedPart
from partseg.parsing.base_images import BaseImage
from partseg.parsing.descriptors import Features
from partseg.parsing.parts import Candidates, Transfer
from partseg.parsing.transfer import Transferred
from partseg.report.overlays import Shape
from partseg.report.parse_pictures import (
    KeptPart,
    Lender,
    correspondences,
    detector_panels,
    part_colours,
    transfer_panels,
)
from partseg.report.parse_sheet import ParsedSplit, Section, write_picture, write_sheet
from partseg.report.parse_story import Story

GRID = (4, 4)
PHOTO = np.full((40, 40, 3), 200, np.uint8)


def features() -> Features:
    return Features(token=torch.ones(3), descriptors=torch.ones(16, 3), saliency=torch.ones(16), grid=GRID)


@pytest.fixture
def lender() -> Lender:
    """A cat whose head is the left half of its image, and whose eye is the first patch of it."""
    head, eye = np.zeros((40, 40), bool), np.zeros((40, 40), bool)
    head[:, :20], eye[:10, :10] = True, True
    parts = [Shape(mask=head, name="cat:head"), Shape(mask=eye, name="cat:eye")]
    return Lender(name="base <1>", image=PHOTO, parts=parts, names=("cat:head", "cat:eye"))


@pytest.fixture
def found() -> Transfer:
    """Every patch resembles the one at its own place; the head is confirmed, the eye is not."""
    grids = torch.zeros(2, *GRID, dtype=torch.bool)
    grids[0, :, :2], grids[1, 0, 0] = True, True
    base = BaseImage(image_id=7, features=features(), grids=grids, category_ids=(2, 3))
    boxes = torch.tensor([[0.0, 0, 20, 40], [0, 0, 10, 10]])
    return Transfer(
        size=(40, 40),
        query=features(),
        lenders=(base,),
        lender_cosines=(0.9,),
        partners=torch.arange(16)[None],
        cosine=torch.full((1, 16), 0.8),
        names=("cat:head", "cat:eye"),
        lent_by=(0, 0),
        moved=Transferred(patches=grids, boxes=boxes, similarity=torch.tensor([0.8, 0.8]), size=(40, 40)),
        candidates=Candidates(boxes=boxes[:1], names=["cat:head"], scores=torch.ones(1)),
        matches=torch.tensor([0, -1]),
        overlaps=torch.tensor([1.0, 0.2]),
        mutual=None,
        votes=None,
        confidence=torch.tensor([0.9, 0.4]),
    )


KEPT = KeptPart(name="dog:head", box_xywh=(0, 0, 20, 40), mask=None, confidence=0.9)


def test_a_part_has_one_colour_whatever_object_it_belongs_to() -> None:
    colours = part_colours(["cat:head", "dog:head", "Quadruped:Head", "dog:tail"])
    assert colours["cat:head"] == colours["dog:head"] == colours["Quadruped:Head"] != colours["dog:tail"]


def test_patches_have_the_colour_of_the_part_they_resemble_the_smallest_first(
    found: Transfer, lender: Lender
) -> None:
    colours = {"cat:head": (255, 0, 0), "cat:eye": (0, 0, 255)}
    foreground = np.ones(GRID, bool)
    foreground[3] = False
    picture = np.asarray(correspondences(PHOTO, found, lender.names, foreground, colours)).astype(int)
    step = picture.shape[0] // 4
    patches = picture[step // 2 :: step, step // 2 :: step]
    tint = patches[..., 0] - patches[..., 2]
    assert tint[0, 0] < -100  # the eye
    assert (tint[:3, :2].ravel()[1:] > 100).all()  # the rest of the head
    assert (tint[:, 2:] == 0).all()  # resembles no part
    assert (tint[3] == 0).all()  # background
    assert patches[3, 3, 0] > patches[0, 3, 0]  # which is fainter


def test_the_steps_of_a_transfer_are_told(found: Transfer, lender: Lender) -> None:
    panels = transfer_panels(PHOTO, found, np.ones(GRID, bool), [lender], [KEPT])
    assert [panel.title for panel in panels] == [
        "base image and its parts",
        "patches by what they resemble",
        "2 parts transferred; outlines: 1 not confirmed",
        "1 box kept, with confidence",
    ]
    nobody = transfer_panels(PHOTO, found, np.ones(GRID, bool), [], [])
    assert [panel.title for panel in nobody][-1] == "0 boxes kept, with confidence"
    assert len(nobody) == 2
    assert len(detector_panels(PHOTO, [KEPT])) == 3


def story(key: str, found: Transfer, lender: Lender, **changes: object) -> Story:
    panels = tuple(transfer_panels(PHOTO, found, np.ones(GRID, bool), [lender], [KEPT]))
    values = {
        "key": key, "label": "dog", "path": "transfer", "kept": (KEPT,), "transferred": 2,
        "base": (lender.name,), "similarity": (0.9,), "message": "", "panels": panels, **changes,
    }  # fmt: skip
    return Story(**values)


def test_a_page_needs_nothing_else_and_says_who_lent_what(
    tmp_path: Path, found: Transfer, lender: Lender
) -> None:
    parts = [
        ParsedPart(
            image=image, name="dog:head", label="dog", path="transfer", box_xywh=(0, 0, 9, 9), rle=None,
            confidence=confidence, base_image_id=7, base_similarity=0.9,
        )
        for image, confidence in ((0, 0.2), (1, 0.8))
    ]  # fmt: skip
    parsed = ParsedSplit(keys=("a", "b"), nothing_found=3, parts=parts, base_names={7: lender.name})
    assert parsed.by_confidence("transfer") == ["b", "a"]
    assert parsed.by_confidence("detector") == []
    sections = [Section(title="The most certain", stories=[story("b & c", found, lender)])]
    write_sheet(sections, parsed, "w parsed", tmp_path / "sheet.html")
    html = (tmp_path / "sheet.html").read_text()
    assert "b &amp; c · dog" in html
    assert "base image base &lt;1&gt;, similarity 0.90; 2 transferred, 1 kept; mean confidence 0.90" in html
    assert html.count('src="data:image/webp;base64,') == 4
    assert not re.search(r"https?://|@import|url\(", html)
    assert re.search(r"<b>base &lt;1&gt;</b></td><td data-sort=\"2\">2</td><td data-sort=\"2\">2</td>", html)
    assert "nothing was found in 3" in html


def test_a_picture_has_a_row_per_image(tmp_path: Path, found: Transfer, lender: Lender) -> None:
    heights = []
    for number in (1, 2):
        stories = [story("x" * 400, found, lender, kept=(), message="nothing") for _ in range(number)]
        write_picture([Section(title="Images", stories=stories)], tmp_path / "sheet.png")
        with Image.open(tmp_path / "sheet.png") as picture:
            heights.append(picture.height)
    assert heights[1] == 2 * heights[0]
    assert [path.name for path in tmp_path.iterdir()] == ["sheet.png"]
