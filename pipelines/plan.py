"""What a run would do, and why, from metadata alone."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import asdict, dataclass, field
from typing import Any, Literal

from partseg.datasets.facts import manifest_names
from partseg.errors import MissingArtifact, RecipeError, SourceError
from partseg.progress import Progress
from partseg.store import Action, Store
from pipelines.artifact import RawFile
from pipelines.cost import made_up, published_cost
from pipelines.graph import ancestors, descendants
from pipelines.keys import differences, key_of, key_parts, same_but_inputs
from pipelines.problems import suggestion
from pipelines.raw import fetched_roots, list_raw, listing_digest, raw_roots
from pipelines.recipe import Recipe, Stage
from pipelines.workspace import Workspace

State = Literal["cached", "run", "maybe", "blocked", "skipped"]

READERS = 16
"""Threads that read what the store knows: on S3 one answer takes 20 to 100 ms, and a plan wants hundreds."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Selection:
    """Which stages to look at, and which to run even if they are cached.

    Attributes:
        only: these stages; their inputs come from the store.
        from_: these stages and everything made from them, forced.
        until: these stages and everything they are made from.
        force: run these; what is made from them follows only if their content changed.
        downstream: force what is made from the forced stages, too.
    """

    only: tuple[str, ...] = ()
    from_: tuple[str, ...] = ()
    until: tuple[str, ...] = ()
    force: tuple[str, ...] = ()
    downstream: bool = False


@dataclass(frozen=True, slots=True, kw_only=True)
class Row:
    """What is planned for one stage.

    Attributes:
        stage: its name.
        kind: its kind.
        needs: the stages it is made from.
        state: cached, run, maybe (its input is not known yet), blocked, or skipped (not selected).
        why: the reasons, most telling first.
        key: None while an input is not known.
        digest: content digest of the artifact in the store, None if there is none.
        forced: run it even if it is cached.
        size: bytes of the artifact, or of the last one of this stage.
        cost: what the literature or the recipe says it takes; None where the raw files are made up.
        missing: the raw source that it needs and that is not here.
    """

    stage: str
    kind: str
    needs: tuple[str, ...]
    state: State
    why: tuple[str, ...]
    key: str | None = None
    digest: str | None = None
    forced: bool = False
    size: int | None = None
    cost: str | None = None
    missing: str | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Plan:
    """The rows in the order they would run, and the raw folders as they were found."""

    recipe: Recipe
    rows: tuple[Row, ...]
    listings: Mapping[str, tuple[RawFile, ...]] = field(default_factory=dict)
    raw: Mapping[str, Any] = field(default_factory=dict)

    def row(self, stage: str) -> Row:
        """The row of a stage."""
        return next(row for row in self.rows if row.stage == stage)

    @property
    def idle(self) -> bool:
        """Whether nothing at all would run."""
        return all(row.state in ("cached", "skipped") for row in self.rows)

    def as_json(self) -> dict[str, Any]:
        """Plain data for machines."""
        return {
            "recipe": self.recipe.name,
            "profile": self.recipe.profile,
            "stages": [asdict(row) for row in self.rows],
        }


@dataclass(frozen=True, slots=True, kw_only=True)
class _Unlisted:
    """Why a raw folder could not be listed, and whether somebody named one: a wrong folder is an error."""

    source: str
    why: str
    given: bool


_Listed = tuple[RawFile, ...] | _Unlisted | None


