from __future__ import annotations

import numpy as np
from pycocotools import mask as coco_mask

from partseg.layout import mask_to_rle
from partseg.predict.drawing import LONG_SIDE, picture_size
from partseg.predict.linking import link_parts
from partseg.report.pictures import names_and_colours
from tests.predict.conftest import prediction

DOG, HEAD, CAT = 0, 1, 2
OWNERS = (-1, DOG, -1)


def link(found: list[tuple[int, tuple[int, int, int, int]]], empty: tuple[int, ...] = ()) -> list[int]:
    masks = np.zeros((len(found), 40, 40), bool)
    for row, (_, (x0, y0, x1, y1)) in enumerate(found):
        masks[row, y0:y1, x0:x1] = row not in empty
    return link_parts(
        np.array([label for label, _ in found], np.int64),
        np.array([box for _, box in found], np.float32).reshape(-1, 4),
        [mask_to_rle(mask) for mask in masks],
        (40, 40),
        OWNERS,
    ).tolist()


def test_a_part_belongs_to_the_object_that_contains_most_of_it() -> None:
    left, right = (DOG, (0, 0, 18, 40)), (DOG, (14, 0, 40, 40))
    assert link([left, right, (HEAD, (2, 2, 10, 10))]) == [-1, -1, 0]
    assert link([left, right, (HEAD, (12, 2, 22, 10))]) == [-1, -1, 1]
    assert link([(HEAD, (30, 2, 38, 10)), left, right]) == [2, -1, -1]


def test_a_part_belongs_to_an_object_of_its_own_class() -> None:
    assert link([(CAT, (0, 0, 40, 40)), (HEAD, (2, 2, 10, 10))]) == [-1, -1]
    assert link([(CAT, (0, 0, 40, 40)), (DOG, (0, 0, 20, 20)), (HEAD, (2, 2, 10, 10))]) == [-1, -1, 1]


def test_a_part_mostly_outside_belongs_to_none() -> None:
    assert link([(DOG, (0, 0, 20, 20)), (HEAD, (16, 0, 26, 10))]) == [-1, -1]
    assert link([(DOG, (0, 0, 20, 20)), (HEAD, (15, 0, 25, 10))]) == [-1, 0]


def test_of_two_that_contain_it_equally_the_better_one_has_it() -> None:
    assert link([(DOG, (0, 0, 40, 40)), (DOG, (0, 0, 30, 30)), (HEAD, (2, 2, 10, 10))])[2] == 0


def test_boxes_decide_where_a_mask_is_empty() -> None:
    assert link([(DOG, (0, 0, 20, 20)), (HEAD, (2, 2, 10, 10))], empty=(1,)) == [-1, 0]
    assert link([(DOG, (0, 0, 20, 20)), (HEAD, (2, 2, 10, 10))], empty=(0,)) == [-1, 0]
    assert link([(DOG, (0, 0, 20, 20)), (HEAD, (30, 30, 39, 39))], empty=(0, 1)) == [-1, -1]


def test_boxes_decide_where_there_are_no_masks() -> None:
    boxes = np.array([(0, 0, 20, 20), (30, 0, 39, 20), (2, 2, 10, 10), (25, 25, 30, 30)], np.float32)
    labels = np.array([DOG, DOG, HEAD, HEAD], np.int64)
    assert link_parts(labels, boxes, [None] * 4, (40, 40), OWNERS).tolist() == [-1, -1, 0, -1]


def test_more_detections_than_fit_into_a_byte() -> None:
    assert link([(DOG, (0, 0, 20, 20)), *[(HEAD, (2, 2, 10, 10))] * 299]) == [-1, *[0] * 299]


def test_nothing_found_links_nothing() -> None:
    assert link([]) == []


FOUND = [
    ("dog", (5, 5, 40, 50), -1),
    ("dog:head", (8, 8, 20, 20), 0),
    ("cat", (42, 10, 58, 40), -1),
    ("dog:head", (44, 44, 55, 55), -1),
]


