from __future__ import annotations

import json
import multiprocessing
import subprocess
import sys
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from partseg.errors import WeightsError
from partseg.files import sha256_file
from partseg.vocabulary import EmbeddingTable, build_table, clip, embed, encode, offline, published, resolve
from partseg.vocabulary.cache import add_rows, cache_file, read_rows

TOWER = "partseg-test-tower"


@pytest.fixture
def calls(monkeypatch: pytest.MonkeyPatch) -> list[list[str]]:
    """Texts that reached open_clip, which is another encoder here."""
    made: list[list[str]] = []

    def stand_in(texts: Sequence[str], *, model: str, weights: Path | None = None) -> Any:
        made.append(list(texts))
        return offline.encode([f"{model} {text}" for text in texts], dim=16) * 3

    monkeypatch.setattr(clip, "encode", stand_in)
    return made


def test_offline_rows_are_those_of_build_table(tmp_path: Path) -> None:
    table = embed(resolve("cat,dog"), encoder="offline:32", cache=tmp_path)
    np.testing.assert_array_equal(table.vectors, build_table(["cat", "dog"], encoder="offline:32").vectors)
    assert (table.encoder, table.template) == ("offline:32", "a {words}")
    assert not list(tmp_path.iterdir())


def test_only_new_prompts_are_encoded(tmp_path: Path, calls: list[list[str]]) -> None:
    first = embed(resolve("cat,dog,dog:head"), cache=tmp_path)
    second = embed(resolve("dog:head,bus,dog"), cache=tmp_path)
    third = embed(resolve("bus,cat"), cache=tmp_path)
    assert calls == [["a cat", "a dog", "a dog head"], ["a bus"]]
    np.testing.assert_array_equal(second.rows(["dog", "dog:head"]), first.rows(["dog", "dog:head"]))
    np.testing.assert_array_equal(third.rows(["bus"]), second.rows(["bus"]))
    assert np.linalg.norm(first.vectors[0]) == pytest.approx(3, abs=1e-5)  # as the encoder gave them
    assert first.encoder == "open_clip:RN50"


def test_other_encoders_and_weights_have_other_rows(tmp_path: Path, calls: list[list[str]]) -> None:
    dog = resolve("dog")
    for content in (b"one", b"two", b"one"):
        (tmp_path / "weights.pt").write_bytes(content)
        embed(dog, weights=tmp_path / "weights.pt", cache=tmp_path)
    embed(dog, encoder="open_clip:ViT-B/32", cache=tmp_path)
    embed(dog, encoder="open_clip:ViT-B-32", cache=tmp_path)
    assert len(calls) == 3
    with pytest.raises(WeightsError, match="no such file"):
        embed(dog, weights=tmp_path / "none.pt", cache=tmp_path)


def test_a_damaged_cache_is_made_again(tmp_path: Path, calls: list[list[str]]) -> None:
    embed(resolve("dog"), cache=tmp_path)
    (file,) = tmp_path.glob("*.safetensors")
    file.write_bytes(file.read_bytes()[:40])
    embed(resolve("dog"), cache=tmp_path)
    embed(resolve("dog"), cache=tmp_path)
    assert len(calls) == 2


