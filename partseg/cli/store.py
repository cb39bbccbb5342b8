"""`partseg store`: look at, check, share and clean the store of finished artifacts."""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from partseg.cli import options
from partseg.cli.tables import console, print_table, seconds_text, size_text
from partseg.errors import PartsegError, RecipeError, StoreError

if TYPE_CHECKING:
    from partseg.store import Action, Store

app = typer.Typer(
    help="Look at, check, share and clean the store of finished artifacts.", no_args_is_help=True
)

_UNITS = {"B": 1, "kB": 10**3, "MB": 10**6, "GB": 10**9, "TB": 10**12}


def _bytes(text: str) -> int:
    """``50GB`` as bytes."""
    found = re.fullmatch(r"(\d+(?:\.\d+)?) ?([kMGT]?B)", text)
    if found is None:
        raise typer.BadParameter(f"{text} is not a size; write it like 500MB or 1.5TB")
    return round(float(found[1]) * _UNITS[found[2]])


Artifact = Annotated[
    str, typer.Argument(metavar="ARTIFACT", help="RECIPE/STAGE (its last artifact), or the start of a key.")
]


@app.command("ls")
def list_artifacts(
    store: options.StoreUrl = None,
    as_json: Annotated[bool, typer.Option("--json", help="Print JSON.")] = False,
) -> None:
    """List the artifacts; gc may remove those marked (unused)."""
    from dataclasses import asdict

    opened = _open(store)
    names: dict[str, list[str]] = {}
    for (recipe, stage), key in opened.refs().items():
        names.setdefault(key, []).append(f"{recipe}/{stage}")
    pins = opened.pins()
    actions = sorted(opened.actions(), key=lambda action: str(_finished(action)))
    if as_json:
        print(
            json.dumps(
                [{**asdict(action), "refs": names.get(action.key, [])} for action in actions], indent=2
            )
        )
        return
    rows = [
        [
            action.key[:12],
            str(action.facts.get("kind", "")),
            size_text(action.facts.get("size")),
            seconds_text(action.facts.get("seconds")),
            _finished(action)[:19],
            " ".join([*names.get(action.key, ["(unused)"]), *(["pinned"] if action.key in pins else [])]),
        ]
        for action in actions
    ]
    print_table(["key", "kind", "size", "took", "built", "last artifact of"], rows)


@app.command()
def show(artifact: Artifact, store: options.StoreUrl = None) -> None:
    """Show the record and the files of an artifact."""
    from dataclasses import asdict

    opened = _open(store)
    action = _find(opened, artifact)
    print(json.dumps(asdict(action), indent=2))
    rows = [
        [size_text(entry.size), entry.sha256[:12], entry.path] for entry in opened.tree(action.tree).entries
    ]
    print_table(["size", "sha256", "file"], rows)


@app.command()
def get(
    artifact: Artifact,
    out: Annotated[Path, typer.Option("--out", help="Folder for its files; must not exist yet.")],
    store: options.StoreUrl = None,
) -> None:
    """Copy an artifact out of the store: a dataset, a model, ... with where it is from in provenance.json."""
    import shutil
    from dataclasses import asdict

    from partseg.layout.files import new_folder

    opened = _open(store)
    action = _find(opened, artifact)
    with new_folder(out) as folder:
        shutil.copytree(opened.materialise(action.tree), folder, dirs_exist_ok=True)
        for path in (folder, *folder.rglob("*")):
            path.chmod(0o755 if path.is_dir() else 0o644)
        (folder / "provenance.json").write_text(f"{json.dumps(asdict(action), indent=2)}\n", encoding="utf-8")
    console().print(f"{out}: {action.parts.get('kind', 'artifact')} {action.key[:12]}", soft_wrap=True)


