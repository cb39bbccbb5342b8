"""Ways to damage a raw folder: what downloads, disks, scripts and people do to files, at random places."""

from __future__ import annotations

import io
import json
import re
from collections.abc import Callable
from typing import Any

import numpy as np
from PIL import Image
from scipy.io import loadmat, savemat

Random = np.random.Generator
Folder = dict[str, bytes]  # relative path to content

_NASTY: tuple[Any, ...] = (
    None, True, False, "", "x", "\x00", "é\u2028\U0001f600", "../../up", "/", ".", "x" * 5000, "0", "1",
    "nan", 0, 1, -1, 0.5, -0.0, 3.0, 1e308, -1e308, float("nan"), float("inf"), 2**31, 2**32, 2**53 + 1,
    2**63, 2**64, -(2**63), 10**30, [], {}, [[]], [None], [1, 2, 3], [[0, 0, 1, 1]],
    [[1e9, 1e9, -1e9, 5, 3, 3]], {"counts": "", "size": [1, 1]}, {"counts": [5], "size": [10**6, 10**6]},
    {"counts": [2**40], "size": [36, 48]}, {"counts": "zzzz~", "size": [36, 48]},
    {"counts": [-3, 9], "size": [3, 2]},
)  # fmt: skip


def damaged(folder: Folder, random: Random) -> tuple[Folder, list[str]]:
    """A copy of the folder with one to three damages, and what they are."""
    found, story = dict(folder), []
    for _ in range(int(random.integers(1, 4))):
        # few kinds of files have many members: every kind shall have its turn
        kinds = sorted({path.rsplit(".", 1)[-1] for path in found})
        kind = kinds[int(random.integers(len(kinds)))]
        paths = sorted(path for path in found if path.rsplit(".", 1)[-1] == kind)
        path = paths[int(random.integers(len(paths)))]
        story.append(f"{path}: {_damage(found, path, random)}")
        if not found:
            break
    return found, story


def _damage(folder: Folder, path: str, random: Random) -> str:
    form = path.rsplit(".", 1)[-1].lower()
    special = {
        "json": _json,
        "xml": _xml,
        "txt": _lines,
        "mat": _mat,
        "png": _picture,
        "jpg": _picture,
        "jpeg": _picture,
        "tif": _map,
    }[form]
    choices: list[tuple[Callable[[Folder, str, Random], str], float]] = [
        (special, 0.65),
        (_bytes, 0.2),
        (_files, 0.15),
    ]
    weights = [weight for _, weight in choices]
    return choices[int(random.choice(len(choices), p=weights))][0](folder, path, random)


def _files(folder: Folder, path: str, random: Random) -> str:
    """Files that are gone, swapped, doubled or empty."""
    paths = sorted(folder)
    other = paths[int(random.integers(len(paths)))]
    match int(random.integers(5)):
        case 0:
            del folder[path]
            return "deleted"
        case 1:
            folder[path], folder[other] = folder[other], folder[path]
            return f"swapped with {other}"
        case 2:
            folder[path] = folder[other]
            return f"is {other}"
        case 3:
            stem, dot, suffix = path.rpartition(".")
            folder[f"{stem}_copy{dot}{suffix}"] = folder[path]
            return "also there as _copy"
        case _:
            folder[path] = b""
            return "empty"


def _bytes(folder: Folder, path: str, random: Random) -> str:
    """What a disk or a connection does."""
    content = bytearray(folder[path])
    if not content:
        return "empty already"
    at = int(random.integers(len(content)))
    match int(random.integers(5)):
        case 0:
            del content[at:]
            story = f"cut at {at}"
        case 1:
            for place in random.integers(len(content), size=int(random.integers(1, 20))):
                content[int(place)] ^= 1 << int(random.integers(8))
            story = "flipped bits"
        case 2:
            content[at : at + 64] = bytes(len(content[at : at + 64]))
            story = f"zeros at {at}"
        case 3:
            del content[at : at + int(random.integers(1, 200))]
            story = f"bytes lost at {at}"
        case _:
            content[at:at] = random.bytes(int(random.integers(1, 200)))
            story = f"bytes gained at {at}"
    folder[path] = bytes(content)
    return story


def _nasty(random: Random) -> Any:
    return _NASTY[int(random.integers(len(_NASTY)))]


