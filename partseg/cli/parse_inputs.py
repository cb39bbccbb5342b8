"""What the ``partseg parse`` commands look at: a parse stage in the store, and what is true of its images."""

from __future__ import annotations

import tempfile
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from partseg.cli import options
from partseg.errors import LayoutError, MissingArtifact, PartsegError, RecipeError

if TYPE_CHECKING:
    from partseg.layout import Dataset
    from partseg.store import Store
    from pipelines.artifact import Artifact
    from pipelines.parse import Params
    from pipelines.plan import Plan


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class ParseStage:
    """A parse stage whose inputs are in the store.

    Attributes:
        name: of the stage.
        params: what it is told.
        plan: of its recipe.
        store: where artifacts are.
    """

    name: str
    params: Params
    plan: Plan
    store: Store

    @property
    def is_parsed(self) -> bool:
        """Whether the store has what the stage makes."""
        return self.plan.row(self.name).digest is not None

    def artifact(self, name: str) -> Artifact:
        """The artifact of a stage of the recipe.

        Raises:
            MissingArtifact: it is not in the store.
        """
        from pipelines.laid_out import laid_out

        row = self.plan.row(name)
        if row.digest is None:
            why = f": {row.why[0]}" if row.why else ""
            raise MissingArtifact(
                f"stage {name} of {self.plan.recipe.label} has nothing in the store{why}",
                where=self.store.url,
                fix=f"build it with --until {name}",
            )
        digests = {item.stage: item.digest for item in self.plan.rows}
        return laid_out(self.plan, self.store, name, key=row.key or "", digests=digests)

    def inputs(self) -> Mapping[str, Artifact]:
        """Everything that the stage is made from."""
        return {name: self.artifact(name) for name in self.plan.row(self.name).needs}

    def dataset(self, name: str) -> Dataset:
        """The dataset that a stage made; without photos where their raw files are not at hand.

        Raises:
            MissingArtifact: it is not in the store.
            LayoutError: the stage makes no dataset.
        """
        return dataset_of(self.artifact(name))

    def parsed(self) -> Dataset:
        """The dataset that this stage made."""
        return self.dataset(self.name)


def dataset_of(artifact: Artifact) -> Dataset:
    """The dataset in an artifact; without photos where their raw files are not at hand.

    Raises:
        LayoutError: there is none.
    """
    from partseg.layout import Dataset
    from partseg.layout.manifest import read_manifest

    try:
        source = read_manifest(artifact.path).image_source
    except LayoutError as error:
        raise LayoutError(f"stage {artifact.stage} makes no dataset") from error
    return Dataset.open(artifact.path, image_root=artifact.raw.get(source))


def parse_stage(
    recipe: str,
    stage: str,
    *,
    profile: str | None = None,
    raw: Sequence[str] | None = None,
    store: str | None = None,
    sets: Sequence[str] | None = None,
) -> ParseStage:
    """Find a parse stage.

    Raises:
        RecipeError: there is no such stage, or it does not parse.
        MissingArtifact: what it is made from is not in the store.
    """
    from pipelines.parse import Params
    from pipelines.plan import Selection, make_plan
    from pipelines.problems import suggestion

    workspace = options.open_workspace(store=store, raw=raw, workers=0)
    loaded = options.read_recipe(recipe, profile, sets)
    if stage not in loaded.stages:
        raise RecipeError(
            f"there is no stage {stage}", where=loaded.path, fix=suggestion(stage, list(loaded.stages))
        )
    params = loaded.stages[stage].params
    if not isinstance(params, Params):
        parsing = [name for name, one in loaded.stages.items() if isinstance(one.params, Params)]
        there_are = f"these do: {', '.join(parsing)}" if parsing else "no stage of this recipe does"
        raise RecipeError(f"stage {stage} does not parse", where=loaded.path, fix=there_are)
    plan = make_plan(loaded, workspace, Selection(only=(stage,)))
    return ParseStage(name=stage, params=params, plan=plan, store=workspace.store)


@dataclass(frozen=True, slots=True, kw_only=True)
class Truth:
    """Where true parts are known: a split of a dataset, and what to call it."""

    dataset: Dataset
    split: str
    name: str


