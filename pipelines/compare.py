"""Why two artifacts differ: go up from both, side by side, to the first ancestors made in two ways."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from partseg.errors import StoreError
from partseg.store import Action, Store
from partseg.store.lineage import Node, Producers, lineage
from pipelines.keys import differences
from pipelines.lineage import input_paths, raw_files

Built = tuple[str, Action | None, str]
"""A stage, the record of its artifact if the store has it, and the content digest."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Cause:
    """One stage that was made in two ways.

    Attributes:
        first: its stage on the first side.
        second: on the second side.
        way: the stages from it to the one compared, those two not among them.
        reasons: what differs, parameter by parameter and raw file by raw file.
        builds: what else was different when they were built, and is not in the key: code, packages, machine.
    """

    first: str
    second: str
    way: tuple[str, ...]
    reasons: tuple[str, ...]
    builds: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True, kw_only=True)
class StageRow:
    """A stage on both sides.

    Attributes:
        stage: its name.
        state: same, differs, or only in the first or the second.
        first: content digest; None if there is none.
        second: content digest; None if there is none.
    """

    stage: str
    state: str
    first: str | None
    second: str | None


@dataclass(frozen=True, slots=True, kw_only=True)
class Comparison:
    """Two artifacts, or two sets of stages, side by side.

    Attributes:
        rows: every stage, in the first side's order; one for two artifacts.
        causes: the first ancestors that differ, each once.
    """

    rows: tuple[StageRow, ...]
    causes: tuple[Cause, ...]

    @property
    def same(self) -> bool:
        """Whether all content is equal."""
        return all(row.state == "same" for row in self.rows)


def compare_artifacts(store: Store, first: Action, second: Action) -> Comparison:
    """Two artifacts; of two with the same content, what differs in their own making."""
    names = [str(action.facts.get("stage", action.key[:12])) for action in (first, second)]
    row = StageRow(
        stage=names[0] if names[0] == names[1] else " and ".join(names),
        state="same" if first.tree == second.tree else "differs",
        first=first.tree,
        second=second.tree,
    )
    if first.tree == second.tree and first.key != second.key:
        inputs = {digest: name for name, digest in second.inputs.items()}
        reasons = tuple(differences(first.parts, second.parts, inputs))
        return Comparison(
            rows=(row,), causes=(Cause(first=names[0], second=names[1], way=(), reasons=reasons),)
        )
    causes = _Walk(store).causes((names[0], first, first.tree), (names[1], second, second.tree))
    return Comparison(rows=(row,), causes=tuple(causes))


def compare_stages(store: Store, first: Mapping[str, Built], second: Mapping[str, Built]) -> Comparison:
    """Two sets of stages: those of two recipes, or of two runs."""
    walk, rows = _Walk(store), []
    for stage in dict.fromkeys([*first, *second]):
        a, b = first.get(stage), second.get(stage)
        if a is None or b is None:
            state = "only in the first" if a else "only in the second"
        else:
            state = "same" if a[2] == b[2] else "differs"
        rows.append(StageRow(stage=stage, state=state, first=a[2] if a else None, second=b[2] if b else None))
    both = sorted((stage for stage in first if stage in second), key=lambda stage: walk.depth(first[stage]))
    causes = [cause for stage in both for cause in walk.causes(first[stage], second[stage])]
    return Comparison(rows=tuple(rows), causes=tuple(causes))


def file_changes(store: Store, first: Action, second: Action) -> list[str]:
    """The files of two artifacts that are not the same, one line each.

    Raises:
        StoreError: the list of files of one is missing or damaged.
    """
    a, b = ({entry.path: entry for entry in store.tree(action.tree).entries} for action in (first, second))
    return list(_changed(a, b, "file"))


