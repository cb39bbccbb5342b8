from __future__ import annotations

import argparse
import os
import pickle
import pickletools
import struct
import zipfile
from collections import Counter, OrderedDict
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from safetensors.torch import save_file
from torch import Tensor, nn

from partseg.errors import WeightsError
from partseg.models.checkpoints import (
    read_checkpoint,
)


def tensors() -> dict[str, Tensor]:
    torch.manual_seed(0)
    base = torch.randn(10, 4)
    return OrderedDict(
        whole=base,
        turned=base.t(),
        window=base[2:5],
        scalar=torch.tensor(2.5),
        empty=torch.empty(0, 3),
        half=torch.randn(3).half(),
        brain=torch.randn(3).bfloat16(),
        flags=torch.tensor([True, False]),
        counts=torch.arange(4),
        parameter=nn.Parameter(torch.randn(2, 2)),
    )


def trainer() -> dict[str, Any]:
    """What a trainer saves beside the weights."""
    optimiser = torch.optim.AdamW([nn.Parameter(torch.randn(3))])
    return {
        "optimizer": optimiser.state_dict(),
        "scheduler": {"base_lrs": [0.1], "milestones": Counter([1, 2])},
        "iteration": 5,
        "best": np.float64(3.5),
        "args": argparse.Namespace(lr=1e-4, path=Path("/data")),
        "device": torch.device("cpu"),
        "dtype": torch.float32,
        "seen": {1, 2},
    }


def same(found: dict[str, Tensor], wanted: dict[str, Tensor]) -> None:
    assert list(found) == list(wanted)
    for name, tensor in wanted.items():
        assert found[name].dtype == tensor.dtype, name
        assert torch.equal(found[name], tensor), name


@pytest.mark.parametrize("new", [True, False])
@pytest.mark.parametrize("key", ["model", "state_dict"])
def test_torch_files_are_read_with_what_lies_beside(tmp_path: Path, new: bool, key: str) -> None:
    torch.save({key: tensors(), **trainer()}, tmp_path / "a.pth", _use_new_zipfile_serialization=new)
    found = read_checkpoint(tmp_path / "a.pth")
    same(found.tensors, tensors())
    assert set(found.entries) == set(trainer())
    assert found.entries["iteration"] == 5
    assert found.entries["best"] == 3.5
    assert found.entries["args"].symbol == "argparse.Namespace"


@pytest.mark.parametrize("protocol", [2, 3, 4, 5])
def test_a_bare_state_dict_of_any_protocol_is_read(tmp_path: Path, protocol: int) -> None:
    wrapped = {f"module.{name}": tensor for name, tensor in tensors().items()}
    torch.save(wrapped, tmp_path / "a.pth", pickle_protocol=protocol)
    same(read_checkpoint(tmp_path / "a.pth").tensors, tensors())


@pytest.mark.parametrize("protocol", [2, 3, 4, 5])
def test_pickles_of_arrays_are_read(tmp_path: Path, protocol: int) -> None:
    arrays = {
        "rows": np.arange(6, dtype=np.float32).reshape(2, 3),
        "columns": np.asfortranarray(np.arange(6.0).reshape(2, 3)),
        "big": np.arange(3, dtype=">i4"),
        "flags": np.array([True, False]),
        "none": np.zeros((0, 2)),
    }
    content = {"model": arrays, "__author__": "third_party", "matching_heuristics": True}
    (tmp_path / "a.pkl").write_bytes(pickle.dumps(content, protocol=protocol))
    found = read_checkpoint(tmp_path / "a.pkl")
    assert {name: t.tolist() for name, t in found.tensors.items()} == {
        name: array.tolist() for name, array in arrays.items()
    }
    assert found.entries == {"__author__": "third_party", "matching_heuristics": True}