@app.command()
def why(
    recipe: options.RecipeName,
    stage: Annotated[str, typer.Argument(help="Stage of the recipe.")],
    profile: options.Profile = None,
    raw: options.Raw = None,
    store: options.StoreUrl = None,
    set_: options.Set = None,
) -> None:
    """Say why a stage would run, or what its artifact was made from."""
    from pipelines.plan import make_plan
    from pipelines.problems import suggestion

    loaded = options.read_recipe(recipe, profile, set_)
    if stage not in loaded.stages:
        raise RecipeError(f"there is no stage {stage}", fix=suggestion(stage, list(loaded.stages)))
    workspace = options.open_workspace(store=store, raw=raw)
    row = make_plan(loaded, workspace).row(stage)
    print(f"{stage}: {row.state}")
    for reason in row.why:
        print(f"  {reason}")
    action = workspace.store.action(row.key) if row.state == "cached" and row.key else None
    if action is not None:
        print(json.dumps(action.parts, indent=2))


@app.command()
def diff(first: Artifact, second: Artifact, store: options.StoreUrl = None) -> None:
    """Compare two artifacts: what they were made from, and their files."""
    from pipelines.keys import differences

    opened = _open(store)
    a, b = _find(opened, first), _find(opened, second)
    names = {str(digest): name for name, digest in b.facts.get("inputs", {}).items()}
    for reason in differences(a.parts, b.parts, names):
        print(f"made from: {reason}")
    before = {entry.path: entry.sha256 for entry in opened.tree(a.tree).entries}
    after = {entry.path: entry.sha256 for entry in opened.tree(b.tree).entries}
    for path in sorted(before.keys() | after.keys()):
        if before.get(path) != after.get(path):
            state = "added" if path not in before else "removed" if path not in after else "changed"
            print(f"file {state}: {path}")
    if a.tree == b.tree:
        print("same content")


@app.command()
def verify(
    store: options.StoreUrl = None,
    deep: Annotated[bool, typer.Option("--deep", help="Read and hash every file.")] = False,
    drop: Annotated[
        bool, typer.Option("--drop", help="Remove damaged artifacts, so that the next run builds them again.")
    ] = False,
) -> None:
    """Check that every artifact is whole; exit code 1 if one is not."""
    from partseg.store.gc import drop_damaged

    opened = _open(store)
    damaged = total = 0
    for action in list(opened.actions()):
        total += 1
        problems = opened.problems(action, deep=deep)
        damaged += bool(problems)
        for problem in problems:
            print(f"{action.key[:12]} {action.facts.get('stage', '')}: {problem}")
        if problems and drop:
            drop_damaged(opened, action)
    print(f"{total} artifacts, {damaged} damaged{' and dropped' if damaged and drop else ''}")
    if damaged and not drop:
        raise typer.Exit(1)


@app.command()
def rm(artifact: Artifact, store: options.StoreUrl = None) -> None:
    """Forget an artifact; `gc` frees its space."""
    opened = _open(store)
    action = _find(opened, artifact)
    if action.key in opened.pins():
        raise StoreError(
            f"{action.key[:12]} is pinned", fix="take the pin back with `partseg store pin --undo`"
        )
    opened.remove(action.key)
    print(f"removed {action.key[:12]} ({action.facts.get('stage', '')})")


@app.command()
def pin(
    artifact: Artifact,
    store: options.StoreUrl = None,
    undo: Annotated[bool, typer.Option("--undo", help="Take the pin back.")] = False,
) -> None:
    """Keep an artifact whatever gc does."""
    opened = _open(store)
    action = _find(opened, artifact)
    (opened.unpin if undo else opened.pin)(action.key)
    print(f"{'unpinned' if undo else 'pinned'} {action.key[:12]}")


