"""``partseg weights``: files of weights, other people's and ours."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Annotated, Any

import typer

from partseg.cli.tables import console, print_table, size_text

app = typer.Typer(no_args_is_help=True, help="Files of model weights: look inside, import, export.")

AsJson = Annotated[bool, typer.Option("--json", help="Print JSON.")]
Config = Annotated[
    Path | None,
    typer.Option("--config", help="YAML file of the model to build; by default what the file looks like."),
]


@app.command("inspect")
def inspect(
    file: Annotated[Path, typer.Argument(metavar="FILE", help="A .pth, .pkl, .safetensors or model folder.")],
    every: Annotated[bool, typer.Option("--tensors", help="Also list every tensor.")] = False,
    as_json: AsJson = False,
) -> None:
    """Say what a file of weights holds, without running anything of it."""
    from partseg.models.checkpoints.describe import describe

    found = describe(file)
    if as_json:
        print(json.dumps(found))
        return
    out = console()
    out.print(
        f"{found['file']}: {found['format']}, {size_text(found['bytes'])}", soft_wrap=True, markup=False
    )
    out.print(f"architecture: {found['architecture']['words']}", soft_wrap=True, markup=False)
    out.print(f"sha256: {found['sha256']}", soft_wrap=True)
    print_table(
        ["tensors of", "tensors", "numbers", "size", "types", "largest"],
        [
            [
                group["name"],
                f"{group['tensors']:,}",
                f"{group['numbers']:,}",
                size_text(group["bytes"]),
                ", ".join(group["dtypes"]),
                _shape(group["largest"]),
            ]
            for group in found["groups"]
        ],
        last_wraps=False,
    )
    totals = (sum(group[key] for group in found["groups"]) for key in ("tensors", "numbers"))
    out.print("{:,} tensors, {:,} numbers".format(*totals))
    if found["entries"]:
        print_table(["beside them", "what"], sorted(found["entries"].items()))
    if every:
        print_table(
            ["tensor", "type", "shape"],
            [[tensor["name"], tensor["dtype"], _shape(tensor["shape"])] for tensor in found["tensors"]],
        )


@app.command("import")
def import_(
    file: Annotated[Path, typer.Argument(metavar="FILE", help="A released VLPart .pth, or a .safetensors.")],
    out: Annotated[Path, typer.Option("--out", help="Folder for model.safetensors and model.json.")],
    config: Config = None,
    as_json: AsJson = False,
) -> None:
    """Turn a file of a detector into a model folder, and say what became of every tensor."""
    from partseg.models.checkpoints import import_model
    from partseg.models.config import load_config

    report = import_model(file, out, load_config(config) if config else None).report
    if as_json:
        print(json.dumps(_account(report)))
    else:
        print(report)
        console().print(f"{out}: written", soft_wrap=True, markup=False)


@app.command("export")
def export(
    folder: Annotated[Path, typer.Argument(metavar="DIR", help="A model folder.")],
    out: Annotated[Path, typer.Option("--out", help="The .pth to write.")],
) -> None:
    """Write a model as a .pth with the original's names, which the original's code can load."""
    from partseg.models.checkpoints import export_vlpart, load_any

    loaded = load_any(folder)
    export_vlpart(loaded.model, out, card=loaded.card, extras=loaded.extras)
    console().print(f"{out}: {size_text(out.stat().st_size)}", soft_wrap=True, markup=False)


def _shape(shape: list[int]) -> str:
    return " × ".join(map(str, shape)) or "one number"


def _account(report: Any) -> dict[str, Any]:
    return {
        "file": str(report.path),
        "architecture": report.found,
        "loaded": list(report.loaded),
        "aside": dict(report.aside),
        "notes": list(report.notes),
    }
