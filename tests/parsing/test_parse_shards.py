"""A parser over shards: the same records however the work is cut, and whoever is killed on the way."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from collections import Counter
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from partseg.errors import LayoutError, PartsegError
from partseg.layout import AnnotationRow, ImageRow, Record
from partseg.parsing.shards import pack, parsing_folder, unpack
from tests.parsing.fake_parser import IMAGES, Fake, parsed, record

EXPECTED = [record(row) for row in range(IMAGES)]


class Trace:
    """What a fake parser did in a folder."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder

    @property
    def lines(self) -> list[str]:
        path = self.folder / "trace"
        return path.read_text().splitlines() if path.exists() else []

    @property
    def rows(self) -> list[int]:
        return [int(line.split()[1]) for line in self.lines if line.startswith("row")]

    @property
    def opened(self) -> list[tuple[int, int]]:
        """(number, process id) of every time the models were loaded."""
        found = [line.split() for line in self.lines if line.startswith("open")]
        return [(int(number), int(pid)) for _, number, pid in found]

    @property
    def shards(self) -> list[Path]:
        return sorted((self.folder / "shards").glob("*.jsonl"))

    def forget(self) -> None:
        (self.folder / "trace").unlink()

    def until(self, reached: Callable[[], bool]) -> None:
        deadline = time.monotonic() + 30
        while not reached():
            assert time.monotonic() < deadline, self.lines
            time.sleep(0.01)

    def nobody_works(self, seconds: float) -> bool:
        deadline = time.monotonic() + seconds
        while any(alive(pid) for _, pid in self.opened):
            if time.monotonic() > deadline:
                return False
            time.sleep(0.02)
        return True


def alive(pid: int) -> bool:
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] not in "ZX"
    except OSError:
        return False


class Heard:
    def __init__(self, react: Callable[[int], None] = lambda done: None) -> None:
        self.react = react
        self.updates: list[tuple[int, int, str]] = []
        self.lines: list[str] = []

    def update(self, done: int, total: int, message: str = "") -> None:
        self.updates.append((done, total, message))
        self.react(done)

    def log(self, message: str) -> None:
        self.lines.append(message)


@pytest.fixture
def trace(tmp_path: Path) -> Trace:
    return Trace(tmp_path)