def test_the_cache_is_where_caches_are(
    tmp_path: Path, calls: list[list[str]], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("PARTSEG_CACHE", str(tmp_path / "here"))
    embed(resolve("dog"))
    assert list((tmp_path / "here" / "texts").glob("*.safetensors"))
    (tmp_path / "file").write_text("")
    with pytest.raises(WeightsError, match="set PARTSEG_CACHE"):
        embed(resolve("dog"), cache=tmp_path / "file")


def _add(path: Path, worker: int) -> None:
    for turn in range(5):
        add_rows(path, build_table([f"word {worker} {turn}"], encoder="offline:8", template="{name}"))


def test_processes_that_add_at_once_lose_nothing(tmp_path: Path) -> None:
    path = cache_file(tmp_path, "open_clip:RN50", "published")
    context = multiprocessing.get_context("fork")
    workers = [context.Process(target=_add, args=(path, worker)) for worker in range(3)]
    for worker in workers:
        worker.start()
    for worker in workers:
        worker.join()
    table = read_rows(path)
    assert table is not None
    assert sorted(table.names) == sorted(f"word {w} {t}" for w in range(3) for t in range(5))
    np.testing.assert_array_equal(table.rows(["word 2 3"]), encode(["word 2 3"], "offline:8"))


def _release(folder: Path, name: str, seed: int = 0) -> np.ndarray:
    """A table like VLPart's first one of a vocabulary."""
    facts = published()[name].released[0]
    rows = np.random.default_rng(seed).normal(size=(facts.rows, facts.dim)).astype(np.float16)
    np.save(folder / facts.file, rows)
    return rows.astype(np.float32)


def test_released_tables(tmp_path: Path) -> None:
    rows = _release(tmp_path, "pascal_part")
    file = tmp_path / published()["pascal_part"].released[0].file
    table = embed(resolve("pascal_part"), table=file)
    np.testing.assert_array_equal(table.vectors, rows)
    assert (table.vectors.dtype, table.encoder) == (np.float32, "open_clip:RN50")
    assert resolve(str(file)).names == resolve("pascal_part").names
    np.testing.assert_array_equal(embed(resolve(str(file))).vectors, rows)
    # its rows serve any vocabulary with the same prompts
    own = embed(resolve("sheep:torso,aeroplane:body"), table=file)
    np.testing.assert_array_equal(own.vectors, rows[[-1, 0]])
    with pytest.raises(WeightsError, match="1 of 2 prompts are in no released table, first 'a bus stop'"):
        embed(resolve("sheep:torso,bus stop"), table=file)
    with pytest.raises(WeightsError, match="prompts are in no released table, first 'the aeroplane body'"):
        embed(resolve("pascal_part", template="the {words}"), table=file)
    np.save(file, rows[:-1])
    with pytest.raises(WeightsError, match=r"shape \(92, 1024\) does not fit 93 names"):
        embed(resolve("pascal_part"), table=file)
    np.save(file, rows[:, :512])
    with pytest.raises(WeightsError, match=r"shape \(93, 512\) instead of \(93, 1024\)"):
        embed(resolve("pascal_part"), table=file)


def test_a_folder_of_released_tables(tmp_path: Path) -> None:
    with pytest.raises(WeightsError, match="no table that VLPart released"):
        embed(resolve("voc"), table=tmp_path)
    base, full, voc = (
        _release(tmp_path, name, seed) for seed, name in enumerate(("pascal_part_base", "pascal_part", "voc"))
    )
    both = embed(resolve("voc+pascal_part"), table=tmp_path)
    np.testing.assert_array_equal(both.vectors, np.concatenate([voc, full]))
    np.testing.assert_array_equal(embed(resolve("pascal_part_base"), table=tmp_path).vectors, base)
    # of two tables with a prompt the larger one gives it
    np.testing.assert_array_equal(embed(resolve("aeroplane:body"), table=tmp_path).vectors, full[:1])


def test_the_second_table_of_pascal_part(tmp_path: Path) -> None:
    facts = published()["pascal_part"].released[1]
    rows = np.ones((facts.rows, facts.dim), np.float16)
    np.save(tmp_path / facts.file, rows)
    assert resolve(str(tmp_path / facts.file)).prompts[0] == "body of a aeroplane"
    table = embed(resolve("pascal_part"), table=tmp_path / facts.file)
    assert table.template == "{part} of a {object}"


def test_tables_must_hold_numbers(tmp_path: Path) -> None:
    for bad in (np.ones((2, 4), np.int64), np.array([[1.0, np.nan], [1.0, 1.0]])):
        np.save(tmp_path / "rows.npy", bad)
        with pytest.raises(WeightsError, match="finite"):
            embed(resolve("cat,dog"), table=tmp_path / "rows.npy")
    for content in (b"", b"\x93NUMPY", b"nonsense"):
        (tmp_path / "rows.npy").write_bytes(content)
        with pytest.raises(WeightsError, match="cannot be read"):
            embed(resolve("cat,dog"), table=tmp_path / "rows.npy")
    with (tmp_path / "rows.npy").open("wb") as file:
        np.savez(file, rows=np.ones((2, 4)))
    with pytest.raises(WeightsError, match="archive of arrays"):
        embed(resolve("cat,dog"), table=tmp_path / "rows.npy")


def test_own_tables_may_have_more_names(tmp_path: Path) -> None:
    table = build_table(["bus", "dog", "cat"], encoder="offline:8")
    table.save(tmp_path / "table.safetensors")
    again = embed(resolve("cat,dog"), table=tmp_path / "table.safetensors")
    np.testing.assert_array_equal(again.vectors, table.rows(["cat", "dog"]))
    with pytest.raises(WeightsError, match="did you mean 'dog'"):
        embed(resolve("dogs"), table=tmp_path / "table.safetensors")


def _tower(tmp_path: Path) -> Any:
    """A small CLIP with OpenAI's activation, known to open_clip as a model without it."""
    open_clip = pytest.importorskip("open_clip")
    torch = pytest.importorskip("torch")
    text = {"context_length": 77, "vocab_size": 49408, "width": 16, "heads": 2, "layers": 1}
    vision = {"image_size": 32, "layers": 1, "width": 16, "patch_size": 16, "head_width": 8}
    (tmp_path / f"{TOWER}.json").write_text(
        json.dumps({"embed_dim": 12, "vision_cfg": vision, "text_cfg": text})
    )
    open_clip.add_model_config(tmp_path / f"{TOWER}.json")
    torch.manual_seed(0)
    model = open_clip.create_model(TOWER, pretrained=None, force_quick_gelu=True).eval()
    for tensor in model.parameters():
        tensor.data.mul_(20 if tensor.ndim == 2 else 1)  # large enough for the activations to differ
    return model


@pytest.fixture
def published_by_openai(monkeypatch: pytest.MonkeyPatch) -> dict[str, Any]:
    open_clip = pytest.importorskip("open_clip")
    facts = {"url": "http://127.0.0.1:9/digest/Tower.pt", "hf_hub": "partseg/none/", "quick_gelu": True}
    monkeypatch.setattr(open_clip, "get_pretrained_cfg", lambda model, tag: facts)
    return facts


@pytest.mark.filterwarnings("ignore::FutureWarning", "ignore::DeprecationWarning")
def test_files_of_openai_weights(tmp_path: Path, published_by_openai: dict[str, Any]) -> None:
    import torch
    from safetensors.torch import save_file

    model = _tower(tmp_path)
    tensors = {key: value.contiguous() for key, value in model.state_dict().items()}
    with torch.inference_mode():
        expected = model.encode_text(clip_tokens(["a dog", "a dog head"])).numpy()

    # OpenAI's archives are TorchScript; the text tower's tensors alone do as well
    torch.jit.trace(_holder(tensors), torch.zeros(1)).save(str(tmp_path / "archive.pt"))
    save_file(
        {key: value for key, value in tensors.items() if not key.startswith("visual.")},
        tmp_path / "text.safetensors",
    )
    torch.save(
        {"state_dict": {f"module.{key}": value for key, value in tensors.items()}}, tmp_path / "ddp.pt"
    )
    for file in ("archive.pt", "text.safetensors", "ddp.pt"):
        rows = encode(["a dog", "a dog head"], f"open_clip:{TOWER}", weights=tmp_path / file)
        np.testing.assert_allclose(rows, expected, rtol=1e-4, atol=1e-4)

    published_by_openai["quick_gelu"] = False  # that the activation matters at all
    other = encode(["a dog", "a dog head"], f"open_clip:{TOWER}", weights=tmp_path / "ddp.pt")
    assert np.abs(other - expected).max() > 1e-2

    del tensors["text_projection"]
    torch.save(tensors, tmp_path / "part.pt")
    with pytest.raises(WeightsError, match=r"do not fit .*first text_projection.*OpenAI's Tower\.pt"):
        encode(["a dog"], f"open_clip:{TOWER}", weights=tmp_path / "part.pt")


def _holder(tensors: dict[str, Any]) -> Any:
    """A module with these tensors and the three numbers that OpenAI's archives have beside them."""
    import torch

    module = torch.nn.Identity()
    for name, value in tensors.items():
        *path, last = name.split(".")
        inner = module
        for piece in path:
            if not hasattr(inner, piece):
                inner.add_module(piece, torch.nn.Identity())
            inner = getattr(inner, piece)
        inner.register_buffer(last, value)
    for name in ("input_resolution", "context_length", "vocab_size"):
        module.register_buffer(name, torch.tensor(32))
    return module


def clip_tokens(texts: list[str]) -> Any:
    import open_clip

    return open_clip.get_tokenizer(TOWER)(texts)


def test_weights_that_cannot_be_had(
    tmp_path: Path, published_by_openai: dict[str, Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    import huggingface_hub

    _tower(tmp_path)
    monkeypatch.setattr(huggingface_hub.constants, "HF_HUB_OFFLINE", True)
    with pytest.raises(WeightsError, match=r"HF_HUB_OFFLINE.*give a local file.*Tower\.pt"):
        encode(["a dog"], f"open_clip:{TOWER}")
    monkeypatch.setattr(huggingface_hub.constants, "HF_HUB_OFFLINE", False)
    monkeypatch.setattr(huggingface_hub, "hf_hub_url", lambda repo, file: "http://127.0.0.1:9/weights")
    with pytest.raises(WeightsError, match=r"cannot be downloaded .*give a local file"):
        encode(["a dog"], f"open_clip:{TOWER}")


def test_what_clip_downloaded_before_is_used(
    tmp_path: Path, published_by_openai: dict[str, Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    import torch

    model = _tower(tmp_path)
    earlier = tmp_path / ".cache/clip/Tower.pt"
    earlier.parent.mkdir(parents=True)
    torch.save(model.state_dict(), earlier)
    monkeypatch.setenv("HOME", str(tmp_path))
    published_by_openai["url"] = f"http://127.0.0.1:9/{sha256_file(earlier)}/Tower.pt"
    rows = encode(["a dog"], f"open_clip:{TOWER}")
    with torch.inference_mode():
        np.testing.assert_allclose(
            rows, model.encode_text(clip_tokens(["a dog"])).numpy(), rtol=1e-4, atol=1e-4
        )
    earlier.write_bytes(earlier.read_bytes()[:-1])  # a download that broke off is not taken for the weights
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", True)
    with pytest.raises(WeightsError, match="cannot be downloaded"):
        encode(["a dog"], f"open_clip:{TOWER}")


def test_a_silent_server_is_not_waited_for(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(clip, "PATIENCE", 0.2)
    monkeypatch.setattr("urllib.request.urlopen", lambda *a, **k: time.sleep(30))
    start = time.monotonic()
    assert "no answer" in clip._unreachable("http://example.invalid/")
    assert time.monotonic() - start < 5


def test_names_and_offline_rows_need_no_torch(tmp_path: Path) -> None:
    code = (
        "import sys; from partseg.vocabulary import embed, resolve;"
        "embed(resolve('voc+pascal_part'), encoder='offline:8');"
        "sys.exit('torch' in sys.modules)"
    )
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0


def test_tables_are_told_apart_from_other_safetensors(tmp_path: Path) -> None:
    from safetensors.numpy import save_file

    save_file({"vectors": np.ones((1, 2), np.float32)}, tmp_path / "other.safetensors")
    with pytest.raises(WeightsError, match="not a table of embeddings"):
        EmbeddingTable.load(tmp_path / "other.safetensors")
    save_file(
        {"vectors": np.ones((1, 2), np.float32)},
        tmp_path / "other.safetensors",
        metadata={"table": '{"format": "partseg-embeddings-1"}'},
    )
    with pytest.raises(WeightsError, match="cannot be read"):
        EmbeddingTable.load(tmp_path / "other.safetensors")
