"""Recipes: named stages in YAML, checked strictly before anything runs.

::

    description: one line for people
    extends: base                        # another recipe, by name or path; several as a list
    tags: [demo]
    every:                               # parameters of every stage of a kind
      train: {model: {include: models/vlpart_r50.yaml}}
    stages:
      joint: {kind: train, init: swin, schedule: {max_iter: 100}}
    until: [joint, "eval_*"]             # only these stages and what they are made from; all, if not given
    raw: {pascal_part: ~/data/pascal_part}
    zoo: vlpart                          # published numbers of the stages: data_manifests/zoos/vlpart.yaml
    published: {joint: {AP: 42.0, cost: 8 GPU days}}
    profiles:                            # `--profile smoke`; configs/profiles/smoke.yaml works too
      smoke: {stages: {joint: {schedule: {max_iter: 5}}}}

Layers are merged in this order: the recipes it extends, the recipe, the profile's file, the inline
profile, ``--set``. In each, ``every`` comes before ``stages``; mappings merge name by name, lists and
single values are replaced, a mapping over a list of mappings goes to each of them, and ``STAGE: null``
drops a stage. ``{include: FILE}`` stands for the content of a YAML file (beside the recipe or in
``configs/``), so that content enters the key.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from fnmatch import fnmatchcase
from pathlib import Path
from typing import Any

from pydantic import BaseModel, ConfigDict, Field, ValidationError

from partseg.errors import RecipeError
from pipelines.graph import ancestors, order
from pipelines.kinds import KINDS, Kind, Kinds, load_kind
from pipelines.params import StageParams, refs
from pipelines.problems import first_problem, suggestion
from pipelines.yaml_files import include, merge, parse_yaml, read_yaml
from pipelines.zoo import read_zoo

CONFIGS = Path(__file__).resolve().parents[1] / "configs"
NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9_-]*")


class RecipeFile(BaseModel):
    """The top level of a recipe or profile file."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    name: str | None = None
    description: str = ""
    tags: tuple[str, ...] = ()
    extends: str | list[str] = Field(default_factory=list)
    every: dict[str, dict[str, Any]] = Field(default_factory=dict)
    stages: dict[str, dict[str, Any] | None] = Field(default_factory=dict)
    until: tuple[str, ...] = ()
    zoo: str | None = None
    raw: dict[str, str] = Field(default_factory=dict)
    published: dict[str, Any] = Field(default_factory=dict)
    profiles: dict[str, dict[str, Any]] = Field(default_factory=dict)