def _json(folder: Folder, path: str, random: Random) -> str:
    """Values of other types or beyond all bounds, missing keys, other encodings."""
    try:
        content = json.loads(folder[path])
    except (ValueError, RecursionError):
        return "not JSON any more"
    stories = [_json_value(content, random) for _ in range(int(random.integers(1, 4)))]
    text = json.dumps(content)
    match int(random.integers(20)):
        case 0:
            folder[path] = text.encode("utf-16")
            stories.append("as UTF-16")
        case 1:
            folder[path] = b"\xef\xbb\xbf" + text.encode()
            stories.append("with a BOM")
        case 2:
            folder[path] = b"[" * 100000 + b"]" * 100000
            stories = ["nested without end"]
        case 3:
            folder[path] = json.dumps(content, indent=2).encode() + b"\n"
            stories.append("indented")
        case 4:
            folder[path] = re.sub(rb'"id": ?\d+', lambda item: item[0] + b', "id": 7', text.encode(), count=1)
            stories.append("an id twice")
        case 5:
            folder[path] = text.encode()[:-1] + b', "annotations": []}'
            stories.append("annotations twice")
        case 6:
            folder[path] = text.encode() + b"{}"
            stories.append("something behind its end")
        case _:
            folder[path] = text.encode()
    return "; ".join(stories)


def _key(value: dict[str, Any] | list[Any], random: Random) -> str | int:
    """A random key; of a whole file's, annotations above all."""
    if isinstance(value, list):
        return int(random.integers(len(value)))
    keys = sorted(value)
    if "annotations" in value:
        keys += ["annotations"] * 8 + ["images"] * 4 + ["categories"] * 2
    return str(keys[int(random.integers(len(keys)))])


def _json_value(content: Any, random: Random) -> str:
    at = ""
    holder: Any = None
    key: Any = None
    value = content
    # walks down at random, and the deeper the likelier it stops
    while isinstance(value, dict | list) and value and (holder is None or random.random() < 0.85):
        holder = value
        key = _key(value, random)
        at += f"/{key}"
        value = value.get(key) if isinstance(value, dict) else value[key]
    if holder is None:
        return "nothing to change"
    if key not in holder and isinstance(holder, dict):  # a key that damage before has taken away
        return "nothing to change"
    match int(random.integers(8)):
        case 0:
            del holder[key]
            return f"{at} deleted"
        case 1 if isinstance(holder, list):
            holder.append(holder[key])
            return f"{at} twice"
        case 2 if isinstance(holder, list):
            holder.reverse()
            return f"{at} reversed"
        case 3 if isinstance(value, int | float):
            holder[key] = [-value, value * 1000, value + 0.5, str(value), float(value)][
                int(random.integers(5))
            ]
        case 4 if isinstance(value, str):
            holder[key] = value.upper() + "é"
        case _:
            holder[key] = _nasty(random)
    return f"{at} is {str(holder[key])[:40]!r}"


_ENTITIES = '<!DOCTYPE a [<!ENTITY b "bbbbbbbbbb"><!ENTITY c "&b;&b;&b;&b;&b;&b;&b;&b;">]>'


def _xml(folder: Folder, path: str, random: Random) -> str:
    text = folder[path].decode("utf-8", "replace")
    elements = list(re.finditer(r"<(\w+)>([^<]*)</\1>", text))
    if not elements:
        return "no elements any more"
    item = elements[int(random.integers(len(elements)))]
    value = ""
    match int(random.integers(8)):
        case 0:
            text = text[: item.start()] + text[item.end() :]
            story = f"no {item[1]}"
        case 1:
            text = text[: item.end()] + item[0] + text[item.end() :]
            story = f"{item[1]} twice"
        case 2:
            text = _ENTITIES + text
            story = "entities"
        case 3:
            text = text.replace(f"<{item[1]}>", f"<{item[1]} a='1'><x/>")
            story = f"{item[1]} with children"
        case 4:
            folder[path] = f"<?xml version='1.0' encoding='utf-16'?>{text}".encode("utf-16")
            return "as UTF-16"
        case _:
            value = str(_nasty(random)).replace("<", "").replace("&", "").replace("\x00", "")
            text = f"{text[: item.start()]}<{item[1]}>{value}</{item[1]}>{text[item.end() :]}"
            story = f"{item[1]} is {value[:40]!r}"
    folder[path] = text.encode("utf-8", "replace")
    return story


def _lines(folder: Folder, path: str, random: Random) -> str:
    lines = folder[path].decode("utf-8", "replace").splitlines()
    at = int(random.integers(len(lines) + 1))
    what = [str(_nasty(random)), "", "2008_999999", "../../up", *lines[:1], "a b c", "\xff\xfe"]
    line = what[int(random.integers(len(what)))]
    lines.insert(at, line)
    folder[path] = "\r\n".join(lines).encode("utf-8", "surrogateescape")
    return f"line {line[:40]!r}"