def make_plan(
    recipe: Recipe,
    workspace: Workspace,
    selection: Selection | None = None,
    *,
    report: Progress | None = None,
) -> Plan:
    """Plan a run. Reads metadata only; raw files are hashed where their hashes are not known yet.

    Raises:
        RecipeError: the selection names a stage that does not exist.
        MissingArtifact: a selected stage needs one that is neither selected nor in the store.
    """
    selection = selection or Selection()
    chosen, forced = _choose(recipe, selection)
    planner = _Planner(recipe, workspace.store)
    planner.read_ahead()
    named = raw_roots(recipe.raw, workspace.raw)
    sources = {source for stage in recipe.stages.values() if (source := stage.params.raw_source())}
    roots = {**fetched_roots(workspace.home, sources), **named}
    listings: dict[str, tuple[RawFile, ...]] = {}
    for stage in recipe.stages.values():
        listed: _Listed = None
        lister, source = stage.params.raw_files(), stage.params.raw_source()
        if lister is not None and source is not None:
            try:
                if source in roots:
                    cache = workspace.home / "cache" / "raw"
                    listed = listings[stage.name] = list_raw(
                        roots[source], lister, cache=cache, report=report
                    )
                else:
                    why = f"the raw files of {source} are needed: give --raw {source}=DIR"
                    why += f", or run partseg data get {source}" if source in manifest_names() else ""
                    listed = _Unlisted(source=source, why=why, given=False)
            except SourceError as error:
                listed = _Unlisted(source=source, why=str(error), given=source in named)
        planner.add(stage, listed, chosen=stage.name in chosen, forced=stage.name in forced)
    return Plan(recipe=recipe, rows=tuple(planner.rows.values()), listings=listings, raw=roots)


def _choose(recipe: Recipe, selection: Selection) -> tuple[frozenset[str], frozenset[str]]:
    needs = recipe.needs
    for name in (*selection.only, *selection.from_, *selection.until, *selection.force):
        if name not in needs:
            raise RecipeError(
                f"there is no stage {name}", where=recipe.path, fix=suggestion(name, list(needs))
            )
    chosen = frozenset(selection.only or needs)
    forced = frozenset(selection.force)
    if selection.downstream:
        forced = descendants(needs, forced)
    if selection.from_:
        chosen &= descendants(needs, selection.from_)
        forced |= descendants(needs, selection.from_)
    if selection.until:
        chosen &= ancestors(needs, selection.until)
    return chosen, forced & chosen