@pytest.mark.parametrize("size", [None, 1, 7, 64])
@pytest.mark.parametrize("batch", [1, 8])
def test_records_do_not_depend_on_how_the_images_are_cut(trace: Trace, size: int | None, batch: int) -> None:
    assert parsed(Fake(trace.folder), size=size, batch=batch) == EXPECTED
    assert trace.rows == list(range(IMAGES))
    assert len(trace.opened) == 1
    assert len(trace.shards) == -(-IMAGES // (size or 1))


@pytest.mark.parametrize(
    ("processes", "size", "fewest", "most"), [(1, 4, 1, 1), (2, 4, 2, 2), (20, 14, 1, 3)]
)
def test_processes_share_the_shards_and_change_nothing(
    trace: Trace, processes: int, size: int, fewest: int, most: int
) -> None:
    assert parsed(Fake(trace.folder, 0.05), processes=processes, size=size) == EXPECTED
    assert sorted(trace.rows) == list(range(IMAGES))
    numbers = {number for number, _ in trace.opened}
    assert fewest <= len(numbers) == len(trace.opened) <= most  # each loads its models once
    assert numbers <= set(range(most))  # of the graphics cards
    assert os.getpid() not in [pid for _, pid in trace.opened]
    assert trace.nobody_works(0)


def test_few_images_are_cut_so_that_processes_can_share_them_and_many_so_that_a_kill_costs_little(
    tmp_path: Path,
) -> None:
    for images, size in ((0, 1), (1, 1), (40, 1), (100, 3), (5000, 64)):
        with parsing_folder(tmp_path, 1, images) as shards:
            rows = [list(shard.rows) for shard in shards.shards]
        assert {len(some) for some in rows[:-1]} <= {size}
        assert [row for some in rows for row in some] == list(range(images))


def test_nothing_is_done_twice_and_no_model_loaded_for_nothing(trace: Trace) -> None:
    parsed(Fake(trace.folder))
    trace.forget()
    heard = Heard()
    assert parsed(Fake(trace.folder), processes=2, report=heard) == EXPECTED
    assert trace.lines == []
    assert heard.lines == ["40 of 40 images are parsed already"]


def test_other_inputs_or_other_code_start_anew(trace: Trace, monkeypatch: pytest.MonkeyPatch) -> None:
    parsed(Fake(trace.folder))
    parsed(Fake(trace.folder), made_from=2)
    assert Counter(trace.rows) == Counter([*range(IMAGES)] * 2)
    monkeypatch.setattr("partseg.parsing.shards.code_digest", lambda *_: ["other"])
    parsed(Fake(trace.folder), made_from=2)
    assert Counter(trace.rows) == Counter([*range(IMAGES)] * 3)


DAMAGE: dict[str, Callable[[bytes], bytes]] = {
    "cut off": lambda content: content[:-1],
    "cut in half": lambda content: content[: len(content) // 2],
    "empty": lambda content: b"",
    "one bit": lambda content: content[:9] + bytes([content[9] ^ 1]) + content[10:],
    "longer": lambda content: content + b"\n",
    "of another time": lambda content: b'{"image":null,"annotations":[],"findings":[]}\n',
}


@pytest.mark.parametrize("damage", DAMAGE)
def test_a_damaged_shard_is_made_again_and_no_other(trace: Trace, damage: str) -> None:
    parsed(Fake(trace.folder))
    trace.forget()
    path = trace.shards[3]
    whole = path.read_bytes()
    path.write_bytes(DAMAGE[damage](whole))
    assert parsed(Fake(trace.folder)) == EXPECTED
    assert trace.rows == [12, 13, 14, 15]
    assert path.read_bytes() == whole


def test_a_shard_that_is_lost_before_the_end_is_an_error_and_never_a_gap(trace: Trace) -> None:
    with parsing_folder(trace.folder / "shards", 1, IMAGES) as shards:
        shards.make(Fake(trace.folder))
        trace.shards[1].unlink()
        with pytest.raises(LayoutError, match="missing or damaged; run the same command again"):
            list(shards.records())


def test_progress_counts_the_images_and_the_parts_of_this_run_and_of_earlier_ones(trace: Trace) -> None:
    first = Heard()
    parsed(Fake(trace.folder), images=IMAGES, batch=2, report=first)
    done = [done for done, _, _ in first.updates]
    assert done == [*range(2, IMAGES + 1, 2), IMAGES]
    assert {total for _, total, _ in first.updates} == {IMAGES}
    for path in trace.shards[5:]:
        path.unlink()
    second = Heard()
    parsed(Fake(trace.folder, 0.01), processes=2, report=second)
    assert second.lines == ["20 of 40 images are parsed already"]
    done = [done for done, _, _ in second.updates]
    assert done == sorted(done)
    assert done[-1] == IMAGES
    parts = sum(row.category_id == 7 for one in EXPECTED for row in one.annotations)
    for heard in (first, second):
        assert heard.updates[-1][2].startswith(f"images parsed, {parts} parts, ")


@pytest.mark.parametrize("processes", [0, 2])
def test_what_is_wrong_with_an_image_is_told_as_it_is_and_what_was_done_is_kept(
    trace: Trace, processes: int
) -> None:
    with pytest.raises(LayoutError) as caught:
        parsed(Fake(trace.folder, 0.05, fails_at=22), processes=processes)
    assert str(caught.value) == "22.png: a raw file is damaged; get it again"
    assert trace.nobody_works(0) or processes == 0
    before = [path.name for path in trace.shards]
    assert before
    trace.forget()
    assert parsed(Fake(trace.folder)) == EXPECTED
    assert len(trace.rows) == IMAGES - 4 * len(before)


def test_a_process_that_dies_is_one_clear_error_and_the_rest_ends(trace: Trace) -> None:
    with pytest.raises(PartsegError, match=r"a worker process was killed, .*lower the number of processes"):
        parsed(Fake(trace.folder, 0.05, dies_at=26), processes=2)
    assert trace.nobody_works(0)
    assert parsed(Fake(trace.folder), processes=2) == EXPECTED


def test_an_interruption_does_not_wait_for_the_images_under_way(trace: Trace) -> None:
    def interrupt(done: int) -> None:
        if len(trace.opened) == 2:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        parsed(Fake(trace.folder, 60), processes=2, report=Heard(interrupt))
    assert trace.nobody_works(0)
    assert trace.rows == []


@pytest.mark.parametrize(
    ("number", "group"),
    [
        pytest.param(signal.SIGKILL, False, id="killed"),
        pytest.param(signal.SIGTERM, False, id="terminated"),
        pytest.param(signal.SIGINT, True, id="ctrl-c"),
    ],
)
def test_no_process_outlives_a_run_that_ends_in_the_middle_and_the_next_one_goes_on(
    trace: Trace, number: int, group: bool
) -> None:
    command = [sys.executable, "-m", "tests.parsing.fake_parser", str(trace.folder), "2", "0.1"]
    run = subprocess.Popen(
        command, cwd=Path(__file__).parents[2], start_new_session=True, stderr=subprocess.DEVNULL
    )
    trace.until(lambda: len(trace.shards) >= 2 and len(trace.opened) == 2)
    os.killpg(run.pid, number) if group else run.send_signal(number)
    assert run.wait(timeout=20) != 0
    assert trace.nobody_works(5)
    done = {int(path.stem) for path in trace.shards}
    assert 2 <= len(done) < 10
    trace.forget()
    assert parsed(Fake(trace.folder)) == EXPECTED
    assert trace.rows == [row for row in range(IMAGES) if row // 4 * 4 not in done]


def test_of_two_at_once_in_one_folder_the_second_is_refused(tmp_path: Path) -> None:
    with (
        parsing_folder(tmp_path, 1, 3),
        pytest.raises(LayoutError, match="another process is parsing into the same folder; wait for it"),
        parsing_folder(tmp_path, 1, 3),
    ):
        pass


numbers = st.floats(allow_nan=False, allow_infinity=False)
texts = st.text(st.characters(codec="utf-8"), max_size=8)
values = st.recursive(
    st.none() | st.booleans() | st.integers(-(2**53), 2**53) | numbers | texts,
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(texts, inner, max_size=3),
    max_leaves=5,
)
annotations = st.builds(
    AnnotationRow,
    category_id=st.integers(1, 10**6),
    bbox_xywh=st.tuples(numbers, numbers, numbers, numbers),
    area=numbers,
    rle=st.none() | st.binary(max_size=20),
    parent=st.none() | st.integers(0, 9),
    attributes=st.lists(st.integers(1, 99), max_size=2).map(tuple),
    score=st.none() | numbers,
    extra=st.none() | st.dictionaries(texts, values, max_size=3),
)
images = st.builds(
    ImageRow,
    file_name=texts,
    height=st.integers(1, 10**5),
    width=st.integers(1, 10**5),
    source_key=texts,
    sha256=st.none() | st.binary(min_size=32, max_size=32),
    pos_category_ids=st.lists(st.integers(1, 99), max_size=2).map(tuple),
)
records = st.builds(
    Record, image=images, annotations=st.lists(annotations, max_size=3).map(tuple), findings=st.just(())
) | st.builds(Record.dropped, texts, texts, texts)


@given(st.lists(records, max_size=3))
def test_a_record_comes_back_from_a_file_as_it_was(given: list[Any]) -> None:
    assert unpack(pack(given)) == given