def _mat(folder: Folder, path: str, random: Random) -> str:
    try:
        file: Any = io.BytesIO(folder[path])
        anno = loadmat(file)["anno"]
        objects = anno[0, 0]["objects"]
        item = objects[0, int(random.integers(objects.shape[1]))]
        height, width = item["mask"].shape
        parts = item["parts"]
        part = parts[0, int(random.integers(parts.shape[1]))] if parts.size else item
    except Exception:  # damaged before
        return "nothing to change any more"
    values: tuple[Any, ...] = (
        "dog", "", "wheel_99", "x" * 3000, 5.0, np.nan, [], None, np.array([["a", "b"]], object),
        np.zeros((0, 0)), np.zeros((height, width), np.uint8), np.ones((width, height + 1), np.uint8),
        np.full((height, width), 2.5), np.ones((2, height, width), np.uint8),
        np.full((height, width), np.nan), np.ones((height, width), bool),
    )  # fmt: skip
    value = values[int(random.integers(len(values)))]
    targets = [(item, "class"), (item, "mask"), (item, "parts"), (part, "mask"), (anno[0, 0], "imname")]
    targets += [(anno[0, 0], "objects")] + ([(part, "part_name")] if part is not item else [])
    holder, field = targets[int(random.integers(len(targets)))]
    holder[field] = np.zeros((0, 0)) if value is None else value
    buffer: Any = io.BytesIO()
    try:
        savemat(buffer, {"anno": anno} if random.random() < 0.95 else {"other": anno}, do_compression=True)
    except Exception:  # not every value can be stored
        return "unchanged"
    folder[path] = buffer.getvalue()
    return f"{field} is {type(value).__name__} {str(value)[:30]!r}"


def _picture(folder: Folder, path: str, random: Random) -> str:
    """Another size, another mode or another format under the same name."""
    try:
        image: Image.Image = Image.open(io.BytesIO(folder[path]))
        image.load()
    except Exception:  # damaged before
        return "not a picture any more"
    width, height = image.size
    form = "JPEG" if path.lower().endswith(("jpg", "jpeg")) else "PNG"
    match int(random.integers(6)):
        case 0:
            image, story = image.transpose(Image.Transpose.ROTATE_90), "turned"
        case 1:
            image, story = image.resize((width + 1, max(1, height - 3))), "another size"
        case 2:
            modes = ["L", "CMYK"] if form == "JPEG" else ["L", "1", "P", "RGBA", "LA", "I;16"]
            mode = modes[int(random.integers(len(modes)))]
            image, story = image.convert("L").convert(mode) if mode == "I;16" else image.convert(mode), mode
        case 3:
            form = str(random.choice(["PNG", "GIF", "BMP", "WEBP", "JPEG"]))
            story = f"as {form}"
        case 4:
            image, story = image.resize((1, 1)), "one pixel"
        case _:
            pixels = np.asarray(image).copy()
            pixels[:: int(random.integers(1, 9))] = int(random.integers(256))
            image, story = Image.fromarray(pixels), "painted over"
    buffer = io.BytesIO()
    keeps = {"JPEG": ("L", "RGB", "CMYK"), "PNG": ("L", "1", "P", "LA", "RGB", "RGBA", "I;16")}
    if image.mode not in keeps.get(form, ("RGB",)):
        image = image.convert("RGB")
    image.save(buffer, form)
    folder[path] = buffer.getvalue()
    return story


def _map(folder: Folder, path: str, random: Random) -> str:
    try:
        uids = np.asarray(Image.open(io.BytesIO(folder[path]))).copy()
        _, _ = uids.shape
    except Exception:  # damaged before
        return "not a map any more"
    story = ""
    if uids.dtype == np.int32 and random.random() < 0.6:
        value = [
            -1,
            -7,
            100,
            345,
            999,
            99999,
            100000,
            9999999,
            10**7,
            2**31 - 1,
            99,
            26,
            2600009,
            7001,
            34000,
        ][int(random.integers(15))]
        rows = slice(int(random.integers(len(uids))), None)
        uids[rows, : int(random.integers(1, uids.shape[1] + 1))] = value
        story = f"{value} at {rows.start}"
    else:
        match int(random.integers(5)):
            case 0:
                uids = uids.T
                story = "turned"
            case 1:
                uids = uids.astype(np.uint8)
                story = "uint8"
            case 2:
                uids = uids.astype(np.float32)
                story = "float32"
            case 3:
                uids = np.stack([uids.astype(np.uint8)] * 3, axis=-1)
                story = "RGB"
            case _:
                uids = uids[:-1, :-2]
                story = "smaller"
    buffer = io.BytesIO()
    Image.fromarray(uids).save(buffer, "TIFF", compression="tiff_lzw" if uids.dtype == np.uint8 else None)
    folder[path] = buffer.getvalue()
    return story
