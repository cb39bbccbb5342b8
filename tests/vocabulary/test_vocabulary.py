from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from partseg.errors import RecipeError, WeightsError
from partseg.vocabulary import EmbeddingTable, build_table, encode

GOLDEN_DOG_LEG = [-0.3506636, 0.1137287, -0.360141, 0.5875986, 0.360141, -0.0047387, 0.360141, -0.360141]
NAMES = ["dog:leg", "cat:leg", "dog:head", "bus:wheel", "dog"]


def cosine(table: EmbeddingTable, first: str, second: str) -> float:
    a, b = table.rows([first, second])
    return float(a @ b / np.linalg.norm(a) / np.linalg.norm(b))


@settings(max_examples=30, deadline=None)
@given(st.lists(st.text(max_size=20), max_size=4))
def test_offline_vectors_are_unit_and_repeatable(texts: list[str]) -> None:
    first, second = encode(texts, "offline:64"), encode(texts, "offline:64")
    assert first.shape == (len(texts), 64)
    assert first.dtype == np.float32
    np.testing.assert_array_equal(first, second)
    lengths = np.linalg.norm(first, axis=1)
    assert np.all((np.abs(lengths - 1) < 1e-5) | (lengths == 0))


def test_common_words_make_names_alike() -> None:
    table = build_table(NAMES, encoder="offline:256")
    assert cosine(table, "dog:leg", "cat:leg") > 0.3
    assert cosine(table, "dog:leg", "dog:head") > 0.3
    assert abs(cosine(table, "dog:leg", "bus:wheel")) < 0.2


def test_the_prompt_hardly_counts() -> None:
    plain = build_table(["dog", "wheel"], encoder="offline:256", template="{name}")
    prompted = build_table(["dog", "wheel"], encoder="offline:256", template="a photo of a {name}")
    assert np.all((plain.vectors * prompted.vectors).sum(axis=1) > 0.98)


def test_offline_vectors_never_change() -> None:
    # Published artifacts depend on these values: a change must be a new encoder name.
    np.testing.assert_allclose(
        encode(["a dog:leg"], "offline:8")[0],
        np.array(GOLDEN_DOG_LEG, dtype=np.float32),
        atol=1e-6,
    )


def test_nearest() -> None:
    table = build_table(NAMES, encoder="offline:256")
    names = [name for name, _ in table.nearest("dog:leg", 2)]
    assert names == ["dog", "dog:head"] or set(names) <= {"dog", "dog:head", "cat:leg"}
    assert "dog:leg" not in names


def test_a_table_survives_the_disk(tmp_path: Path) -> None:
    table = build_table([*NAMES, "Müsli:schüssel"], encoder="offline:16", template="the {name}")
    table.save(tmp_path / "table.safetensors")
    again = EmbeddingTable.load(tmp_path / "table.safetensors")
    assert (again.names, again.encoder, again.template) == (table.names, table.encoder, table.template)
    np.testing.assert_array_equal(again.vectors, table.vectors)
    first = (tmp_path / "table.safetensors").read_bytes()
    again.save(tmp_path / "again.safetensors")
    assert (tmp_path / "again.safetensors").read_bytes() == first


def test_npy_rows_get_their_names_from_the_caller(tmp_path: Path) -> None:
    rows = np.arange(6, dtype=np.float16).reshape(2, 3)
    np.save(tmp_path / "rows.npy", rows)
    table = EmbeddingTable.load(tmp_path / "rows.npy", names=["a", "b"])
    np.testing.assert_array_equal(table.rows(["b"]), [[3, 4, 5]])
    with pytest.raises(WeightsError, match="no names"):
        EmbeddingTable.load(tmp_path / "rows.npy")
    with pytest.raises(WeightsError, match="does not fit 3 names"):
        EmbeddingTable.load(tmp_path / "rows.npy", names=["a", "b", "c"])


def test_errors_name_the_category(tmp_path: Path) -> None:
    table = build_table(NAMES, encoder="offline:16")
    with pytest.raises(WeightsError, match=r"'dog:legs'.*did you mean 'dog:leg'"):
        table.rows(["dog", "dog:legs"])
    with pytest.raises(WeightsError, match="occur twice: dog"):
        build_table(["dog", "dog"], encoder="offline:16")
    (tmp_path / "bad.safetensors").write_bytes(b"nonsense")
    with pytest.raises(WeightsError, match="cannot be read"):
        EmbeddingTable.load(tmp_path / "bad.safetensors")


def test_unknown_encoders_are_refused() -> None:
    for name in ("word2vec", "offline:many", "open_clip", "offline:0"):
        with pytest.raises(RecipeError, match="unknown text encoder"):
            encode(["a dog"], name)
    with pytest.raises(RecipeError, match=r"no \{name\} in it"):
        build_table(["dog"], encoder="offline", template="a dog")


def test_open_clip_with_a_local_file(tmp_path: Path) -> None:
    open_clip = pytest.importorskip("open_clip")
    torch = pytest.importorskip("torch")
    tower = {"context_length": 77, "vocab_size": 49408, "width": 16, "heads": 2, "layers": 1}
    vision = {"image_size": 32, "layers": 1, "width": 16, "patch_size": 16, "head_width": 8}
    config = {"embed_dim": 12, "vision_cfg": vision, "text_cfg": tower}
    (tmp_path / "partseg-test-tower.json").write_text(json.dumps(config))
    open_clip.add_model_config(tmp_path / "partseg-test-tower.json")
    torch.manual_seed(0)
    model = open_clip.create_model("partseg-test-tower", pretrained=None).eval()
    torch.save(model.state_dict(), tmp_path / "tower.pt")
    rows = encode(["a dog", "a cat"], "open_clip:partseg-test-tower", weights=tmp_path / "tower.pt")
    with torch.inference_mode():
        expected = model.encode_text(
            open_clip.get_tokenizer("partseg-test-tower")(["a dog", "a cat"])
        ).numpy()
    np.testing.assert_allclose(rows, expected, atol=1e-5)
    with pytest.raises(WeightsError, match="no such file"):
        encode(["a dog"], "open_clip:partseg-test-tower", weights=tmp_path / "none.pt")
    (tmp_path / "bad.pt").write_bytes(b"nonsense")
    with pytest.raises(WeightsError, match="give a local file"):
        encode(["a dog"], "open_clip:partseg-test-tower", weights=tmp_path / "bad.pt")
    with pytest.raises(RecipeError, match="no model"):
        encode(["a dog"], "open_clip:nothing-like-this")
