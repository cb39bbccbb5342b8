"""A raw source: a folder of the user, or files made up."""

from __future__ import annotations

import json
from dataclasses import asdict

from pipelines.params import StageParams

VERSION = "1"


class Params(StageParams):
    source: str
    made_up: str | None = None

    def raw_source(self):
        return self.source

    def raw_files(self):
        return None if self.made_up is not None else files


def files(root):
    return sorted(path.relative_to(root).as_posix() for path in root.rglob("*.txt"))


def run(params, inputs, out, report):
    if params.made_up is None:
        (out / "listing.json").write_text(json.dumps([asdict(file) for file in report.listing]))
    else:
        (out / "files").mkdir()
        (out / "files" / "number.txt").write_text(params.made_up)
    return {}