@dataclass(frozen=True, slots=True, kw_only=True)
class Stage:
    """One stage of a recipe, checked."""

    name: str
    kind: Kind
    params: StageParams
    needs: tuple[str, ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class Recipe:
    """A recipe, checked.

    Attributes:
        name: the file's name without its ending, or what the file says.
        profile: the profile merged over it.
        path: the file.
        stages: in an order in which they can run.
        raw: default folders of raw sources.
        zoo: the table of published models that its stages reproduce; see :mod:`pipelines.zoo`.
        published: numbers from the literature, per stage: those of the zoo, and the recipe's own.
    """

    name: str
    profile: str | None
    path: Path
    description: str
    tags: tuple[str, ...]
    stages: Mapping[str, Stage]
    raw: Mapping[str, Path]
    zoo: str | None
    published: Mapping[str, Any]

    @property
    def label(self) -> str:
        """The name refs and reports go by: recipe and profile."""
        return f"{self.name}@{self.profile}" if self.profile else self.name

    @property
    def needs(self) -> dict[str, tuple[str, ...]]:
        """The graph."""
        return {name: stage.needs for name, stage in self.stages.items()}


def recipe_names(configs: Path = CONFIGS) -> list[str]:
    """Names of the recipes that come with partseg."""
    return sorted(path.stem for path in (configs / "recipes").glob("*.yaml"))


def load_recipe(
    recipe: str | Path,
    *,
    profile: str | None = None,
    overrides: Mapping[str, Any] | None = None,
    kinds: Kinds = KINDS,
    configs: Path = CONFIGS,
) -> Recipe:
    """Read and check a recipe.

    Args:
        recipe: a name in ``configs/recipes`` or the path of a YAML file.
        profile: profile to merge over it.
        overrides: ``stage.param.name`` -> value, on top of everything.
        kinds: the kinds of stage there are.
        configs: folder with ``recipes``, ``profiles`` and ``models``.

    Raises:
        RecipeError: names the file, the stage and the parameter that is wrong.
    """
    path = _find(recipe, configs)
    layers = _layers(path, configs, ())
    if profile is not None:
        layers += _profile_layers(profile, layers, path, configs)
    data = _merged_stages(layers, path)
    for name, value in (overrides or {}).items():
        _override(data, name, value, path)
    folders = (path.parent, configs)
    stages = {name: _stage(name, include(item, folders), kinds, path) for name, item in data.items()}
    _check_refs(stages, path)
    stages = _wanted(stages, layers, overrides or {}, path)
    zoo = next((layer.zoo for layer, _ in reversed(layers) if layer.zoo), None)
    merged: dict[str, Any] = {"raw": {}, "published": read_zoo(zoo).published() if zoo else {}}
    for layer, place in layers:
        _check_published(layer, layers, place)
        merged = merge(merged, {"raw": layer.raw, "published": layer.published})
    own = layers[[place for _, place in layers].index(path)][0]
    return Recipe(
        name=own.name or path.stem,
        profile=profile,
        path=path,
        description=own.description,
        tags=own.tags,
        stages={name: stages[name] for name in order({n: s.needs for n, s in stages.items()})},
        raw={name: Path(folder).expanduser() for name, folder in merged["raw"].items()},
        zoo=zoo,
        published={name: numbers for name, numbers in merged["published"].items() if name in stages},
    )


def profile_names(recipe: str | Path, *, configs: Path = CONFIGS) -> list[str]:
    """The profiles a recipe can be loaded with, those of the recipes it extends among them.

    Raises:
        RecipeError: there is no such recipe, or it is not one.
    """
    return _profile_names(_layers(_find(recipe, configs), configs, ()), configs)


def parse_overrides(texts: Iterable[str]) -> dict[str, Any]:
    """``["train.schedule.max_iter=5"]`` as a mapping; values are YAML."""
    found = {}
    for text in texts:
        name, equals, value = text.partition("=")
        if not equals or "." not in name:
            raise RecipeError(f"--set {text} is not understood", fix="write --set STAGE.PARAM=VALUE")
        found[name.strip()] = parse_yaml(value)
    return found


_Layer = tuple[RecipeFile, Path]


def _find(recipe: str | Path, configs: Path, beside: Path | None = None) -> Path:
    text = str(recipe)
    if text.endswith((".yaml", ".yml")) or "/" in text:
        path = Path(text).expanduser()
        path = beside / path if beside is not None and not path.is_absolute() else path.absolute()
        if not path.is_file():
            raise RecipeError("there is no such recipe", where=path)
        return path
    path = configs / "recipes" / f"{text}.yaml"
    if not path.is_file():
        names = recipe_names(configs)
        raise RecipeError(f"there is no recipe called {text}", fix=suggestion(text, names))
    return path


def _layers(path: Path, configs: Path, above: tuple[Path, ...]) -> list[_Layer]:
    if path in above:
        raise RecipeError("recipes extend each other in a circle", where=path)
    own = _recipe_file(read_yaml(path), path)
    bases = [own.extends] if isinstance(own.extends, str) else own.extends
    layers: list[_Layer] = []
    for base in bases:
        layers += _layers(_find(base, configs, path.parent), configs, (*above, path))
    return [*layers, (own, path)]


def _profile_layers(profile: str, layers: Sequence[_Layer], path: Path, configs: Path) -> list[_Layer]:
    shared = configs / "profiles" / f"{profile}.yaml"
    inline = [(file.profiles[profile], place) for file, place in layers if profile in file.profiles]
    found = [(read_yaml(shared), shared)] if shared.is_file() else []
    if not found and not inline:
        names = _profile_names(layers, configs)
        raise RecipeError(f"there is no profile called {profile}", where=path, fix=suggestion(profile, names))
    # The profile's own path would hide the recipe's: its layers only say where they come from.
    return [
        (_recipe_file(data, place), place.with_name(f"{place.name}, profile {profile}"))
        for data, place in [*found, *inline]
    ]


def _profile_names(layers: Sequence[_Layer], configs: Path) -> list[str]:
    names = {name for file, _ in layers for name in file.profiles}
    return sorted(names | {file.stem for file in (configs / "profiles").glob("*.yaml")})


def _recipe_file(data: Mapping[str, Any], path: Path) -> RecipeFile:
    try:
        return RecipeFile.model_validate(data)
    except ValidationError as error:
        what, fix = first_problem(error, RecipeFile)
        raise RecipeError(what, where=path, fix=fix) from None


def _merged_stages(layers: Sequence[_Layer], path: Path) -> dict[str, dict[str, Any]]:
    """Stage name -> kind and parameters, all layers on top of each other."""
    names: dict[str, str] = {}
    for layer, place in layers:
        for name, item in layer.stages.items():
            if item is None:
                names.pop(name, None)
            elif "kind" in item:
                names[name] = str(item["kind"])
            elif name not in names:
                fix = suggestion(name, list(names)) if names else None
                raise RecipeError(f"stage {name} has no kind", where=place, fix=fix)
    if not names:
        raise RecipeError("the recipe has no stages", where=path)
    return {name: _merged_stage(name, kind, layers) for name, kind in names.items()}


def _merged_stage(name: str, kind: str, layers: Sequence[_Layer]) -> dict[str, Any]:
    merged: dict[str, Any] = {"kind": kind}
    for layer, _ in layers:
        own = layer.stages.get(name, {})
        if own is None or own.get("kind", kind) != kind:
            merged = {"kind": kind}  # dropped here, or of another kind with other parameters
        else:
            merged = merge(merged, merge(layer.every.get(kind, {}), own))
    return merged


def _stage(name: str, data: dict[str, Any], kinds: Kinds, path: Path) -> Stage:
    where = f"{path}: stage {name}"
    if not NAME.fullmatch(name):
        raise RecipeError("a stage's name is made of letters, digits, _ and -", where=where)
    try:
        kind = load_kind(str(data.pop("kind")), kinds)
    except RecipeError as error:
        raise RecipeError(error.what, where=where, fix=error.fix) from None
    try:
        params = kind.params.model_validate(data)
    except ValidationError as error:
        what, fix = first_problem(error, kind.params)
        raise RecipeError(what, where=where, fix=fix) from None
    return Stage(name=name, kind=kind, params=params, needs=refs(params))


def _check_refs(stages: Mapping[str, Stage], path: Path) -> None:
    for stage in stages.values():
        for name in stage.needs:
            if name not in stages:
                raise RecipeError(
                    f"needs {name}, which is not a stage of this recipe",
                    where=f"{path}: stage {stage.name}",
                    fix=suggestion(name, list(stages)),
                )


def _check_published(layer: RecipeFile, layers: Sequence[_Layer], place: Path) -> None:
    known = [name for file, _ in layers for name in file.stages]
    for name in layer.published:
        if name not in known:
            raise RecipeError(
                f"published: there is no stage {name}", where=place, fix=suggestion(name, known)
            )


def _wanted(
    stages: Mapping[str, Stage], layers: Sequence[_Layer], overrides: Iterable[str], path: Path
) -> dict[str, Stage]:
    """What the last ``until`` asks for, and everything that is made from."""
    patterns, place = next(
        ((file.until, place) for file, place in reversed(layers) if file.until), ((), path)
    )
    if not patterns:
        return dict(stages)
    chosen: set[str] = set()
    for pattern in patterns:
        found = {name for name in stages if fnmatchcase(name, pattern)}
        if not found:
            raise RecipeError(
                f"until: there is no stage {pattern}", where=place, fix=suggestion(pattern, list(stages))
            )
        chosen |= found
    kept = ancestors({name: stage.needs for name, stage in stages.items()}, chosen)
    for name in overrides:
        if name.partition(".")[0] not in kept:
            raise RecipeError(f"--set {name}: this recipe does without that stage", where=path)
    return {name: stage for name, stage in stages.items() if name in kept}


def _override(data: dict[str, dict[str, Any]], name: str, value: Any, path: Path) -> None:
    stage, *steps = name.split(".")
    if stage not in data:
        raise RecipeError(
            f"--set {name}: there is no stage {stage}", where=path, fix=suggestion(stage, list(data))
        )
    data[stage] = _replaced(data[stage], steps, value, f"--set {name}")


def _replaced(value: Any, steps: Sequence[str], new: Any, where: str) -> Any:
    if not steps:
        return new
    first, *rest = steps
    if isinstance(value, list):
        if not first.isdigit() or int(first) >= len(value):
            raise RecipeError(f"{first} is not a place in a list of {len(value)}", where=where)
        return [_replaced(v, rest, new, where) if i == int(first) else v for i, v in enumerate(value)]
    if value is None or isinstance(value, Mapping):
        return {**(value or {}), first: _replaced((value or {}).get(first), rest, new, where)}
    raise RecipeError(f"{first} is a name inside a single value", where=where)


__all__ = ["Recipe", "Stage", "load_recipe", "parse_overrides", "recipe_names"]
