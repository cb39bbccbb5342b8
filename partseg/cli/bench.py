"""``partseg bench``: how fast images come, and where the time of a training step goes."""

from __future__ import annotations

import json
import tempfile
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Literal

import typer

from partseg.cli import options
from partseg.cli.tables import console, print_table, size_text
from partseg.errors import PartsegError, RecipeError

if TYPE_CHECKING:
    from partseg.models.config import ModelConfig
    from partseg.report.bars_svg import Bar
    from partseg.training.config import AugmentConfig, TrainSource

app = typer.Typer(no_args_is_help=True, help="Measure how fast images come and what a training step takes.")

SYNTHETIC = {"train": 24, "val": 1, "size": 640}
"""Settings of the made-up world that is read by default: about the size of COCO's photos."""
MEASURED = {
    "read": "read the file and decode it",
    "resize": "resize and mirror",
    "strong": "change colours, blur, erase",
    "target": "boxes and masks",
    "collate": "put a batch together",
    "unfold": "unfold masks for the model, here on the CPU",
}

AMPS: tuple[Literal["none", "bf16", "fp16"], ...] = ("none", "bf16", "fp16")

Out = Annotated[Path | None, typer.Option(metavar="FILE.svg", help="Also draw a picture.")]
Json = Annotated[bool, typer.Option("--json", help="Print JSON.")]


@app.command()
def data(
    dataset: Annotated[
        Path | None, typer.Argument(metavar="DATASET_DIR", help="Folder with a dataset.json.")
    ] = None,
    raw: Annotated[Path | None, typer.Option(help="Folder with the images of DATASET_DIR.")] = None,
    split: Annotated[str, typer.Option(help="Split of DATASET_DIR.")] = "train",
    job: Annotated[
        Path | None, typer.Option(help="A training's job.json; its datasets, ratios and image sizes.")
    ] = None,
    recipe: Annotated[
        str | None, typer.Option(help="A recipe whose data are in the store; needs --stage.")
    ] = None,
    stage: Annotated[str | None, typer.Option(help="A train stage of the recipe.")] = None,
    profile: options.Profile = None,
    raw_sources: Annotated[
        list[str] | None,
        typer.Option("--raw-source", metavar="SOURCE=DIR", help="Raw folder of a source of the recipe."),
    ] = None,
    store: options.StoreUrl = None,
    workers: Annotated[str, typer.Option(help="Numbers of worker processes to try.")] = "0,1,2",
    images: Annotated[int, typer.Option(min=1, help="Images to read per measurement.")] = 100,
    out: Out = None,
    as_json: Json = False,
) -> None:
    """Images per second by the number of workers, and where the time goes.

    Reads a dataset, the data of a training, or by default a small made-up world.

    The parts are timed in one process; a training on a GPU unfolds masks there, not on the CPU.
    """
    counts = _numbers(workers, "--workers")
    if sum(value is not None for value in (dataset, job, recipe)) > 1:
        raise PartsegError("several things to read", fix="give one of DATASET_DIR, --job and --recipe")
    with _opened(dataset, raw, split, job, recipe, stage, profile, raw_sources, store) as (found, augment):
        from partseg.training.bench_data import measure_loader, time_parts

        speeds = [measure_loader(found, augment, workers=count, images=images) for count in counts]
        parts = {
            part: seconds
            for part, seconds in time_parts(found, augment, images=images).items()
            if seconds or part != "strong"
        }
    if as_json:
        print(json.dumps({"loader": [asdict(speed) for speed in speeds], "seconds_per_image": parts}))
    else:
        print_table(
            ["workers", "images/s", "memory of a worker"],
            [[str(s.workers), f"{s.images_per_second:.1f}", size_text(s.worker_memory)] for s in speeds],
        )
        whole = sum(parts.values())
        print_table(
            ["part", "ms per image", "share", ""],
            [
                [name, f"{1000 * seconds:.2f}", f"{seconds / whole:.0%}", MEASURED[name]]
                for name, seconds in parts.items()
            ],
        )
    if out is not None:
        from partseg.report.bars_svg import Bar

        milliseconds = {name: 1000 * seconds for name, seconds in parts.items()}
        bars = [Bar(name="one process", parts=milliseconds, note=f"{sum(milliseconds.values()):.1f}")]
        bars += [
            Bar(
                name=f"{speed.workers} workers",
                parts={"loader": 1000 / speed.images_per_second},
                note=f"{speed.images_per_second:.1f} images/s",
            )
            for speed in speeds
        ]
        _draw(out, "Training images: where the time goes", "ms per image", bars, quiet=as_json)