def test_coco_results_say_the_same_as_the_prediction() -> None:
    result = prediction(FOUND)
    rows = result.to_coco(image_id=7)
    assert [row["category_id"] for row in rows] == [1, 2, 4, 2]
    assert rows[1]["bbox"] == [8, 8, 12, 12]
    assert {row["image_id"] for row in rows} == {7}
    for i, row in enumerate(rows):
        assert np.array_equal(coco_mask.decode(row["segmentation"]).astype(bool), result.mask(i))
    content = result.to_dict()
    assert [item["part_of"] for item in content["detections"]] == [None, 0, None, None]
    assert content["detections"][0]["area"] == 35 * 45
    assert result.parts(0) == [1]


def test_a_crop_is_transparent_outside_the_mask() -> None:
    result = prediction([("dog", (5, 5, 40, 50), -1)])
    mask = np.zeros((60, 60), bool)
    mask[10:20, 10:20] = True
    crop = np.asarray(prediction([("dog", (5, 5, 40, 50), -1)]).crop(0))
    assert crop.shape == (45, 35, 4)
    assert crop[..., 3].min() == 255
    object.__setattr__(result, "rles", (mask_to_rle(mask),))
    crop = np.asarray(result.crop(0))
    assert crop[..., 3].sum() == 255 * 100
    assert crop[6, 6].tolist() == [128, 128, 128, 255]


def test_without_masks_boxes_are_shown_and_written() -> None:
    result = prediction(FOUND)
    object.__setattr__(result, "rles", (None,) * len(FOUND))
    rows = result.to_coco(image_id=7)
    assert rows[1]["bbox"] == [8, 8, 12, 12]
    assert not any("segmentation" in row for row in rows)
    content = result.to_dict()["detections"]
    assert {(item["area"], item["segmentation"]) for item in content} == {(None, None)}
    assert result.mask(0).sum() == 35 * 45
    assert np.asarray(result.crop(0)).shape == (45, 35, 4)
    assert np.asarray(result.crop(0))[..., 3].min() == 255
    plain = np.asarray(result.draw(legend=False))
    assert plain[14 * 8, 14 * 8].tolist() == [128, 128, 128]  # inside the head's box nothing is tinted
    assert plain[30 * 8, 5 * 8].tolist() != [128, 128, 128]  # the dog's box has an outline


def test_a_part_has_a_shade_of_its_object_and_no_two_things_one_colour() -> None:
    names, colours = names_and_colours(["dog", "dog:head", "dog", "dog:head", "dog:head"], [-1, 0, -1, 2, -1])
    assert names == ["dog 1", "dog 1:head", "dog 2", "dog 2:head", "dog:head 1"]
    assert len(set(colours.values())) == 5


def test_the_picture_shows_masks_and_has_a_legend() -> None:
    result = prediction(FOUND)
    plain = np.asarray(result.draw(legend=False))
    assert plain.shape == (480, 480, 3)
    assert plain[15 * 8, 12 * 8].tolist() != [128, 128, 128]  # the head is tinted
    assert plain[35 * 8, 30 * 8].tolist() == [128, 128, 128]  # the dog around it is not
    page = np.asarray(result.draw())
    assert np.array_equal(page[:480, :480], plain)
    assert len(np.unique(page[480:].reshape(-1, 3), axis=0)) > 4
    assert result.draw().tobytes() == result.draw().tobytes()


def test_nothing_found_and_very_much_found_can_be_drawn() -> None:
    assert prediction([]).draw().height > 480
    crowd = [("dog", (i % 50, i // 50, i % 50 + 9, i // 50 + 9), -1) for i in range(120)]
    assert prediction(crowd).draw().height < 2 * 480


def test_pictures_of_any_photo_fit_a_screen() -> None:
    assert picture_size(3000, 4000) == (1333, 1000)
    assert picture_size(60, 60) == (480, 480)
    assert picture_size(1, 5000) == (LONG_SIDE, 1)
    assert picture_size(9000, 1000) == (200, LONG_SIDE)
