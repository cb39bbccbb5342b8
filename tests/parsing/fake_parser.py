"""A parser without models, and a run over shards in a process of its own that can be killed.

``python -m tests.parsing.fake_parser FOLDER PROCESSES SECONDS`` parses 40 images, that long each. What is
made of an image depends on its row; everything that happens is a line of ``FOLDER/trace``.
"""

from __future__ import annotations

import os
import signal
import sys
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from partseg.errors import LayoutError
from partseg.layout import AnnotationRow, ImageRow, Record
from partseg.parsing.shards import OpenParser, parsing_folder

IMAGES, PART = 40, 7


def record(row: int) -> Record:
    if row % 5 == 4:
        return Record.dropped(f"image {row}", "no-part-found", "no part was found in this image of 'dog'")
    image = ImageRow(
        file_name=f"{row}.png",
        height=row + 1,
        width=3,
        source_key=f"image {row}",
        sha256=bytes([row]) * 32,
        pos_category_ids=(1,),
    )
    box = (0.1 * row, 1 / (row + 1), 2.0, 1e-7)
    whole = AnnotationRow(category_id=1, bbox_xywh=box, area=row / 3, score=0.1 + row)
    part = AnnotationRow(
        category_id=PART,
        bbox_xywh=box,
        area=2.0,
        rle=b"0P3",
        parent=0,
        score=1 / 3,
        extra={"path": "transfer"},
    )
    return Record(image=image, annotations=(whole, *[part] * (row % 3)))


@dataclass(frozen=True)
class Fake:
    folder: Path
    seconds: float = 0.0
    dies_at: int | None = None
    fails_at: int | None = None

    def __call__(self, number: int) -> OpenParser:
        self.note(f"open {number} {os.getpid()}")
        return OpenParser(parser=self, images=None)  # type: ignore[arg-type]

    def records(self, images: Any, rows: Sequence[int]) -> list[Record]:
        for row in rows:
            if row == self.dies_at:
                os.kill(os.getpid(), signal.SIGKILL)
            if row == self.fails_at:
                raise LayoutError("a raw file is damaged", where=f"{row}.png", fix="get it again")
            time.sleep(self.seconds)
            self.note(f"row {row}")
        return [record(row) for row in rows]

    def note(self, line: str) -> None:
        with (self.folder / "trace").open("a") as file:
            file.write(f"{line}\n")


def parsed(
    fake: Fake, *, images: int = IMAGES, size: int | None = 4, made_from: Any = 1, **options: Any
) -> list[Record]:
    with parsing_folder(fake.folder / "shards", made_from, images, size=size) as shards:
        shards.make(fake, parts={PART}, **options)
        return list(shards.records())


if __name__ == "__main__":
    parsed(Fake(Path(sys.argv[1]), float(sys.argv[3])), processes=int(sys.argv[2]), batch=1)
