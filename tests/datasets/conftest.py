from __future__ import annotations

import shutil
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from partseg.synthetic import Scene, write_pascal_part
from partseg.synthetic.raw_files import mat_bytes
from partseg.synthetic.world import DrawnObject

SHARED = Path(__file__).parents[2].parent / "shared"


@pytest.fixture(scope="session")
def world(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Twenty made-up training images and eleven for validation, never changed by a test."""
    root = tmp_path_factory.mktemp("world")
    write_pascal_part(root, seed=3, train=20, val=11, size=64)
    return root


@pytest.fixture
def raw(world: Path, tmp_path: Path) -> Path:
    """A copy that a test may damage."""
    return Path(shutil.copytree(world, tmp_path / "raw"))


@pytest.fixture
def one_object(tmp_path: Path) -> Callable[..., Path]:
    """Writes a raw folder with one image that shows one object with the given parts."""

    def build(
        name: str = "dog",
        parts: tuple[str, ...] = ("head",),
        *,
        size: int = 32,
        image_size: int | None = None,
        object_mask: bool = True,
        part_mask: bool = True,
    ) -> Path:
        root = tmp_path / "raw"
        write_pascal_part(root, seed=0, train=0, val=0)
        mask = np.zeros((size, size), np.bool_)
        mask[2:8, 3:9] = True
        drawn = DrawnObject(
            name="dog",
            mask=mask & object_mask,
            parts=tuple((part, mask & part_mask) for part in parts),
        )
        scene = Scene(image=np.zeros((size, size, 3), np.uint8), objects=(drawn,))
        content = mat_bytes("2008_000001", scene)
        if name != "dog":
            import scipy.io

            path = tmp_path / "one.mat"
            path.write_bytes(content)
            anno = scipy.io.loadmat(path)["anno"]
            anno[0, 0]["objects"][0, 0]["class"] = name
            scipy.io.savemat(path, {"anno": anno})
            content = path.read_bytes()
        (root / "Annotations_Part" / "2008_000001.mat").write_bytes(content)
        jpeg = root / "VOCdevkit/VOC2010/JPEGImages/2008_000001.jpg"
        side = image_size or size
        Image.new("RGB", (side, side)).save(jpeg)
        (root / "VOCdevkit/VOC2010/ImageSets/Main/train.txt").write_text("2008_000001\n")
        return root

    return build
