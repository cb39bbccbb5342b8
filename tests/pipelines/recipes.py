"""Recipes of the repository that several tests look at."""

from __future__ import annotations

from functools import cache

from pipelines.recipe import Recipe, load_recipe, recipe_names

VLPART = [name for name in recipe_names() if name == "vlpart" or name.startswith("vlpart_")]


@cache
def recipe(name: str, profile: str | None = None) -> Recipe:
    """A recipe, read once."""
    return load_recipe(name, profile=profile)
