"""``partseg data get`` and ``list``: the raw files of datasets."""

from __future__ import annotations

import json
import time
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from partseg.cli.bar import Bar
from partseg.cli.tables import console, print_table, seconds_text, size_text
from partseg.errors import SourceError

if TYPE_CHECKING:
    from partseg.acquire.get import FileState
    from partseg.datasets.facts import DataManifest

AsJson = Annotated[bool, typer.Option("--json", help="Print JSON.")]


def get(
    name: Annotated[str, typer.Argument(metavar="NAME", help="Name of a dataset; see `data list`.")],
    to: Annotated[
        Path | None,
        typer.Option(help="The raw folder. (Default: <home>/raw/NAME, where recipes look for it.)"),
    ] = None,
    mirror: Annotated[
        str | None,
        typer.Option(metavar="URL", help="A copy of the raw folder, tried first: a path, http, s3, gs, ..."),
    ] = None,
    only: Annotated[
        list[str] | None, typer.Option(metavar="FILE", help="Only this file; optional ones, too.")
    ] = None,
    keep_archives: Annotated[
        bool, typer.Option("--keep-archives", help="Do not delete archives once they are unpacked.")
    ] = False,
    dry_run: Annotated[
        bool, typer.Option("--dry-run", help="Say what would be done, and do nothing.")
    ] = False,
    as_json: AsJson = False,
) -> None:
    """Download, check and unpack the raw files of a dataset.

    Stopped half-way, the same command goes on where it was. What needs a registration is explained step by
    step, and checked once it is there.
    """
    from partseg.acquire.get import chosen_files, file_state, steps_by_hand
    from partseg.acquire.get import get as run
    from partseg.datasets.facts import data_manifest

    manifest = data_manifest(name)
    root = (to or _folder(manifest)).expanduser().absolute()
    if dry_run:
        states = tuple(file_state(file, root) for file in chosen_files(manifest, only or ()))
    else:
        with Bar("MB") as bar:
            report = _Megabytes(bar)
            states = run(
                manifest, root, mirror=mirror, only=only or (), keep_archives=keep_archives, report=report
            )
    steps = steps_by_hand(states, root)
    if as_json:
        print(json.dumps({"name": name, "root": str(root), "files": _rows(states), "steps": steps}, indent=2))
    else:
        _print(manifest, root, states, steps)
    names = ", ".join(state.file.path for state in states if state.state == "by hand")
    if names and not dry_run:
        raise SourceError(f"missing: {names}", where=root, fix="get them by hand, as the steps above say")


def list_(as_json: AsJson = False) -> None:
    """The datasets that partseg knows, and which of them are here."""
    from partseg.acquire.get import file_state
    from partseg.datasets.catalogue import SOURCES
    from partseg.datasets.facts import data_manifest, manifest_names

    rows: list[dict[str, Any]] = []
    for name in manifest_names():
        manifest = data_manifest(name)
        root = _folder(manifest)
        files = [file for file in manifest.files if not file.optional]
        ready = sum(file_state(file, root).state == "ready" for file in files)
        rows.append(
            {
                "name": name,
                "title": manifest.title,
                "licence": manifest.licence,
                "registration": manifest.registration,
                "bytes": sum(file.size or 0 for file in files),
                "bytes_complete": all(file.size for file in files),
                "expected": manifest.expected,
                "converter": name in SOURCES,
                "root": str(root),
                "files": len(files),
                "ready": ready,
            }
        )
    if as_json:
        print(json.dumps(rows, indent=2))
        return
    print_table(
        ["dataset", "size", "images", "here", "what it is, and its terms"],
        [
            [
                row["name"],
                _size(row["bytes"], row["bytes_complete"]),
                "\n".join(f"{split} {n['source_records']}" for split, n in row["expected"].items()) or "any",
                _here(row["ready"], row["files"]),
                f"{row['title']}. {row['licence']}"
                + (f" Registration: {row['registration']}" if row["registration"] else "")
                + ("" if row["converter"] else " (No converter.)"),
            ]
            for row in rows
        ],
    )


def _here(ready: int, files: int) -> str:
    if not files:
        return "your own"
    return "yes" if ready == files else f"{ready} of {files}"


def _size(size: int, complete: bool) -> str:
    """Bytes of files of which some may have an unknown size."""
    if not size:
        return "" if complete else "unknown"
    return size_text(size) if complete else f"> {size_text(size)}"


class _Megabytes:
    """Passes progress in bytes on to a bar, ten times a second, with the speed and the time that is left."""

    def __init__(self, bar: Bar) -> None:
        self._bar = bar
        self._message, self._begin, self._from, self._shown = "", 0.0, 0, 0.0

    def update(self, done: int, total: int, message: str = "") -> None:
        """``done`` of ``total`` bytes."""
        now = time.monotonic()
        if message != self._message or done < self._from:
            self._message, self._begin, self._from = message, now, done
        if now - self._shown < 0.1:
            return
        self._shown = now
        speed = (done - self._from) / (now - self._begin) if now > self._begin else 0.0
        text = f"{message}, {size_text(int(speed))}/s" if speed else message
        if speed and total > done:
            text += f", {seconds_text((total - done) / speed)} left"
        self._bar.update(done // 10**6, max(total, done) // 10**6, text)

    def log(self, message: str) -> None:
        """Pass a line on."""
        self._bar.log(message)


def _folder(manifest: DataManifest) -> Path:
    from pipelines.raw import fetched_folder
    from pipelines.workspace import default_home

    return fetched_folder(default_home(), manifest.name)


def _rows(states: tuple[FileState, ...]) -> list[dict[str, Any]]:
    return [
        {
            "path": state.file.path,
            "state": state.state,
            "bytes": state.file.size,
            "arrived": state.arrived,
            "sha256": state.file.sha256,
            "urls": state.file.urls,
            "short": {path: {"found": n, "expected": of} for path, (n, of) in state.short.items()},
        }
        for state in states
    ]


def _print(manifest: DataManifest, root: Path, states: tuple[FileState, ...], steps: list[str]) -> None:
    console().print(f"{manifest.title}. {manifest.licence}", soft_wrap=True, markup=False)
    console().print(f"raw folder: {root}", soft_wrap=True, markup=False)
    print_table(
        ["file", "size", "state", "from"],
        [
            [
                state.file.path,
                size_text(state.file.size) or "unknown",
                state.state,
                state.file.urls[0] if state.file.urls else manifest.homepage,
            ]
            for state in states
        ],
    )
    for number, step in enumerate(steps, 1):
        console().print(f"{number}. {step}", soft_wrap=True, markup=False)
