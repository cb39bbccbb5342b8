"""Settings that the sources with COCO-like files share."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, ClassVar

from pydantic import BaseModel, ConfigDict, model_validator

from partseg.datasets.formats.photos import Images
from partseg.errors import SourceError


class CocoOptions(BaseModel):
    """Settings of the conversion.

    Attributes:
        splits: which splits to convert; all that ``annotations`` names, if that is set and this is not.
        annotations: JSON file of each split, relative to the raw root, where it is not the usual one.
        images: "hash" records every photo's sha256 and checks its size, "list" wants it to exist, "none" does
            not look.
        allow_missing: a missing photo becomes a finding instead of an error.
    """

    model_config = ConfigDict(extra="forbid", frozen=True)
    USUAL: ClassVar[Mapping[str, str]] = {}

    splits: tuple[str, ...] = ()
    annotations: dict[str, str] = {}
    images: Images = "list"
    allow_missing: bool = False

    @model_validator(mode="before")
    @classmethod
    def _splits_of_annotations(cls, data: Any) -> Any:
        if isinstance(data, dict) and isinstance(data.get("annotations"), dict) and "splits" not in data:
            return {**data, "splits": list(data["annotations"])} if data["annotations"] else data
        return data

    def names(self) -> dict[str, str]:
        """JSON file of each split to convert.

        Raises:
            SourceError: there is no split, or one without a file.
        """
        if not self.splits:
            raise SourceError("no split to convert", fix='set annotations={"train": "train.json"}')
        known = {**self.USUAL, **self.annotations}
        for split in self.splits:
            if split not in known:
                raise SourceError(f"no annotation file for split {split!r}", fix="name it in annotations")
        return {split: known[split] for split in self.splits}
