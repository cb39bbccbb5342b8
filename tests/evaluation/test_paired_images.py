"""The same photo under two names."""

from __future__ import annotations

from partseg.evaluation.paired_images import ImageName, pair_images


def name(file: str, key: str = "", size: tuple[int, int] | None = (4, 6)) -> ImageName:
    return ImageName(file_name=file, source_key=key or file, size=size)


def test_file_names_go_before_keys_and_keys_before_stems() -> None:
    images = [name("a/1.jpg"), name("b/2.jpg", "k"), name("c/3.JPEG"), name("d/4.jpg")]
    others = [name("x/3.png"), name("y/9.jpg", "k"), name("a/1.jpg")]
    assert pair_images(images, others).rows == (2, 1, 0, None)


def test_a_name_that_several_images_share_is_no_name() -> None:
    assert pair_images([name("a/1.jpg")], [name("b/1.jpg"), name("c/1.jpg")]).rows == (None,)
    assert pair_images([name("a/1.jpg"), name("b/1.jpg")], [name("c/1.jpg")]).rows == (None, None)


def test_another_size_is_another_photo() -> None:
    found = pair_images(
        [name("1.jpg"), name("2.jpg", size=None)], [name("1.jpg", size=(6, 4)), name("2.jpg")]
    )
    assert (found.rows, found.other_size) == ((None, 1), 1)
