"""The text a category name becomes before it is embedded."""

from __future__ import annotations

import re

from partseg.errors import RecipeError

PUBLISHED = "a {words}"
"""What VLPart's demo does with any name: 'a ', then the name in lower case, a blank for the colon."""

_FIELD = re.compile(r"\{(name|words|part|object)\}")


def split(name: str) -> tuple[str, str | None]:
    """``dog:head`` as ``("dog", "head")``; ``dog`` as ``("dog", None)``."""
    whole, colon, part = name.partition(":")
    return whole, part if colon else None


def prompt(template: str, name: str) -> str:
    """A name inside a template.

    Args:
        template: text with ``{name}`` (the name as it is), ``{words}`` (in lower case, a blank for each
            colon: 'dog head'), or ``{part}`` and ``{object}`` (in lower case: '{part} of a {object}').
        name: ``object`` or ``object:part``.

    Raises:
        RecipeError: the template has none of these, or asks for the part of a name that has none.
    """
    fields = set(_FIELD.findall(template))
    if not fields:
        raise RecipeError(
            f"the template {template!r} has no {{name}} in it",
            fix="write {name}, {words}, or {part} and {object} where the name belongs",
        )
    lower = name.lower().strip()
    whole, part = split(lower)
    if "part" in fields and part is None:
        raise RecipeError(f"the template {template!r} needs a part, but {name!r} is an object")
    values = {"name": name, "words": lower.replace(":", " "), "part": part or "", "object": whole}
    return _FIELD.sub(lambda match: values[match[1]], template)