class _Planner:
    """Takes the stages one by one in order; knows the content of those before."""

    def __init__(self, recipe: Recipe, store: Store) -> None:
        self.recipe, self.store = recipe, store
        self.rows: dict[str, Row] = {}
        self._made_up = made_up(recipe)
        self._actions: dict[str, Action | None] = {}
        self._problems: dict[str, list[str]] = {}
        self._refs: dict[str, str | None] = {}

    def read_ahead(self) -> None:
        """Read what the store knows about the last artifact of every stage, many at the same time."""
        names = list(self.recipe.stages)
        with ThreadPoolExecutor(READERS) as pool:
            found = pool.map(lambda name: self.store.ref(self.recipe.label, name), names)
            self._refs = dict(zip(names, found, strict=True))
            keys = list(dict.fromkeys(key for key in self._refs.values() if key is not None))
            self._actions = dict(zip(keys, pool.map(self.store.action, keys), strict=True))
            actions = [action for action in self._actions.values() if action is not None]
            problems = pool.map(self.store.problems, actions)
            self._problems = dict(zip((action.key for action in actions), problems, strict=True))

    def action(self, key: str) -> Action | None:
        """The record under ``key``, read once."""
        if key not in self._actions:
            self._actions[key] = self.store.action(key)
        return self._actions[key]

    def problems(self, action: Action) -> list[str]:
        """What is wrong with an artifact, looked at once."""
        if action.key not in self._problems:
            self._problems[action.key] = self.store.problems(action)
        return self._problems[action.key]

    def add(self, stage: Stage, listed: _Listed, *, chosen: bool, forced: bool) -> None:
        last = self._last(stage)
        row = self._row(stage, listed, last, chosen=chosen, forced=forced)
        action = self.action(row.key) if row.key is not None and row.digest is not None else last
        size = action.facts.get("size") if action is not None else None
        cost = published_cost(self.recipe, stage.name).get("cost")
        self.rows[stage.name] = Row(
            stage=stage.name,
            kind=stage.kind.name,
            needs=stage.needs,
            state=row.state,
            why=row.why,
            key=row.key,
            digest=row.digest,
            forced=forced,
            size=size,
            cost=None if cost is None or stage.name in self._made_up else str(cost),
            missing=listed.source if isinstance(listed, _Unlisted) and row.state == "blocked" else None,
        )

    def _row(
        self,
        stage: Stage,
        listed: _Listed,
        last: Action | None,
        *,
        chosen: bool,
        forced: bool,
    ) -> _Found:
        before = [self.rows[name] for name in stage.needs]
        if not chosen:
            return self._skipped(stage, listed, last, before)
        self._check_inputs(stage, before)
        if isinstance(listed, _Unlisted):
            kept = None if forced or listed.given else self._kept(stage, last)
            if kept is None:
                return _Found("blocked", (listed.why,))
            return _Found("cached", ("as last seen; the raw folder is not here",), kept.key, kept.tree)
        blocked = [row.stage for row in before if row.state == "blocked"]
        if blocked:
            return _Found("blocked", tuple(f"needs {name}, which is blocked" for name in blocked))
        changing = [row.stage for row in before if row.state in ("run", "maybe")]
        if changing:
            why = tuple(f"depends on the output of {name}" for name in changing)
            known = self._differences(stage, last)
            if forced:
                return _Found("run", ("forced", *why))
            return _Found("run" if known else "maybe", (*known, *why))
        return self._looked_up(stage, listed, last, forced=forced)

    def _looked_up(
        self, stage: Stage, listed: tuple[RawFile, ...] | None, last: Action | None, *, forced: bool
    ) -> _Found:
        digests = {name: str(self.rows[name].digest) for name in stage.needs}
        parts = key_parts(
            stage.kind, stage.params, digests, None if listed is None else listing_digest(listed)
        )
        key = key_of(parts)
        action = self.action(key)
        problems = self.problems(action) if action is not None else []
        if action is not None and not problems:
            if forced:
                return _Found("run", ("forced",), key)
            return _Found("cached", (), key, action.tree)
        if problems:
            return _Found("run", tuple(problems), key)
        if last is not None:
            names = {digest: name for name, digest in digests.items()}
            return _Found("run", tuple(differences(last.parts, parts, names)), key)
        removed = self._refs[stage.name] is not None
        return _Found("run", ("its artifact was removed from the store" if removed else "never built",), key)

    def _skipped(
        self,
        stage: Stage,
        listed: _Listed,
        last: Action | None,
        before: Sequence[Row],
    ) -> _Found:
        """A stage that is not selected: is there an artifact of it that others can build on?"""
        known = all(row.digest is not None and row.state in ("cached", "skipped") for row in before)
        if known and not isinstance(listed, _Unlisted):
            found = self._looked_up(stage, listed, last, forced=False)
            there = found.digest is not None
            why = "not selected" if there else f"not selected and not in the store: {found.why[0]}"
            return _Found("skipped", (why,), found.key, found.digest)
        kept = self._kept(stage, last)
        if kept is not None:
            return _Found(
                "skipped", ("not selected; as last built, its inputs may change",), kept.key, kept.tree
            )
        return _Found("skipped", ("not selected and not in the store",))

    def _check_inputs(self, stage: Stage, before: Sequence[Row]) -> None:
        for row in before:
            if row.state == "skipped" and row.digest is None:
                raise MissingArtifact(
                    f"stage {stage.name} needs the artifact of {row.stage}, which is not in the store",
                    where=self.store.url,
                    fix=f"build it with --until {row.stage}",
                )

    def _last(self, stage: Stage) -> Action | None:
        key = self._refs[stage.name]
        return None if key is None else self.action(key)

    def _kept(self, stage: Stage, last: Action | None) -> Action | None:
        """The last artifact, if only its inputs could tell it from the present one and it is whole."""
        if last is None or not same_but_inputs(last.parts, self._parts_without_inputs(stage)):
            return None
        return None if self.problems(last) else last

    def _differences(self, stage: Stage, last: Action | None) -> tuple[str, ...]:
        """What changed in the stage's own parameters, whatever its inputs will be."""
        if last is None:
            return ("never built",)
        new = self._parts_without_inputs(stage)
        if same_but_inputs(last.parts, new):
            return ()
        found = differences(last.parts, new, {})
        return tuple(
            reason for reason in found if not reason.startswith("input ") and "raw files" not in reason
        )

    def _parts_without_inputs(self, stage: Stage) -> dict[str, Any]:
        return key_parts(stage.kind, stage.params, dict.fromkeys(stage.needs, ""))


@dataclass(frozen=True, slots=True)
class _Found:
    state: State
    why: tuple[str, ...]
    key: str | None = None
    digest: str | None = None
