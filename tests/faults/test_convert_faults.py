"""Conversions that are killed, starved or tampered with, and what the next one makes of it."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from typing import Any

import pytest

from partseg.datasets.convert import convert
from partseg.datasets.shards import Shard, make, read
from partseg.errors import LayoutError
from partseg.synthetic import write_imagenet_folder

ROOT = Path(__file__).resolve().parents[2]
CLASSES = {"n02085620": "dog", "n02123045": "cat"}
IMAGES, SHARD = 120, 5
SHARDS = IMAGES // SHARD
CHILD = f"""
import sys
from pathlib import Path
from partseg.datasets.convert import convert
from partseg.errors import PartsegError
try:
    convert("imagenet_folder", Path("raw"), Path("out"), options={{"classes": {CLASSES!r}}},
            workers=int(sys.argv[1]), shard_records={SHARD})
except PartsegError as error:
    sys.exit(f"error: {{error}}")
"""

KILLED_AT_COMMIT = """
import os
from partseg.layout.files import NewFolder
commit = NewFolder.commit
def killed(folder):
    if not {before}:
        commit(folder)
    os.kill(os.getpid(), 9)
NewFolder.commit = killed
"""
FULL = """
import resource
from partseg.layout import DatasetWriter
finish = DatasetWriter._finish
def fill():
    resource.setrlimit(resource.RLIMIT_FSIZE, (2000, 2000))
def finish_on_a_full_disk(writer):
    fill()
    finish(writer)
