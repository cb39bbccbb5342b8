"""An artifact and all it was made from, as a tree on the terminal."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any

import yaml
from rich.markup import escape
from rich.tree import Tree

from partseg.cli.tables import console, print_table, seconds_text, size_text
from partseg.errors import StoreError

if TYPE_CHECKING:
    from partseg.store import Action, Store
    from partseg.store.lineage import Node

MOST_FILES = 12
PACKAGES = ("torch", "torchvision", "numpy")
WHO = (("by", "user"), ("on", "host"))


def print_artifact(store: Store, top: Node, *, params: bool = False, everything: bool = False) -> None:
    """The record of an artifact, its lineage and its files.

    Args:
        store: where it is.
        top: the artifact.
        params: print the parameters of all, not only its own.
        everything: print all files and raw files, however many there are.
    """
    from pipelines.lineage import plain_params

    action, out = top.action, console()
    if action is None:
        raise StoreError("its record is missing", where=store.url)
    lines = [
        f"[bold]{escape(action.name or top.stage)}[/]",
        f"key      {action.key}",
        f"content  {action.tree}",
        f"kind     {_kind(action)}",
        f"built    {escape(_built(action))}",
        f"with     {escape(_code(action))}",
        f"size     {size_text(action.facts.get('size'))} in {action.facts.get('files', '?')} files",
    ]
    metrics = action.facts.get("metrics")
    if metrics:
        lines.append(
            f"metrics  {escape(', '.join(f'{name} {_short(value)}' for name, value in metrics.items()))}"
        )
    if "accepted" in action.facts:
        accepted = action.facts["accepted"]
        lines.append(f"accepted {accepted['when'][:19]} for {accepted['key'][:12]}, which it really is")
    for line in lines:
        out.print(line, soft_wrap=True)
    out.print("\nparameters", soft_wrap=True)
    out.print(escape(_yaml(plain_params(action), "  ")), soft_wrap=True)
    out.print("\nmade from", soft_wrap=True)
    most = None if everything else MOST_FILES
    out.print(_tree(store, top, set(), params=params, most=most), soft_wrap=True)
    try:
        entries = store.tree(action.tree).entries
    except StoreError as error:
        out.print(f"\nfiles: {escape(str(error))}", soft_wrap=True)
        return
    print_table(
        ["size", "sha256", "file"],
        [[size_text(entry.size), entry.sha256[:12], entry.path] for entry in entries[:most]],
    )
    if len(entries) > len(entries[:most]):
        out.print(f"and {len(entries) - len(entries[:most])} more; --all lists them", soft_wrap=True)


def _tree(store: Store, node: Node, seen: set[tuple[str, str]], *, params: bool, most: int | None) -> Tree:
    action = node.action
    if action is None:
        text = "[red]the store does not have its record any more[/]"
        return Tree(f"[bold]{escape(node.stage)}[/]  content {node.digest[:12]}  {text}")
    again = node.name in seen and bool(node.inputs)
    seen.add(node.name)
    facts = [
        _kind(action),
        action.key[:12],
        size_text(action.facts.get("size")),
        _built(action),
    ]
    tree = Tree(f"[bold]{escape(node.stage)}[/]  [dim]{escape('  '.join(facts))}[/]")
    if again:
        tree.add("[dim]as above[/]")
        return tree
    if params:
        from pipelines.lineage import plain_params

        tree.add(f"[cyan]{escape(_yaml(plain_params(action), ''))}[/]")
    for line in _raw(store, action, most):
        tree.add(escape(line))
    for other in node.inputs:
        tree.add(_tree(store, other, seen, params=params, most=most))
    return tree


def _raw(store: Store, action: Action, most: int | None) -> list[str]:
    from pipelines.lineage import raw_files

    if "raw" not in action.parts:
        made_up = action.parts.get("params", {}).get("synthetic")
        return [f"made up: {json.dumps(made_up)}"] if made_up else []
    try:
        files = raw_files(store, action)
    except StoreError as error:
        return [f"raw files {str(action.parts['raw'])[:12]}: {error}"]
    if files is None:
        return [f"raw files {str(action.parts['raw'])[:12]}"]
    total = size_text(sum(file.size for file in files))
    lines = [f"{len(files)} raw files, {total}, all together {str(action.parts['raw'])[:12]}"]
    lines += [f"{file.sha256[:12]}  {size_text(file.size):>8}  {file.path}" for file in files[:most]]
    more = len(files) - len(files[:most])
    return [*lines, f"and {more} more; --all lists them"] if more else lines


def _kind(action: Action) -> str:
    return f"{action.parts.get('kind', '?')} v{action.parts.get('version', '?')}"


def _built(action: Action) -> str:
    provenance: dict[str, Any] = action.facts.get("provenance", {})
    text = action.finished[:16].replace("T", " ") or "at an unknown time"
    who = "".join(f" {word} {provenance[part]}" for word, part in WHO if provenance.get(part))
    return f"{text}{who} in {seconds_text(action.facts.get('seconds')) or '?'}"


def _code(action: Action) -> str:
    provenance: dict[str, Any] = action.facts.get("provenance", {})
    packages = provenance.get("packages", {})
    git = provenance.get("git")
    known = [
        f"partseg {provenance.get('partseg', '?')}{f' ({git[:12]}{git[40:]})' if git else ''}",
        f"python {provenance.get('python', '?')}",
        *(f"{name} {packages[name]}" for name in PACKAGES if packages.get(name)),
    ]
    return ", ".join(known)


def _short(value: Any) -> str:
    return f"{value:.4g}" if isinstance(value, float) else str(value)


def _yaml(value: Any, indent: str) -> str:
    text = yaml.safe_dump(value, sort_keys=False, default_flow_style=None, width=100, allow_unicode=True)
    return "\n".join(f"{indent}{line}" for line in text.rstrip().splitlines())
