"""The base index: an exact search, on a file that is mapped, built so that a killed build goes on."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

import pipelines.base_index
from partseg.errors import LayoutError, StoreError
from partseg.layout import Dataset
from partseg.parsing import index as index_module
from partseg.parsing.descriptors import Describer, Features
from partseg.parsing.index import UNFINISHED, BaseIndex, base_rows, build_index
from partseg.progress import Silent
from pipelines.artifact import Artifact, StageContext
from pipelines.base_index import Params, load_reading

OBJECTS, PARTS = {1, 4}, {2, 3}


def index_of(tokens: torch.Tensor) -> BaseIndex:
    return BaseIndex(tokens=tokens, image_ids=torch.arange(len(tokens)))


def by_hand(base: torch.Tensor, query: torch.Tensor, k: int) -> list[int]:
    """The most similar rows, the first on ties, in float64."""
    a, b = base.double().numpy(), query.double().numpy()
    cosines = [float((row * b).sum() / np.sqrt((row * row).sum() * (b * b).sum())) for row in a]
    return sorted(range(len(a)), key=lambda row: (-cosines[row], row))[:k]


@settings(max_examples=60, deadline=None)
@given(st.integers(0, 2**31), st.integers(1, 30), st.integers(1, 5), st.integers(1, 4), st.booleans())
def test_the_search_is_exact_whatever_is_asked_together(
    seed: int, count: int, queries: int, k: int, alike: bool
) -> None:
    draw = torch.Generator().manual_seed(seed)
    base = torch.randn(count, 16, generator=draw)
    if alike:  # so close together that float32 products cannot rank them
        base = torch.ones(16) + 1e-6 * base
    base[count // 2] = base[0]  # and two that are the same
    asked = torch.randn(queries, 16, generator=draw)
    index = index_of(base)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(index_module, "ROWS", 7)
        patch.setattr(index_module, "QUERIES", 2)
        rows, cosines = index.nearest(asked, k)
    assert rows.shape == cosines.shape == (queries, min(k, count))
    for query, found, cosine in zip(asked, rows, cosines, strict=True):
        assert found.tolist() == by_hand(base, query, k)
        alone = index.nearest(query[None], k)
        assert torch.equal(alone[0][0], found)
        assert torch.equal(alone[1][0], cosine)


def test_a_token_finds_itself_and_the_first_of_its_copies() -> None:
    base = torch.randn(300, 8)
    base[200] = 3 * base[17]
    base[250] = base[17]
    rows, cosines = index_of(base).nearest(base[[250]], k=2)
    assert rows.tolist() == [[17, 250]] or rows.tolist() == [[17, 200]]
    assert cosines[0].tolist() == pytest.approx([1, 1], abs=1e-7)


def test_an_index_is_mapped_from_its_file(tmp_path: Path) -> None:
    tokens = torch.randn(50, 8)
    BaseIndex(tokens=tokens, image_ids=torch.arange(100, 150)).save(tmp_path / "index")
    assert sorted(path.name for path in (tmp_path / "index").iterdir()) == ["image_ids.npy", "tokens.npy"]
    again = BaseIndex.load(tmp_path / "index")
    mapped = f"{tmp_path}/index/tokens.npy"
    assert any(line.endswith(mapped) for line in Path("/proc/self/maps").read_text().splitlines())
    assert torch.equal(again.tokens, tokens)
    assert again.image_ids.tolist() == list(range(100, 150))
    assert torch.equal(again.nearest(tokens[[3]])[0], torch.tensor([[3]]))


def test_what_is_no_index_is_said(tmp_path: Path) -> None:
    with pytest.raises(StoreError, match="not a base index"):
        BaseIndex.load(tmp_path)
    index_of(torch.randn(3, 8)).save(tmp_path)
    np.save(tmp_path / "image_ids.npy", np.arange(4))
    with pytest.raises(StoreError, match="do not fit together"):
        BaseIndex.load(tmp_path)
    (tmp_path / "tokens.npy").write_bytes(b"")
    with pytest.raises(StoreError, match="not a base index"):
        BaseIndex.load(tmp_path)


def test_only_images_of_one_object_with_parts_are_base_images(
    base_dataset: Dataset, describer: Describer
) -> None:
    split = base_dataset.split("train")
    assert base_rows(split, OBJECTS, PARTS) == [1, 2]
    index = build_index(split, describer, object_ids=OBJECTS, part_ids=PARTS)
    assert index.image_ids.tolist() == [2, 3]
    assert index.tokens.shape == (2, 32)
    with pytest.raises(LayoutError, match="no image can serve"):
        build_index(split, describer, object_ids={1}, part_ids={5})


class Killed(Describer):
    """Describes as another one does, some images; then the process dies."""

    def __init__(self, describer: Describer, lives: int) -> None:
        self.__dict__ |= describer.__dict__
        self.lives, self.described = lives, 0

    def __call__(self, images: torch.Tensor) -> list[Features]:
        if self.described == self.lives:
            raise KeyboardInterrupt
        self.described += 1
        return super().__call__(images)


class Told(Silent):
    def __init__(self) -> None:
        self.updates: list[tuple[int, int]] = []

    def update(self, done: int, total: int, message: str = "") -> None:
        self.updates.append((done, total))


def test_a_killed_build_goes_on_where_it_stopped(
    tmp_path: Path, base_dataset: Dataset, describer: Describer
) -> None:
    split = base_dataset.split("train")
    whole = build_index(split, describer, object_ids=OBJECTS, part_ids=PARTS)
    with pytest.raises(KeyboardInterrupt):
        build_index(split, Killed(describer, 1), object_ids=OBJECTS, part_ids=PARTS, work=tmp_path)
    with (tmp_path / UNFINISHED).open("ab") as stream:
        stream.write(b"half a token")
    second, told = Killed(describer, 1), Told()
    index = build_index(split, second, object_ids=OBJECTS, part_ids=PARTS, work=tmp_path, report=told)
    assert second.described == 1
    assert told.updates == [(2, 2)]
    assert torch.equal(index.tokens, whole.tokens)
    assert torch.equal(index.image_ids, whole.image_ids)


def test_the_stage_keeps_what_it_read_when_it_is_killed(
    tmp_path: Path, base_dataset: Dataset, describer: Describer, monkeypatch: pytest.MonkeyPatch
) -> None:
    params = Params.model_validate({"descriptors": "vit", "data": "parts", "reading": {"short_side": 48}})
    artifact = Artifact(stage="any", key="k", digest="d", path=tmp_path)
    inputs = {"vit": artifact, "parts": artifact}
    monkeypatch.setattr(pipelines.base_index, "open_dataset", lambda _artifact: base_dataset)
    killed, second = Killed(describer, 1), Killed(describer, 1)
    lives = iter([killed, second, describer])
    monkeypatch.setattr(pipelines.base_index, "load_describer", lambda *_: next(lives))
    for name in ("work", "out", "clean"):
        (tmp_path / name).mkdir()
    context = StageContext(work=tmp_path / "work")
    with pytest.raises(KeyboardInterrupt):
        pipelines.base_index.run(params, inputs, tmp_path / "out", context)
    assert pipelines.base_index.run(params, inputs, tmp_path / "out", context) == {"images": 2}
    assert (killed.described, second.described) == (1, 1)
    other = StageContext(work=tmp_path / "other")
    pipelines.base_index.run(params, inputs, tmp_path / "clean", other)
    for path in (tmp_path / "clean").iterdir():
        assert path.read_bytes() == (tmp_path / "out" / path.name).read_bytes()
    assert load_reading(Artifact(stage="i", key="k", digest="d", path=tmp_path / "out")) == params.reading
