"""What the parameters of a stage may hold, and how they name the stages they build on."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from pydantic import BaseModel, ConfigDict, GetCoreSchemaHandler
from pydantic_core import CoreSchema, core_schema

RawLister = Callable[[Path], Sequence[str]]


class Ref(str):
    """The name of another stage of the same recipe, whose artifact this stage needs.

    Write ``init: Ref | None`` or ``on: tuple[Ref, ...]`` in a stage's ``Params``, at any depth. In
    the stage's key the name is replaced by the content digest of that stage's artifact, so that
    renaming a stage changes nothing and a changed input changes the key.
    """

    __slots__ = ()

    @classmethod
    def __get_pydantic_core_schema__(cls, source: Any, handler: GetCoreSchemaHandler) -> CoreSchema:
        name = core_schema.str_schema(min_length=1)
        return core_schema.no_info_after_validator_function(cls, name)


class StageParams(BaseModel):
    """Base of every stage's ``Params``: frozen, and an unknown name is an error.

    Every field enters the stage's key, with defaults filled in. A field that cannot change the
    result (a folder of this machine, say) is declared with ``Field(exclude=True)`` and stays out.
    """

    model_config = ConfigDict(extra="forbid", frozen=True, allow_inf_nan=False, validate_default=True)

    def raw_source(self) -> str | None:
        """Name of the raw source this stage hands to the stages after it; None for most kinds.

        The stages after it find its files under ``Artifact.raw[name]``.
        """
        return None

    def raw_files(self) -> RawLister | None:
        """How to list the raw source in a local folder of the user.

        A stage with a ``raw_source`` answers one of two things. A function from the folder to the
        relative posix paths of the files that matter (``partseg.datasets.<source>.files``): the
        engine hashes those files, puts the digest of the listing into the stage's key and the
        listing into ``report.listing``, and ``Artifact.raw`` points at the folder itself; no byte
        is copied. Or None: the stage makes the files itself, under ``out / "files"``, and
        ``Artifact.raw`` points there.
        """
        return None


def refs(params: StageParams) -> tuple[str, ...]:
    """Names of the stages that ``params`` needs, each once, in the order of the fields."""
    return tuple(dict.fromkeys(str(ref) for ref in _walk(params)))


def _walk(value: object) -> Iterator[Ref]:
    if isinstance(value, Ref):
        yield value
    elif isinstance(value, BaseModel):
        for name in type(value).model_fields:
            yield from _walk(getattr(value, name))
    elif isinstance(value, Mapping):
        for item in value.values():
            yield from _walk(item)
    elif isinstance(value, Sequence) and not isinstance(value, str | bytes):
        for item in value:
            yield from _walk(item)


def keyed(params: StageParams) -> Any:
    """The parameters as plain data for a key: every stage name stands as ``{"ref": name}``."""
    return _plain(
        params.model_dump(mode="python", by_alias=True), json=params.model_dump(mode="json", by_alias=True)
    )


def _plain(value: object, *, json: Any) -> Any:
    """Walk the Python and the JSON form side by side: only the first still knows what is a Ref."""
    if isinstance(value, Ref):
        return {"ref": str(value)}
    if isinstance(value, Mapping) and isinstance(json, dict):
        return {name: _plain(item, json=json[name]) for name, item in value.items() if name in json}
    if isinstance(value, list | tuple) and isinstance(json, list):
        return [_plain(item, json=part) for item, part in zip(value, json, strict=True)]
    return json