def test_a_pickle_of_python_2_is_read_as_latin_1(tmp_path: Path) -> None:
    # {'conv1_w': array([1.5, -2.0], float32)} as Python 2 wrote it: bytes are text there.
    data = struct.pack("<2f", 1.5, -2.0)
    content = (
        b"\x80\x02}U\x07conv1_wcnumpy.core.multiarray\n_reconstruct\ncnumpy\nndarray\nK\x00\x85U\x01b\x87R"
        b"(K\x01K\x02\x85cnumpy\ndtype\nU\x02f4K\x00K\x01\x87R(K\x03U\x01<NNNJ\xff\xff\xff\xffJ\xff\xff\xff\xff"
        b"K\x00tb\x89U\x08" + data + b"tbs."
    )
    (tmp_path / "a.pkl").write_bytes(content)
    assert read_checkpoint(tmp_path / "a.pkl").tensors["conv1_w"].tolist() == [1.5, -2.0]


class Evil:
    def __init__(self, function: Callable[..., Any], *arguments: Any) -> None:
        self.function, self.arguments = function, arguments

    def __reduce__(self) -> tuple[Any, ...]:
        return self.function, self.arguments


CODE = "__import__('pathlib').Path({path!r}).touch()"


def attacks(mark: Path) -> dict[str, tuple[bytes, str]]:
    """Pickles that would leave a mark, and the name that must be refused."""
    code = CODE.format(path=str(mark)).encode()
    quoted = b"V" + code + b"\n"
    shell = b"Vtouch " + str(mark).encode() + b"\n"
    return {
        "os.system": (pickle.dumps({"model": {"a": Evil(os.system, f"touch {mark}")}}), "posix.system"),
        "eval": (pickle.dumps({"model": {}, "x": Evil(eval, CODE.format(path=str(mark)))}), "builtins.eval"),
        "protocol 0": (b"\x80\x02cos\nsystem\n(" + shell + b"tR.", "os.system"),
        "inst": (b"\x80\x02(" + shell + b"ios\nsystem\n.", "os.system"),
        "obj": (b"\x80\x02(cos\nsystem\n" + shell + b"o.", "os.system"),
        "python 2": (b"\x80\x02c__builtin__\neval\n(" + quoted + b"tR.", "__builtin__.eval"),
        "stack global": (b"\x80\x04\x8c\x08builtins\x8c\x04exec\x93(" + quoted + b"tR.", "builtins.exec"),
        "getattr chain": (
            b"\x80\x04cbuiltins\ngetattr\n(cos\npath\nVgenericpath\ntR(Vos\ntR.",
            "builtins.getattr",
        ),
        "dotted name": (
            b"\x80\x04\x8c\x0bcollections\x8c\x1bOrderedDict.__init__.eval()\x93.",
            "collections.OrderedDict.__init__.eval()",
        ),
        "attribute of a known module": (b"\x80\x02ctorch\nload\n(Vx\ntR.", "torch.load"),
        "torch's own loader": (b"\x80\x02ctorch.storage\n_load_from_bytes\n(C\x00tR.", "_load_from_bytes"),
        "numpy's run": (
            b"\x80\x02cnumpy.testing._private.utils\nrunstring\n(" + quoted + b"}tR.",
            "runstring",
        ),
        "a class that is only named": (b"\x80\x02ctorch\nFloatStorage\n(Vx\ntR.", "torch.FloatStorage"),
        "state of a name": (b"\x80\x02ccollections\nOrderedDict\n}Vx\nVy\nsb.", "collections.OrderedDict"),
        "new object": (b"\x80\x02csubprocess\nPopen\n(" + shell + b"t\x81.", "subprocess.Popen"),
        "partial": (b"\x80\x02cfunctools\npartial\n(cos\nsystem\n" + shell + b"tR.", "functools.partial"),
        "default factory": (
            b"\x80\x02ccollections\ndefaultdict\n(cos\nsystem\ntR" + shell + b"Vx\ns.",
            "os.system",
        ),
        "extension": (b"\x80\x02\x82\x01.", "EXT1"),
        "persistent id": (b"\x80\x02Vx\nQ.", "BINPERSID"),
        "out of band": (b"\x80\x05\x97.", "NEXT_BUFFER"),
    }