"""
FULL_AT_THE_END = "DatasetWriter._finish = finish_on_a_full_disk"
COMMAND = f"""
import partseg.datasets.convert as driver
driver.convert.__kwdefaults__["shard_records"] = {SHARD}
from partseg.cli import main
main()
"""


class World:
    """A hundred and more images of 3 MB, all of them links to two files: slow to read, quick to write."""

    def __init__(self, folder: Path) -> None:
        self.folder, self.raw, self.out = folder, folder / "raw", folder / "out"
        self.work = folder / ".out.converting"
        self.shards = self.work / "shards"
        write_imagenet_folder(self.raw, seed=0, per_class=1, classes=CLASSES, size=32)
        for name in CLASSES:
            first = self.raw / name / f"{name}_1.JPEG"
            with first.open("ab") as file:
                file.write(bytes(3_000_000))
            for number in range(2, IMAGES // 2 + 1):
                (self.raw / name / f"{name}_{number}.JPEG").hardlink_to(first)

    def start(self, *, workers: int = 2, prelude: str = "", **arguments: Any) -> subprocess.Popen[str]:
        return subprocess.Popen(
            [sys.executable, "-c", prelude + CHILD, str(workers)],
            cwd=self.folder,
            env={**os.environ, "PYTHONPATH": str(ROOT)},
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
            **arguments,
        )

    def finish(self, process: subprocess.Popen[str] | None = None) -> None:
        process = process or self.start()
        _, err = process.communicate(timeout=60)
        assert process.returncode == 0, err

    def done(self) -> dict[str, tuple[int, int]]:
        """The finished shards, and what tells whether they were written again."""
        found = {}
        for path in sorted(self.shards.glob("[0-9]*.arrow")):
            with suppress(FileNotFoundError):  # removed at this moment
                status = path.stat()
                found[path.name] = (status.st_ino, status.st_mtime_ns)
        return found

    def until(self, process: subprocess.Popen[str], condition: Callable[[], bool]) -> None:
        deadline = time.monotonic() + 30
        while not condition():
            assert process.poll() is None, process.communicate()
            assert time.monotonic() < deadline
            time.sleep(0.002)

    def kill(self, process: subprocess.Popen[str], shards: int) -> dict[str, tuple[int, int]]:
        """Kill it when that many shards are there; returns those that are, once all is quiet."""
        self.until(process, lambda: len(self.done()) >= shards)
        workers = children(process.pid)
        process.kill()
        process.communicate()
        until_gone(workers)
        return self.done()


@pytest.fixture(scope="module")
def expected(tmp_path_factory: pytest.TempPathFactory) -> dict[str, bytes]:
    """What an undisturbed conversion gives, with other shards and in one process."""
    world = World(tmp_path_factory.mktemp("undisturbed"))
    convert("imagenet_folder", world.raw, world.out, options={"classes": CLASSES})
    return content(world.out)


@pytest.fixture
def world(tmp_path: Path) -> World:
    return World(tmp_path)


def content(folder: Path) -> dict[str, bytes]:
    return {str(p.relative_to(folder)): p.read_bytes() for p in sorted(folder.rglob("*")) if p.is_file()}


def names(folder: Path) -> list[str]:
    return sorted(path.name for path in folder.iterdir())


def children(pid: int) -> list[int]:
    found = []
    for task in Path(f"/proc/{pid}/task").iterdir():
        found += [int(child) for child in (task / "children").read_text().split()]
    return found


def command_line(pid: int) -> str:
    return Path(f"/proc/{pid}/cmdline").read_bytes().decode().replace("\0", " ")


def alive(pid: int) -> bool:
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] not in "ZX"
    except OSError:
        return False


def until_gone(pids: list[int]) -> None:
    deadline = time.monotonic() + 5
    while any(alive(pid) for pid in pids):
        assert time.monotonic() < deadline, "orphans are left"
        time.sleep(0.02)


@pytest.mark.parametrize("shards", [0, 1, 12, SHARDS])
def test_killed_at_any_moment_it_goes_on_and_ends_the_same(
    world: World, expected: dict[str, bytes], shards: int
) -> None:
    process = world.start()
    world.until(process, world.work.exists)
    before = world.kill(process, shards)
    if world.out.exists():  # it was faster
        assert content(world.out) == expected
        return
    second = world.start()
    world.until(second, lambda: len(world.done()) > min(len(before), SHARDS - 1))
    assert before.items() <= world.done().items()  # the same files, not made again
    world.finish(second)
    assert content(world.out) == expected
    assert names(world.folder) == ["out", "raw"]


@pytest.mark.parametrize("moment", ["before", "after"])
def test_killed_around_the_commit_the_dataset_is_absent_or_whole(
    world: World, expected: dict[str, bytes], moment: str
) -> None:
    dead = world.start(prelude=KILLED_AT_COMMIT.format(before=moment == "before"), workers=0)
    dead.communicate(timeout=60)
    assert dead.returncode == -signal.SIGKILL
    if moment == "before":
        assert not world.out.exists()
        assert len(world.done()) == SHARDS
        world.finish()
        assert names(world.folder) == ["out", "raw"]
    assert content(world.out) == expected


def test_a_killed_worker_is_one_clear_error(world: World, expected: dict[str, bytes]) -> None:
    process = world.start()
    world.until(process, lambda: len(world.done()) >= 4)
    workers = [pid for pid in children(process.pid) if "spawn_main" in command_line(pid)]
    os.kill(workers[0], signal.SIGKILL)
    _, err = process.communicate(timeout=30)
    assert (process.returncode, err.count("\n")) == (1, 1)
    assert err.startswith("error: a worker process was killed")
    until_gone(workers)
    before = world.done()
    assert len(before) >= 4
    second = world.start()
    world.until(second, lambda: len(world.done()) > len(before))
    assert before.items() <= world.done().items()
    world.finish(second)
    assert content(world.out) == expected


@pytest.mark.parametrize("workers", [0, 2])
@pytest.mark.parametrize(("when", "shards"), [("from the start", 0), ("at the end", SHARDS)])
def test_a_full_disk_is_explained_and_what_is_done_is_kept(
    world: World, expected: dict[str, bytes], workers: int, when: str, shards: int
) -> None:
    """The largest file a process may write stands in for the disk."""
    process = world.start(workers=workers, prelude=FULL + ("fill()" if shards == 0 else FULL_AT_THE_END))
    _, err = process.communicate(timeout=60)
    assert (process.returncode, err.count("\n")) == (1, 1), err
    assert "cannot write here (File too large); free some space" in err
    assert not world.out.exists()
    assert len(world.done()) == shards
    world.finish()
    assert content(world.out) == expected


def test_a_changed_raw_file_makes_every_shard_again(world: World) -> None:
    before = world.kill(world.start(), 6)
    changed = world.raw / "n02085620/n02085620_3.JPEG"
    other = (world.raw / "n02123045/n02123045_1.JPEG").read_bytes()
    changed.unlink()
    changed.write_bytes(other + b"changed")
    second = world.start()
    world.until(second, lambda: world.done() != {} and not before.items() & world.done().items())
    world.finish(second)
    convert("imagenet_folder", world.raw, world.folder / "fresh", options={"classes": CLASSES})
    assert content(world.out) == content(world.folder / "fresh")


def test_other_shards_are_not_mixed_with_those_of_a_stopped_conversion(
    world: World, expected: dict[str, bytes]
) -> None:
    world.kill(world.start(), 6)
    convert("imagenet_folder", world.raw, world.out, options={"classes": CLASSES}, shard_records=7)
    assert content(world.out) == expected


def test_of_two_conversions_into_one_folder_the_second_is_refused(
    world: World, expected: dict[str, bytes]
) -> None:
    first = world.start()
    world.until(first, lambda: len(world.done()) >= 1)
    second = world.start()
    _, err = second.communicate(timeout=30)
    assert second.returncode == 1
    assert "another process is converting into the same folder; wait for it" in err
    world.finish(first)
    assert content(world.out) == expected
    third = world.start()
    _, err = third.communicate(timeout=30)
    assert "out: already exists" in err


def test_damaged_shards_are_made_again(world: World, expected: dict[str, bytes]) -> None:
    world.kill(world.start(), 8)
    flipped, cut, empty = (world.shards / f"{number:06d}.arrow" for number in (1, 2, 3))
    damaged = bytearray(flipped.read_bytes())
    damaged[len(damaged) // 2] ^= 1
    flipped.write_bytes(damaged)
    cut.write_bytes(cut.read_bytes()[:-100])
    empty.write_bytes(b"")
    world.finish()
    assert content(world.out) == expected


def test_no_flipped_bit_of_a_shard_is_overlooked(world: World, tmp_path: Path) -> None:
    shard = Shard(
        "imagenet_folder",
        {"classes": CLASSES},
        world.raw,
        tmp_path,
        "train",
        0,
        ["n02085620/n02085620_1.JPEG"],
    )
    whole = make(shard).read_bytes()
    for position in range(0, len(whole), 97):
        damaged = bytearray(whole)
        damaged[position] ^= 1 << position % 8
        shard.path.write_bytes(damaged)
        with pytest.raises(LayoutError, match="missing or damaged"):
            read(shard.path)
    assert make(shard).read_bytes() == whole


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_a_stopped_command_leaves_no_process_and_no_traceback(world: World, number: int) -> None:
    arguments = ["--raw", "raw", "--out", "out", "--workers", "2", "--option", f"classes={CLASSES}"]
    process = subprocess.Popen(
        [sys.executable, "-c", COMMAND, "data", "convert", "imagenet_folder", *arguments],
        cwd=world.folder,
        env={**os.environ, "PYTHONPATH": str(ROOT)},
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        start_new_session=True,
    )
    world.until(process, lambda: len(world.done()) >= 1)
    workers = children(process.pid)
    os.killpg(process.pid, number)  # as a terminal does
    _, err = process.communicate(timeout=30)
    assert process.returncode != 0
    assert "Traceback" not in err
    until_gone(workers)
    assert not world.out.exists()
    world.finish()
