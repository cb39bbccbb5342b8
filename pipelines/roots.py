"""What gc keeps for recipes and checks of weights: what they made last, and what they would find now."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from pathlib import Path

from partseg.errors import RecipeError
from partseg.store import Store
from pipelines.plan import make_plan
from pipelines.problems import suggestion
from pipelines.recipe import CONFIGS, Recipe, load_recipe, profile_names, recipe_names
from pipelines.workspace import Workspace
from pipelines.zoo_check import last_check

Refs = Mapping[tuple[str, str], str]


def recipe_roots(
    workspace: Workspace, keep: Iterable[str] | None = None, *, configs: Path = CONFIGS
) -> set[str]:
    """The keys to keep for recipes.

    For each: the last artifact of every stage, and those that its plan finds in the store now; the two differ
    after a run with ``--set``. A ``partseg zoo check ROW`` counts as a recipe ``zoo-check-ROW``, with the
    file that it read last.

    Args:
        workspace: has the store.
        keep: the recipes that count: ``NAME`` with all its profiles, ``NAME@PROFILE``, or the path of a YAML
            file. All that made something in this store, if not given.
        configs: folder with the recipes that come with partseg.

    Raises:
        RecipeError: there is no such recipe, neither here nor in the store.
    """
    refs = workspace.store.refs()
    labels = {recipe for recipe, _ in refs}
    recipes: dict[str, Recipe | None] = {}
    if keep is None:
        recipes = {label: _load(label, workspace.store, configs) for label in labels}
    else:
        for name in keep:
            recipes.update(_kept(name, labels, workspace.store, configs))
    roots = {key for (recipe, _), key in refs.items() if recipe in recipes}
    for loaded in recipes.values():
        if loaded is not None:
            rows = make_plan(loaded, workspace).rows
            roots.update(row.key for row in rows if row.key is not None and row.digest is not None)
    return roots


def _kept(name: str, labels: set[str], store: Store, configs: Path) -> dict[str, Recipe | None]:
    """Label -> recipe, if there is still one, of what a person calls ``name``."""
    base, _, profile = name.partition("@")
    if base.endswith((".yaml", ".yml")):
        recipe = load_recipe(base, profile=profile or None, configs=configs)
        profiles = {label.partition("@")[2] for label in labels if label.partition("@")[0] == recipe.name}
        known = profiles & {"", *profile_names(base, configs=configs)} if not profile else {profile}
        kept = {one: load_recipe(base, profile=one or None, configs=configs) for one in known}
        return {recipe.label: recipe, **{other.label: other for other in kept.values()}}
    found = {label for label in labels if name in (label, label.partition("@")[0])}
    shipped = recipe_names(configs)
    if not found and base not in shipped:
        raise RecipeError(
            f"there is no recipe called {name}", fix=suggestion(name, sorted({*labels, *shipped}))
        )
    return {label: _load(label, store, configs) for label in found or {name}}


def _load(label: str, store: Store, configs: Path) -> Recipe | None:
    """The recipe, if it is one that comes with partseg and still has that profile, or that of a check."""
    name, _, profile = label.partition("@")
    if name not in recipe_names(configs):
        return last_check(label, store, configs=configs)
    if profile and profile not in profile_names(name, configs=configs):
        return None
    return load_recipe(name, profile=profile or None, configs=configs)
