from __future__ import annotations

import io
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from partseg.errors import SourceError
from partseg.layout import read_rgb
from partseg.predict.photos import find_photos
from tests.predict.conftest import photo

RED, GREEN = (200, 30, 40), (20, 180, 60)


def test_files_folders_and_patterns_give_each_photo_once(tmp_path: Path) -> None:
    for name in ("a.png", "sub/b.JPG", "sub/deep/c.png", "sub/.hidden.png"):
        photo(tmp_path / name)
    (tmp_path / "sub/notes.txt").write_text("no photo")
    found = find_photos([str(tmp_path / "sub"), str(tmp_path / "*.png"), str(tmp_path / "a.png")])
    assert [item.key for item in found] == ["b", "deep/c", "a"]
    assert [item.path.name for item in found] == ["b.JPG", "c.png", "a.png"]


def test_photos_of_the_same_name_keep_their_results_apart(tmp_path: Path) -> None:
    files = [photo(tmp_path / name) for name in ("x/a.png", "y/a.png", "y/a.jpg")]
    found = find_photos([str(file) for file in files])
    assert [item.key for item in found] == ["x/a.png", "y/a.png", "y/a.jpg"]


def test_a_file_whose_name_looks_like_a_pattern_is_that_file(tmp_path: Path) -> None:
    file = photo(tmp_path / "shot[1].png")
    assert [item.path for item in find_photos([str(file)])] == [file]


@pytest.mark.parametrize("given", ["missing.jpg", "nothing-*.jpg", "empty"])
def test_nothing_there_is_one_clear_error(tmp_path: Path, given: str) -> None:
    (tmp_path / "empty").mkdir()
    with pytest.raises(SourceError, match=given.replace("*", r"\*")):
        find_photos([str(tmp_path / given)])


def two_colours(mode: str) -> Image.Image:
    image = Image.new("RGB", (8, 4), RED)
    image.paste(GREEN, (4, 0, 8, 4))
    return image.convert(mode)


@pytest.mark.parametrize(
    ("mode", "suffix"), [("RGB", "png"), ("RGBA", "png"), ("P", "png"), ("CMYK", "tiff"), ("RGB", "webp")]
)
def test_colours_are_those_people_see(tmp_path: Path, mode: str, suffix: str) -> None:
    path = tmp_path / f"image.{suffix}"
    image = two_colours("RGB").quantize(4) if mode == "P" else two_colours(mode)
    image.save(path, **({"lossless": True} if suffix == "webp" else {}))
    pixels = read_rgb(path)
    assert pixels.shape == (4, 8, 3)
    assert pixels.dtype == np.uint8
    assert np.abs(pixels[0, [0, 7]].astype(int) - [RED, GREEN]).max() <= 2


def test_a_cmyk_jpeg_is_not_inverted(tmp_path: Path) -> None:
    two_colours("CMYK").resize((64, 32), Image.Resampling.NEAREST).save(tmp_path / "a.jpg", quality=95)
    pixels = read_rgb(tmp_path / "a.jpg").astype(int)
    assert np.abs(pixels[16, [8, 56]] - [RED, GREEN]).max() < 12


@pytest.mark.parametrize("suffix", ["png", "tiff"])
def test_grey_of_16_bits_is_scaled_and_not_clipped(tmp_path: Path, suffix: str) -> None:
    values = np.array([[0, 255, 256, 30000], [32768, 50000, 65000, 65535]], np.uint16)
    Image.fromarray(values).save(tmp_path / f"a.{suffix}")
    pixels = read_rgb(tmp_path / f"a.{suffix}")
    assert np.array_equal(pixels, np.repeat((values >> 8)[:, :, None], 3, axis=2))


def test_a_16_bit_pgm_is_scaled_too(tmp_path: Path) -> None:
    values = np.array([[0, 300, 65535]], ">u2")
    (tmp_path / "a.pgm").write_bytes(b"P5 3 1 65535\n" + values.tobytes())
    assert read_rgb(tmp_path / "a.pgm")[0, :, 0].tolist() == [0, 1, 255]


def test_plain_grey_keeps_its_values(tmp_path: Path) -> None:
    values = np.array([[0, 100, 255]], np.uint8)
    Image.fromarray(values).save(tmp_path / "a.png")
    assert read_rgb(tmp_path / "a.png")[0, :, 2].tolist() == [0, 100, 255]


def test_a_turned_photo_is_upright(tmp_path: Path) -> None:
    image = two_colours("RGB").resize((64, 32), Image.Resampling.NEAREST)
    exif = image.getexif()
    exif[0x0112] = 6  # the camera was turned: show it a quarter turn clockwise
    image.save(tmp_path / "a.png", exif=exif)
    pixels = read_rgb(tmp_path / "a.png")
    assert pixels.shape == (64, 32, 3)
    assert pixels[5, 16].tolist() == list(RED)
    assert pixels[60, 16].tolist() == list(GREEN)


@pytest.mark.parametrize("kept", [0, 20, 200])
def test_a_damaged_photo_is_one_clear_error(tmp_path: Path, kept: int) -> None:
    stream = io.BytesIO()
    noise = np.random.default_rng(0).integers(0, 255, (40, 40, 3), np.uint8)
    Image.fromarray(noise).save(stream, "PNG")
    (tmp_path / "a.png").write_bytes(stream.getvalue()[:kept])
    with pytest.raises(SourceError, match=r"a\.png: the image is damaged"):
        read_rgb(tmp_path / "a.png")


def test_an_image_too_large_to_be_one_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = photo(tmp_path / "a.png")
    monkeypatch.setattr(Image, "MAX_IMAGE_PIXELS", 100)
    with pytest.raises(SourceError, match="damaged"):
        read_rgb(path)