@app.command()
def train(
    model: Annotated[
        str, typer.Option(metavar="NAME|FILE", help="A model of configs/models, or a YAML file.")
    ] = "tiny",
    images: Annotated[int, typer.Option(min=1, help="Images per step.")] = 2,
    side: Annotated[int, typer.Option(min=32, help="Height and width of the images, pixels.")] = 128,
    steps: Annotated[int, typer.Option(min=1, help="Measured steps.")] = 10,
    amp: Annotated[str, typer.Option(help="16-bit types to compare: none, bf16, fp16.")] = "none",
    compile_: Annotated[bool, typer.Option("--compile", help="Translate the backbone.")] = False,
    recompute: Annotated[
        bool, typer.Option("--recompute", help="Keep fewer activations: less memory, more time.")
    ] = False,
    out: Out = None,
    as_json: Json = False,
) -> None:
    """What a training step takes: data, forward, backward, optimiser, and the memory of the GPU."""
    names = [name.strip() for name in amp.split(",")]
    kinds = [kind for name in names for kind in AMPS if kind == name]
    if len(kinds) < len(names):
        raise PartsegError(f"--amp {amp} is not understood", fix=f"give some of {', '.join(AMPS)}")
    config = _model(model)
    from partseg.training.step_times import measure_steps

    found = {
        kind: measure_steps(
            config, images=images, side=side, steps=steps, amp=kind, compile=compile_, recompute=recompute
        )
        for kind in kinds
    }
    columns = ("data", "forward", "backward", "optimiser")
    times = {kind: {name: float(getattr(row, name)) for name in columns} for kind, row in found.items()}
    if as_json:
        rows = [{"amp": k, **times[k], "peak_memory": found[k].peak_memory} for k in kinds]
        print(json.dumps(rows))
    else:
        print_table(
            ["amp", "step ms", *columns, "images/s", "memory"],
            [
                [
                    kind,
                    *(f"{1000 * value:.1f}" for value in (sum(times[kind].values()), *times[kind].values())),
                    f"{images / sum(times[kind].values()):.1f}",
                    size_text(found[kind].peak_memory),
                ]
                for kind in kinds
            ],
            last_wraps=False,
        )
    if out is not None:
        from partseg.report.bars_svg import Bar

        bars = [
            Bar(
                name=f"amp {kind}",
                parts={name: 1000 * value for name, value in times[kind].items()},
                note=f"{1000 * sum(times[kind].values()):.0f} ms",
            )
            for kind in kinds
        ]
        _draw(out, f"A training step of {Path(model).stem}, {images} x {side} px", "ms", bars, quiet=as_json)


@contextmanager
def _opened(
    dataset: Path | None,
    raw: Path | None,
    split: str,
    job: Path | None,
    recipe: str | None,
    stage: str | None,
    profile: str | None,
    raw_sources: Sequence[str] | None,
    store: str | None,
) -> Iterator[tuple[list[TrainSource], AugmentConfig]]:
    """What is to be read, and how its images are changed."""
    from partseg.layout import Dataset
    from partseg.training.config import AugmentConfig, source

    if recipe is not None or stage is not None:
        if recipe is None or stage is None:
            raise RecipeError("a train stage is named by two options", fix="give --recipe and --stage")
        from partseg.cli.bench_recipe import stage_sources
        from partseg.training.runner import open_source

        items, augment = stage_sources(recipe, stage, profile, raw_sources, store)
        yield [open_source(item) for item in items], augment
    elif job is not None:
        from partseg.training.job import read_job
        from partseg.training.runner import open_source

        read = read_job(job)
        yield [open_source(item, read.cache) for item in read.sources], read.train.augment
    elif dataset is not None:
        yield [source(Dataset.open(dataset, image_root=raw), split)], AugmentConfig()
    else:
        from partseg.datasets.convert import convert
        from partseg.synthetic import make_up

        with tempfile.TemporaryDirectory() as name:
            folder = Path(name)
            make_up("pascal_part", folder / "raw", SYNTHETIC, {})
            convert("pascal_part", folder / "raw", folder / "data")
            made = Dataset.open(folder / "data", image_root=folder / "raw", cache=folder / "cache")
            yield [source(made, "train")], AugmentConfig()


def _numbers(text: str, option: str) -> list[int]:
    """``"0,2"`` as numbers."""
    try:
        numbers = [int(part) for part in text.split(",")]
    except ValueError:
        numbers = [-1]
    if min(numbers) < 0:
        raise PartsegError(f"{option} {text} is not understood", fix=f"write {option} 0,1,2")
    return numbers


def _model(name: str) -> ModelConfig:
    """The model of a file, or of ``configs/models`` by its name."""
    from partseg.models.config import load_config
    from pipelines.recipe import CONFIGS

    path = Path(name)
    return load_config(path if path.suffix else CONFIGS / "models" / f"{name}.yaml")


def _draw(out: Path, title: str, unit: str, bars: Sequence[Bar], *, quiet: bool) -> None:
    from partseg.report.bars_svg import bars_svg

    try:
        out.write_text(bars_svg(title, unit, bars), encoding="utf-8")
    except OSError as error:
        raise PartsegError("the picture cannot be written", where=out, fix=str(error)) from error
    if not quiet:
        console().print(f"drawn: {out}", soft_wrap=True)
