"""A published row evaluated with somebody's weights instead of a training's."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

from partseg.errors import RecipeError, WeightsError
from partseg.store import Store
from pipelines.graph import ancestors, order
from pipelines.kinds import load_kind
from pipelines.plan import Plan
from pipelines.recipe import CONFIGS, Recipe, Stage, load_recipe, profile_names
from pipelines.train import Params as TrainParams
from pipelines.zoo import Row, read_zoo, zoo_names
from pipelines.zoo_state import evaluations

PREFIX = "zoo-check-"
"""What the recipe name of a check begins with; the row follows."""


def check_recipe(recipe: Recipe, row: Row, weights: Path) -> Recipe:
    """The recipe of a row with a file of weights in the place of its training: what its evaluations need.

    The file is read from the raw folder ``weights``, which is the folder it lies in. The name is not that
    of the recipe, so that its last artifacts stay its own.

    Args:
        recipe: has the stages of the row.
        row: what to evaluate.
        weights: any file that ``partseg weights import`` takes.
    """
    training = recipe.stages[row.stage].params
    assert isinstance(training, TrainParams)
    kind = load_kind("pretrained")
    params = kind.params.model_validate({"weights": weights.name, "detector": training.model.model_dump()})
    given = Stage(name=row.stage, kind=kind, params=params, needs=())
    wanted = evaluations(row).values()
    # First of all the weights: it takes seconds to see that they do not fit, and hours to convert a dataset.
    stages = {row.stage: given, **{name: stage for name, stage in recipe.stages.items() if name != row.stage}}
    kept = ancestors({name: stage.needs for name, stage in stages.items()}, wanted)
    return replace(
        recipe,
        name=f"{PREFIX}{row.id}",
        description=f"{row.label} ({row.config}) with the weights {weights.name}",
        stages={
            name: stages[name] for name in order({n: s.needs for n, s in stages.items()}) if name in kept
        },
        published={name: numbers for name, numbers in recipe.published.items() if name in kept - {row.stage}},
    )


def last_check(label: str, store: Store, *, configs: Path = CONFIGS) -> Recipe | None:
    """The recipe of a check that was made, with the name of the file that it read last.

    Args:
        label: the name that its artifacts go by, ``zoo-check-ROW`` or ``zoo-check-ROW@PROFILE``.
        store: where they are.
        configs: folder with the recipes.

    Returns:
        None where ``label`` is of no check, where its row or profile is no more, and where nothing says which
        file it read.
    """
    name, _, profile = label.partition("@")
    zoos = map(read_zoo, zoo_names())
    found = ((zoo, row) for zoo in zoos for row in zoo.rows if f"{PREFIX}{row.id}" == name)
    zoo, row = next(found, (None, None))
    if zoo is None or row is None:
        return None
    key = store.ref(label, row.stage)
    action = None if key is None else store.action(key)
    weights = None if action is None else action.parts.get("params", {}).get("weights")
    recipe = zoo.recipe_of(row)
    if not isinstance(weights, str) or (profile and profile not in profile_names(recipe, configs=configs)):
        return None
    return check_recipe(load_recipe(recipe, profile=profile or None, configs=configs), row, Path(weights))


def check_ready(plan: Plan) -> None:
    """Have all that the evaluations need.

    Raises:
        RecipeError: something is missing; it names everything that is.
    """
    blocked = {row.stage: row for row in plan.rows if row.state == "blocked"}
    roots = [row for row in blocked.values() if not blocked.keys() & set(row.needs)]
    if roots:
        why = dict.fromkeys(reason for row in roots for reason in row.why)
        raise RecipeError(f"{plan.recipe.name} cannot run", fix="; ".join(why))


def weights_root(weights: Path, given: Path | None) -> Path:
    """The raw folder ``weights`` of a check.

    Args:
        weights: the file.
        given: the folder that somebody named.

    Raises:
        WeightsError: there is no such file.
        RecipeError: it lies in another folder than the one that was named.
    """
    if not weights.is_file():
        raise WeightsError("there is no such file of weights", where=weights)
    folder = weights.absolute().parent
    if given is not None and given.expanduser().absolute().resolve() != folder.resolve():
        raise RecipeError(
            f"{weights.name} is not in the raw folder weights, {given}",
            fix="put it there, or leave out --raw weights",
        )
    return folder