@app.command()
def gc(
    store: options.StoreUrl = None,
    delete: Annotated[
        bool, typer.Option("--delete", help="Really delete; without it nothing is touched.")
    ] = False,
    grace: Annotated[
        float, typer.Option(min=0, metavar="DAYS", help="Keep what is younger than this.")
    ] = 7.0,
    max_size: Annotated[
        Any,
        typer.Option(
            parser=_bytes,
            metavar="SIZE",
            help="Remove only as much as it takes to come down to this (such as 50GB), least recently used "
            "artifacts first. (Default: remove all that no recipe names.)",
        ),
    ] = None,
) -> None:
    """Free the space of artifacts that no recipe names any more; a dry run by default.

    What a recipe names as a stage's last artifact and what is pinned is never removed.
    """
    from partseg.store.gc import DAY, collect, find_garbage

    opened = _open(store)
    garbage = find_garbage(opened, grace=grace * DAY, max_size=max_size)
    for key in garbage.keys:
        action = opened.action(key)
        print(f"{key[:12]} {action.facts.get('stage', '') if action else ''}")
    if delete:
        collect(opened, garbage)
    verb = "freed" if delete else "would free"
    count = f"{len(garbage.keys)} artifacts and {len(garbage.files)} files"
    print(f"{verb} {size_text(garbage.size)}: {count}{'' if delete else '; --delete does it'}")
    if max_size is not None and garbage.left > max_size:
        why = f"named by recipes, pinned or younger than {grace:g} days"
        print(f"{size_text(garbage.left)} stay, more than {size_text(max_size)}: they are {why}")


@app.command()
def accept(
    recipe: options.RecipeName,
    stage: Annotated[str, typer.Argument(help="Stage whose last artifact shall count as up to date.")],
    profile: options.Profile = None,
    raw: options.Raw = None,
    store: options.StoreUrl = None,
    set_: options.Set = None,
) -> None:
    """Take a stage's last artifact for its present parameters, because you know that it is the same."""
    from pipelines.accept import accept_last

    loaded = options.read_recipe(recipe, profile, set_)
    action = accept_last(loaded, stage, options.open_workspace(store=store, raw=raw))
    print(f"{stage}: {action.facts['accepted']['key'][:12]} accepted as {action.key[:12]}")


@app.command()
def push(
    to: Annotated[str, typer.Argument(help="Folder or URL of the other store.")],
    recipe: Annotated[str | None, typer.Option(help="Only the artifacts this recipe names.")] = None,
    store: options.StoreUrl = None,
) -> None:
    """Copy artifacts from the store to another one."""
    _copy(_open(store), _open(to), recipe)


@app.command()
def pull(
    origin: Annotated[str, typer.Argument(metavar="FROM", help="Folder or URL of the other store.")],
    recipe: Annotated[str | None, typer.Option(help="Only the artifacts this recipe names.")] = None,
    store: options.StoreUrl = None,
) -> None:
    """Copy artifacts from another store to this one."""
    _copy(_open(origin), _open(store), recipe)


def _copy(source: Store, target: Store, recipe: str | None) -> None:
    from partseg.store.sync import copy_artifacts

    refs = {name: key for name, key in source.refs().items() if recipe in (None, name[0])}
    if not refs:
        raise StoreError(f"nothing to copy{f' for recipe {recipe}' if recipe else ''}", where=source.url)
    whole = [key for key in dict.fromkeys(refs.values()) if source.action(key) is not None]
    copied = copy_artifacts(source, target, whole, report=lambda key: print(f"copied {key[:12]}"))
    for (name, stage), key in refs.items():
        if key in whole:
            target.set_ref(name, stage, key)
    print(f"{len(whole)} artifacts are in {target.url}; {size_text(copied)} copied")


def _open(url: str | None) -> Store:
    return options.open_workspace(store=url).store


def _find(store: Store, name: str) -> Action:
    recipe, slash, stage = name.rpartition("/")
    if not slash:
        return store.find(name)
    key = store.ref(recipe, stage)
    action = None if key is None else store.action(key)
    if action is None:
        raise PartsegError(f"no artifact of {name} in the store", where=store.url)
    return action


def _finished(action: Action) -> str:
    provenance: dict[str, Any] = action.facts.get("provenance", {})
    return str(provenance.get("finished", ""))
