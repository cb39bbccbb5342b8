"""YAML as people mean it: ``on`` is a word, ``1e-4`` a number, a name given twice an error."""

from __future__ import annotations

import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import yaml

from partseg.errors import RecipeError

try:
    from yaml import CSafeLoader as _Safe  # several times faster, where PyYAML was built with libyaml
except ImportError:
    from yaml import SafeLoader as _Safe  # type: ignore[assignment]


class _Loader(_Safe):
    """YAML 1.2's plain scalars instead of 1.1's; see the module's docstring."""

    def construct_mapping(self, node: yaml.MappingNode, deep: bool = False) -> dict[Any, Any]:
        seen = set()
        for name, _ in node.value:
            if name.value in seen:
                raise yaml.constructor.ConstructorError(
                    None, None, f"{name.value} is given twice", name.start_mark
                )
            seen.add(name.value)
        return super().construct_mapping(node, deep=deep)


_Loader.yaml_implicit_resolvers = {
    first: [(tag, pattern) for tag, pattern in resolvers if tag.rpartition(":")[2] not in ("bool", "float")]
    for first, resolvers in yaml.SafeLoader.yaml_implicit_resolvers.items()
}
_Loader.add_implicit_resolver("tag:yaml.org,2002:bool", re.compile(r"^(?:true|false)$"), list("tf"))
_Loader.add_implicit_resolver(
    "tag:yaml.org,2002:float",
    re.compile(r"^[-+]?(?:[0-9]+\.[0-9]*|\.[0-9]+|[0-9]+(?=[eE]))(?:[eE][-+]?[0-9]+)?$"),
    list("-+.0123456789"),
)


def read_yaml(path: Path) -> dict[str, Any]:
    """The mapping in a YAML file; raises :class:`RecipeError` with file and line."""
    try:
        data = parse_yaml(path.read_text(encoding="utf-8"))
    except OSError as error:
        raise RecipeError(f"cannot be read: {error.strerror}", where=path) from None
    except yaml.MarkedYAMLError as error:
        line = f":{error.problem_mark.line + 1}" if error.problem_mark else ""
        raise RecipeError(f"not valid YAML: {error.problem}", where=f"{path}{line}") from None
    except (yaml.YAMLError, UnicodeDecodeError) as error:
        raise RecipeError(f"not valid YAML: {error}", where=path) from None
    if not isinstance(data, Mapping):
        raise RecipeError("must hold a mapping of names to values", where=path)
    return dict(data)


def parse_yaml(text: str) -> Any:
    """One YAML value."""
    return yaml.load(text, Loader=_Loader)  # a SafeLoader


def merge(base: Any, over: Any) -> Any:
    """``over`` on top of ``base``.

    Mappings are merged name by name, a mapping goes on top of each entry of a list of mappings, and anything
    else is replaced.
    """
    if isinstance(over, Mapping):
        if isinstance(base, Mapping):
            return {**base, **{name: merge(base.get(name), value) for name, value in over.items()}}
        if isinstance(base, list) and base and all(isinstance(entry, Mapping) for entry in base):
            return [merge(entry, over) for entry in base]
    return over


def include(value: Any, folders: tuple[Path, ...]) -> Any:
    """Replace every ``{include: FILE, ...}`` by the file's content with the other names on top.

    Args:
        value: plain data.
        folders: where a relative FILE is looked for, in order.
    """
    if isinstance(value, Mapping):
        rest = {name: include(item, folders) for name, item in value.items() if name != "include"}
        if "include" not in value:
            return rest
        path = next(
            (
                folder / str(value["include"])
                for folder in folders
                if (folder / str(value["include"])).is_file()
            ),
            None,
        )
        if path is None:
            looked = ", ".join(str(folder) for folder in folders)
            raise RecipeError(f"include: no file {value['include']}", fix=f"looked in {looked}")
        return merge(include(read_yaml(path), (path.parent, *folders)), rest)
    return [include(item, folders) for item in value] if isinstance(value, list) else value
