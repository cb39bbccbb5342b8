"""Damaged raw folders: a conversion ends with a sound dataset that accounts for every record, or an error.

Every source's made-up world is damaged at random and converted. ``once(source, case)`` repeats a case.
"""

from __future__ import annotations

import resource
import signal
import traceback
import warnings
import zlib
from collections.abc import Iterator
from contextlib import contextmanager
from functools import cache
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import numpy as np
import pytest

from partseg.datasets.catalogue import SOURCES
from partseg.datasets.convert import convert
from partseg.errors import PartsegError
from partseg.layout import Dataset
from partseg.layout.checks import audit
from partseg.synthetic import WORLDS, make_up

from .raw_damage import Folder, damaged

FEW, MANY = 11, 200  # cases per source
SECONDS = 10  # for a conversion of three images
MEMORY = 4 << 30  # bytes of address space that a conversion may take on top
WORLD = {"train": 2, "val": 1, "size": 48}
OPTIONS: dict[str, dict[str, Any]] = {
    "coco_json": {"annotations": {"train": "train.json", "val": "val.json"}},
    "imagenet_folder": {"classes": {"n02099601": "dog", "n02085620": "dog"}},
}


@pytest.mark.parametrize("source", SOURCES)
def test_a_few_damaged_folders(source: str) -> None:
    report(source, range(FEW))


@pytest.mark.slow
@pytest.mark.parametrize("source", SOURCES)
def test_many_damaged_folders(source: str) -> None:
    report(source, range(FEW, FEW + MANY))


def report(source: str, cases: range) -> None:
    """Fail with all cases of a source that went wrong."""
    wrong = [f"case {case}: {problem}" for case in cases if (problem := once(source, case))]
    assert not wrong, "\n".join(wrong)


def once(source: str, case: int) -> str | None:
    """Damage and convert; what went wrong, or None."""
    random = np.random.default_rng([zlib.crc32(source.encode()), case])
    folder, story = damaged(world(source), random)
    options = dict(OPTIONS.get(source, {}))
    for name, values in (("images", ("hash", "list", "none")), ("allow_missing", (False, True))):
        if name in known_options(source):
            options[name] = values[int(random.integers(len(values)))]
    with TemporaryDirectory() as temporary:
        place = Path(temporary)
        for path, content in folder.items():
            (place / "raw" / path).parent.mkdir(parents=True, exist_ok=True)
            (place / "raw" / path).write_bytes(content)
        (place / "raw").mkdir(exist_ok=True)
        try:
            with limits(), warnings.catch_warnings():
                warnings.simplefilter("ignore")
                counts = convert(
                    source,
                    place / "raw",
                    place / "out",
                    options=options,
                    work=place / "work",
                    shard_records=2,
                )
                problem = unsound(place / "out", counts)
        except PartsegError as error:
            problem = None if error.where or error.fix else f"neither where nor fix: {error}"
            if (place / "out").exists() or [path for path in place.iterdir() if "writing" in path.name]:
                problem = "a half-written dataset is left"
        except BaseException as error:
            if isinstance(error, KeyboardInterrupt):
                raise
            problem = "".join(traceback.format_exception(error)[-4:])
    return problem and f"{source} with {options}, {'; '.join(story)}: {problem}"


def unsound(out: Path, counts: dict[str, int]) -> str | None:
    """What is wrong with a dataset."""
    if counts["images"] + counts["dropped"] != counts["source_records"]:
        return f"records are missing: {counts}"
    dataset = Dataset.open(out)
    problems = audit(dataset)
    images = sum(len(dataset.split(name)) for name in dataset.splits)
    if images != counts["images"]:
        problems.append(f"{images} images in the dataset, {counts}")
    return "; ".join(problems[:3]) or None


@cache
def world(source: str) -> Folder:
    with TemporaryDirectory() as temporary:
        root = Path(temporary)
        settings = {"per_class": 1, "size": 48} if source.startswith("imagenet") else WORLD
        make_up(source, root, settings, OPTIONS.get(source, {}))
        files = sorted(path for path in root.rglob("*") if path.is_file())
        return {path.relative_to(root).as_posix(): path.read_bytes() for path in files}


@cache
def known_options(source: str) -> frozenset[str]:
    from partseg.datasets.catalogue import source_module

    return frozenset(source_module(source).Options.model_fields)


@contextmanager
def limits() -> Iterator[None]:
    """Time and memory for one conversion."""

    def too_long(*_: object) -> None:
        raise TimeoutError(f"longer than {SECONDS} s")

    used = int(Path("/proc/self/statm").read_text().split()[0]) * resource.getpagesize()
    soft, hard = resource.getrlimit(resource.RLIMIT_AS)
    before = signal.signal(signal.SIGALRM, too_long)
    signal.alarm(SECONDS)
    resource.setrlimit(resource.RLIMIT_AS, (used + MEMORY, hard))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_AS, (soft, hard))
        signal.alarm(0)
        signal.signal(signal.SIGALRM, before)


def test_every_source_has_a_world() -> None:
    assert set(SOURCES) == set(WORLDS)