@pytest.mark.parametrize("name", attacks(Path("mark")))
@pytest.mark.parametrize("container", ["pickle", "zip", "legacy"])
def test_a_file_that_wants_to_run_code_is_refused_by_name(tmp_path: Path, name: str, container: str) -> None:
    mark = tmp_path / "mark"
    content, symbol = attacks(mark)[name]
    path = tmp_path / "a.pth"
    if container == "pickle":
        path.write_bytes(content)
    elif container == "zip":
        with zipfile.ZipFile(path, "w") as archive:
            archive.writestr("a/data.pkl", content)
    else:
        torch.save({}, path, _use_new_zipfile_serialization=False)
        whole = path.read_bytes()
        head = whole[: whole.rindex(pickle.dumps({}, protocol=2))]
        path.write_bytes(head + content)
    if (name, container) in {("persistent id", "zip"), ("persistent id", "legacy")}:
        symbol = "damaged"
    with pytest.raises(WeightsError) as error:
        read_checkpoint(path)
    assert symbol in str(error.value)
    assert str(path) in str(error.value)
    assert not mark.exists()


def test_the_attacks_are_real(tmp_path: Path) -> None:
    mark = tmp_path / "mark"
    for name in ("os.system", "eval", "protocol 0", "python 2", "stack global"):
        pickle.loads(attacks(mark)[name][0])
        assert mark.exists(), name
        mark.unlink()


def test_bombs_are_refused(tmp_path: Path) -> None:
    path = tmp_path / "a.pth"
    bombs = {
        "memo": b"\x80\x02Nr\xff\xff\xff\xff.",
        "depth": b"\x80\x02" + b"]" * 100_000 + b"a" * 99_999 + b".",
        "tuples": b"\x80\x02N" + b"\x85" * 100_000 + b".",
        "tuple key": b"\x80\x02}N" + b"\x85" * 100_000 + b"Ns.",
        "itself": b"\x80\x02]q\x00h\x00a.",
        "laughs": b"\x80\x02]q\x00" + b"".join(b"0](h%ch%ceq%c" % (i, i, i + 1) for i in range(60)) + b".",
        "long text": b"\x80\x04\x8d\xff\xff\xff\xff\xff\xff\xff\x7f.",
        "long number": b"\x80\x02\x8b\xff\xff\xff\x7f.",
    }
    for content in bombs.values():
        path.write_bytes(content)
        with pytest.raises(WeightsError):
            read_checkpoint(path)
    torch.save(torch.zeros(1).expand(1 << 40), path)
    with pytest.raises(WeightsError):
        read_checkpoint(path)
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr("a/data.pkl", b"0" * 10_000_000)
    with pytest.raises(WeightsError, match="compressed"):
        read_checkpoint(path)


def test_a_tensor_may_not_reach_beyond_its_numbers(tmp_path: Path) -> None:
    path = tmp_path / "a.pth"
    torch.save({"a": torch.arange(6.0).view(2, 3)}, path)
    with zipfile.ZipFile(path) as archive:
        members = {info.filename: archive.read(info) for info in archive.infolist()}
    pickled = next(name for name in members if name.endswith("data.pkl"))
    members[pickled] = members[pickled].replace(b"K\x02K\x03\x86", b"K\x03K\x03\x86")
    with zipfile.ZipFile(path, "w") as archive:
        for name, content in members.items():
            archive.writestr(name, content)
    with pytest.raises(WeightsError, match="reaches beyond"):
        read_checkpoint(path)


def _written(folder: Path) -> list[bytes]:
    content = {"model": tensors(), **trainer()}
    torch.save(content, folder / "new")
    torch.save(content, folder / "old", _use_new_zipfile_serialization=False)
    arrays = {name: t.detach().float().numpy() for name, t in tensors().items()}
    (folder / "pkl").write_bytes(pickle.dumps({"model": arrays}, protocol=4))
    save_file({name: t.detach().clone().contiguous() for name, t in tensors().items()}, folder / "safe")
    return [(folder / name).read_bytes() for name in ("new", "old", "pkl", "safe")]


