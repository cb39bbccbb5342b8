"""`partseg store`: look at and check the store of finished artifacts; see `store_space`, `store_share`."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Annotated

import typer

from partseg.cli import options, store_share, store_space
from partseg.cli.store_names import ArtifactName, find_artifact, open_store
from partseg.cli.tables import console, print_table, seconds_text, size_text
from partseg.errors import RecipeError, StoreError

app = typer.Typer(
    help="Look at, check, share and clean the store of finished artifacts.", no_args_is_help=True
)


@app.command("ls")
def list_artifacts(
    store: options.StoreUrl = None,
    as_json: Annotated[bool, typer.Option("--json", help="Print JSON.")] = False,
) -> None:
    """List the artifacts; gc may remove those marked (unused) that no other is made from."""
    from dataclasses import asdict

    opened = open_store(store)
    names: dict[str, list[str]] = {}
    for (recipe, stage), key in opened.refs().items():
        names.setdefault(key, []).append(f"{recipe}/{stage}")
    pins: dict[str, list[str]] = {}
    for pin in opened.pins().values():
        pins.setdefault(pin.key, []).append(pin.name)
    actions = sorted(opened.actions(), key=lambda action: action.finished)
    if as_json:
        rows = [
            {**asdict(action), "refs": names.get(action.key, []), "pins": pins.get(action.key, [])}
            for action in actions
        ]
        print(json.dumps(rows, indent=2))
        return
    print_table(
        ["key", "kind", "size", "took", "built", "last artifact of"],
        [
            [
                action.key[:12],
                str(action.facts.get("kind", "")),
                size_text(action.facts.get("size")),
                seconds_text(action.facts.get("seconds")),
                action.finished[:19],
                " ".join(
                    [
                        *names.get(action.key, ["(unused)"]),
                        *(f"pinned:{name}" for name in pins.get(action.key, [])),
                    ]
                ),
            ]
            for action in actions
        ],
    )


@app.command()
def show(
    artifact: ArtifactName,
    store: options.StoreUrl = None,
    params: Annotated[
        bool, typer.Option("--params", help="Parameters of everything it was made from, too.")
    ] = False,
    everything: Annotated[bool, typer.Option("--all", help="Every file and every raw file.")] = False,
    as_json: Annotated[bool, typer.Option("--json", help="Print JSON: all of the above.")] = False,
) -> None:
    """Show an artifact: what it is, and what it was made from, down to the raw files."""
    from partseg.cli.lineage import print_artifact
    from partseg.store.lineage import lineage
    from pipelines.lineage import as_json as plain

    opened = open_store(store)
    top = lineage(opened, find_artifact(opened, artifact))
    if as_json:
        print(json.dumps(plain(opened, top), indent=2))
    else:
        print_artifact(opened, top, params=params, everything=everything)


@app.command()
def get(
    artifact: ArtifactName,
    out: Annotated[Path, typer.Option("--out", help="Folder for its files; must not exist yet.")],
    store: options.StoreUrl = None,
) -> None:
    """Copy an artifact out of the store: a dataset, a model, ... with where it is from in provenance.json."""
    import shutil
    from dataclasses import asdict

    from partseg.layout.files import new_folder

    opened = open_store(store)
    action = find_artifact(opened, artifact)
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
def verify(
    store: options.StoreUrl = None,
    deep: Annotated[bool, typer.Option("--deep", help="Read and hash every file.")] = False,
    drop: Annotated[
        bool, typer.Option("--drop", help="Remove damaged artifacts, so that the next run builds them again.")
    ] = False,
) -> None:
    """Check that every artifact is whole; exit code 1 if one is not."""
    from partseg.store.gc import drop_damaged

    opened = open_store(store)
    damaged = 0
    keys = opened.keys()
    for key in keys:
        action = opened.action(key)
        problems = ["the record is damaged"] if action is None else opened.problems(action, deep=deep)
        damaged += bool(problems)
        for problem in problems:
            print(f"{key[:12]} {action.facts.get('stage', '') if action else ''}: {problem}")
        if problems and drop:
            if action is None:
                opened.remove(key)
            else:
                drop_damaged(opened, action)
    print(f"{len(keys)} artifacts, {damaged} damaged{' and dropped' if damaged and drop else ''}")
    if damaged and not drop:
        raise typer.Exit(1)


@app.command()
def rm(artifact: ArtifactName, store: options.StoreUrl = None) -> None:
    """Forget an artifact; `gc` frees its space."""
    opened = open_store(store)
    action = find_artifact(opened, artifact)
    for pin in opened.pins().values():
        if pin.key == action.key:
            fix = f"take the pin back with `partseg store unpin {pin.name}`"
            raise StoreError(f"{action.key[:12]} is pinned", fix=fix)
    opened.remove(action.key)
    print(f"removed {action.key[:12]} ({action.facts.get('stage', '')})")


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


app.command("pin")(store_space.pin)
app.command("pins")(store_space.pins)
app.command("unpin")(store_space.unpin)
app.command("gc")(store_space.gc)
app.command("push")(store_share.push)
app.command("pull")(store_share.pull)