@contextmanager
def truth_of(stage: ParseStage, given: str | None, wanted: str) -> Iterator[Truth]:
    """What is true of the images of a parse stage.

    Args:
        stage: the parse stage.
        given: a stage of its recipe or the folder of a dataset, with or without ``/SPLIT`` behind it; None
            for what the photos came with, if anybody knows.
        wanted: the split to take where none is named.

    Raises:
        PartsegError: there is nothing of that name, or nobody knows what is true.
    """
    if given is None:
        with _own_truth(stage) as truth:
            yield truth
        return
    recipe = stage.plan.recipe
    name, _, split = given.rpartition("/")
    if given in recipe.stages:
        yield chosen_split(stage.dataset(given), "", wanted, given)
    elif name in recipe.stages:
        yield chosen_split(stage.dataset(name), split, wanted, name)
    else:
        try:
            yield truth_in_folder(given, wanted)
        except LayoutError as error:
            raise PartsegError(
                f"--truth {given} is neither a stage of {recipe.label} nor the folder of a dataset",
                where=error.where,
                fix=f"stages: {', '.join(recipe.stages)}",
            ) from error


def truth_in_folder(given: str, wanted: str) -> Truth:
    """A dataset in a folder, with or without ``/SPLIT`` behind it.

    Raises:
        LayoutError: there is no dataset, or no such split.
    """
    from partseg.layout import Dataset
    from partseg.layout.manifest import MANIFEST

    folder, split = Path(given), ""
    if not (folder / MANIFEST).is_file() and (folder.parent / MANIFEST).is_file():
        folder, split = folder.parent, folder.name
    return chosen_split(Dataset.open(folder), split, wanted, str(folder))


def chosen_split(dataset: Dataset, given: str, wanted: str, name: str) -> Truth:
    """A split of a dataset: the one that is named, the wanted one, or the only one.

    Raises:
        LayoutError: there is no such split, or several and none is named.
    """
    if given:
        dataset.split(given)
        return Truth(dataset=dataset, split=given, name=f"{name}/{given}")
    if wanted not in dataset.splits and len(dataset.splits) != 1:
        raise LayoutError(
            "which split?", where=name, fix=f"write {name}/SPLIT; it has: {', '.join(dataset.splits)}"
        )
    split = wanted if wanted in dataset.splits else dataset.splits[0]
    return Truth(dataset=dataset, split=split, name=f"{name}/{split}")


@contextmanager
def _own_truth(stage: ParseStage) -> Iterator[Truth]:
    """The parts that the images came with and the parser did not look at, or those of a made-up world."""
    images = stage.params.images
    dataset = stage.dataset(images)
    annotated = {category.category_id for category in dataset.categories if category.kind == "part"}
    used = dataset.split(stage.params.split).batch("annotations")["category_id"].to_pylist()
    if not annotated.isdisjoint(used):
        yield Truth(dataset=dataset, split=stage.params.split, name=f"{images}/{stage.params.split}")
        return
    world = _made_up(stage, images)
    if world is None:
        raise PartsegError(
            f"nobody knows the parts of the images of {images}",
            fix="name a dataset that has some of them: --truth STAGE[/SPLIT], or a folder",
        )
    with tempfile.TemporaryDirectory() as folder:
        yield _drawn_again(Path(folder), world)


def _made_up(stage: ParseStage, images: str) -> Mapping[str, object] | None:
    """How the photos were made up; None if they were not, or not so that their parts are known."""
    from partseg.datasets.catalogue import source_options
    from pipelines.acquire import Params as AcquireParams
    from pipelines.convert import Params as ConvertParams

    stages = stage.plan.recipe.stages
    converted = stages[images].params
    acquired = stages[converted.raw].params if isinstance(converted, ConvertParams) else None
    if not isinstance(acquired, AcquireParams) or acquired.synthetic is None:
        return None
    if acquired.source != "imagenet_folder":
        return None
    settings: object = source_options(acquired.source, acquired.options)
    return {**acquired.synthetic.model_dump(), "classes": settings.folders()}  # type: ignore[attr-defined]


def _drawn_again(folder: Path, world: Mapping[str, object]) -> Truth:
    from partseg.datasets.convert import convert
    from partseg.layout import Dataset
    from partseg.synthetic import write_folder_truth

    write_folder_truth(folder / "raw", **world)  # type: ignore[arg-type]
    convert("pascal_part", folder / "raw", folder / "truth", options={"splits": ["train"]})
    dataset = Dataset.open(folder / "truth", image_root=folder / "raw", cache=folder / "cache")
    return Truth(dataset=dataset, split="train", name="the made-up world, drawn again")