@pytest.fixture(scope="module")
def written(tmp_path_factory: pytest.TempPathFactory) -> list[bytes]:
    return _written(tmp_path_factory.mktemp("written"))


@pytest.fixture(scope="module")
def scratch(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("scratch") / "a.pth"


def readable(path: Path, content: bytes) -> bool:
    path.write_bytes(content)
    try:
        read_checkpoint(path)
    except WeightsError:
        return False
    return True


FUZZ = settings(max_examples=400, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])


@given(data=st.data())
@FUZZ
def test_a_cut_file_is_an_error(data: st.DataObject, written: list[bytes], scratch: Path) -> None:
    whole = data.draw(st.sampled_from(written))
    assert not readable(scratch, whole[: data.draw(st.integers(0, len(whole) - 1))])


@given(data=st.data())
@FUZZ
def test_a_changed_file_is_read_or_an_error(data: st.DataObject, written: list[bytes], scratch: Path) -> None:
    content = bytearray(data.draw(st.sampled_from(written)))
    for _ in range(data.draw(st.integers(1, 4))):
        content[data.draw(st.integers(0, len(content) - 1))] = data.draw(st.integers(0, 255))
    readable(scratch, bytes(content))


OPCODES = st.sampled_from([opcode.code.encode("latin1") for opcode in pickletools.opcodes])
NAMES = st.sampled_from(
    [
        b"ccollections\nOrderedDict\n",
        b"ctorch._utils\n_rebuild_tensor_v2\n",
        b"cnumpy\ndtype\n",
        b"cnumpy\nndarray\n",
        b"cnumpy.core.multiarray\n_reconstruct\n",
        b"cnumpy._core.multiarray\nscalar\n",
        b"c_codecs\nencode\n",
        b"cbuiltins\nset\n",
        b"cargparse\nNamespace\n",
        b"ctorch\nFloatStorage\n",
        b"U\x07storage", b"U\x02f4", b"U\x01<", b"K\x02", b"Vx\n", b"(", b"t", b"R", b"b", b"}", b"]", b"Q",
        b"\x81", b"e", b"u", b"s", b"a", b"h\x00", b"q\x00", b"N", b"0", b"2",
    ]
)  # fmt: skip


@given(parts=st.lists(NAMES | NAMES | OPCODES | st.binary(max_size=3), max_size=25))
@FUZZ
def test_any_program_is_read_or_an_error(parts: list[bytes], scratch: Path) -> None:
    readable(scratch, b"\x80\x02" + b"".join(parts) + b".")


@pytest.mark.parametrize(
    ("content", "words"),
    [
        (b"", "none that holds weights"),
        (b"<html>not found</html>", "none that holds weights"),
        (b"version https://git-lfs.github.com/spec/v1\n", "none that holds weights"),
        (b"\0" * 257 + b"ustar" + b"\0" * 300, "tar archive"),
        (pickle.dumps([1, 2], protocol=2), "not a table of named tensors"),
        (pickle.dumps({"model": {"a": "b"}}, protocol=2), "entry 'a' of the weights is not a tensor but b"),
        (pickle.dumps({"epoch": 1}, protocol=2), "no named tensors"),
    ],
)
def test_a_file_of_something_else_is_said_to_be(tmp_path: Path, content: bytes, words: str) -> None:
    (tmp_path / "a.pth").write_bytes(content)
    with pytest.raises(WeightsError, match=words):
        read_checkpoint(tmp_path / "a.pth")


def test_a_missing_file_and_a_program_are_errors(tmp_path: Path) -> None:
    with pytest.raises(WeightsError, match="no such file of weights; check the path"):
        read_checkpoint(tmp_path / "none.pth")
    with zipfile.ZipFile(tmp_path / "a.pt", "w", zipfile.ZIP_DEFLATED) as archive:
        for member in ("data.pkl", "constants.pkl", "code/__torch__.py"):
            archive.writestr(f"a/{member}", b"\x80\x02}." * 20)
    with pytest.raises(WeightsError, match="TorchScript"):
        read_checkpoint(tmp_path / "a.pt")