class _Walk:
    """Goes up two lineages at once; every pair of artifacts is looked at once."""

    def __init__(self, store: Store) -> None:
        self.store, self.producers = store, Producers(store)
        self._seen: set[tuple[tuple[str, str], tuple[str, str]]] = set()

    def causes(self, first: Built, second: Built) -> list[Cause]:
        return list(self._up(self._node(first), self._node(second), ()))

    def depth(self, built: Built) -> int:
        """How many artifacts it was made from."""
        return len(self._node(built).walk())

    def _node(self, built: Built) -> Node:
        stage, action, digest = built
        if action is None or action.tree != digest:
            return Node(stage=stage, digest=digest, action=None)
        return lineage(self.store, action, producers=self.producers)

    def _up(self, a: Node, b: Node, way: tuple[str, ...]) -> Iterator[Cause]:
        if a.digest == b.digest or (a.name, b.name) in self._seen:
            return
        self._seen.add((a.name, b.name))
        if a.action is None or b.action is None:
            which = [text for text, node in (("first", a), ("second", b)) if node.action is None]
            reason = f"content {a.digest[:12]} -> {b.digest[:12]}; the store does not have the record of the "
            yield Cause(
                first=a.stage,
                second=b.stage,
                way=way,
                reasons=(reason + " and of the ".join(which) + " any more",),
            )
            return
        before, after = input_paths(a.action.parts), input_paths(b.action.parts)
        for path in (path for path in before if path in after):
            yield from self._up(_input(a, before[path]), _input(b, after[path]), (a.stage, *way))
        reasons = [
            *_own(a.action, b.action),
            *(f"{path} is given in the first only" for path in before if path not in after),
            *(f"{path} is given in the second only" for path in after if path not in before),
            *self._raw(a.action, b.action),
        ]
        builds = _builds(a.action, b.action)
        if not reasons and all(before[path] == after[path] for path in before):
            reasons = ["made from the same, with other content"]
        if reasons:
            yield Cause(first=a.stage, second=b.stage, way=way, reasons=tuple(reasons), builds=tuple(builds))

    def _raw(self, a: Action, b: Action) -> Sequence[str]:
        if a.parts.get("raw") == b.parts.get("raw"):
            return ()
        try:
            files = [raw_files(self.store, action) for action in (a, b)]
        except StoreError as error:
            return (f"the raw files changed; {error}",)
        if files[0] is None or files[1] is None:
            return ("the raw files changed",)
        before, after = ({file.path: file for file in listed or ()} for listed in files)
        return list(_changed(before, after, "raw file"))


def _input(node: Node, digest: str) -> Node:
    for other in node.inputs:
        if other.digest == digest:
            return other
    return Node(stage=digest[:12], digest=digest, action=None)


def _own(a: Action, b: Action) -> list[str]:
    """What differs in kind, version and parameters."""
    inputs = {*input_paths(a.parts), *input_paths(b.parts)}
    found = differences(
        {**a.parts, "raw": None}, {**b.parts, "raw": None}, dict.fromkeys(b.inputs.values(), "")
    )
    return [reason for reason in found if not reason.startswith("input ") and reason not in inputs]


def _builds(a: Action, b: Action) -> Iterator[str]:
    first, second = (_flat(action.facts.get("provenance", {})) for action in (a, b))
    for name in dict.fromkeys([*first, *second]):
        if name not in ("run_id", "finished") and first.get(name) != second.get(name):
            values = (
                str(value)[:12] if value is not None else "?" for value in (first.get(name), second.get(name))
            )
            yield f"{name} {' -> '.join(values)}"


def _flat(provenance: Mapping[str, Any]) -> dict[str, Any]:
    packages = provenance.get("packages", {})
    return {name: value for name, value in provenance.items() if name != "packages"} | dict(packages)


def _changed(before: Mapping[str, Any], after: Mapping[str, Any], what: str) -> Iterator[str]:
    for path in sorted(before.keys() | after.keys()):
        a, b = before.get(path), after.get(path)
        if a is None:
            yield f"{what} added: {path}"
        elif b is None:
            yield f"{what} removed: {path}"
        elif a.sha256 != b.sha256:
            sizes = f"{a.size:,} -> {b.size:,} bytes"
            yield f"{what} changed: {path} ({a.sha256[:12]} -> {b.sha256[:12]}, {sizes})"
