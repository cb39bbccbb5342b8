"""``partseg predict``: objects and parts in photos."""

from __future__ import annotations

import json
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from partseg.cli.bar import Bar
from partseg.cli.tables import console, print_table
from partseg.errors import SourceError

if TYPE_CHECKING:
    from partseg.predict.photos import PhotoFile
    from partseg.predict.prediction import NamedClass

MOST_ROWS = 40
"""Lines of the table of one photo."""

MOST_OBJECTS = 5
"""Objects named in a note."""

MOST_NAMED = 20
"""Photos named in the last line if they could not be read; --json names all."""


def predict(
    photos: Annotated[
        list[str], typer.Argument(metavar="PHOTO...", help="Photos, folders of photos, or patterns.")
    ],
    weights: Annotated[
        Path, typer.Option(help="A folder a training wrote, or a file of weights (VLPart's own, too).")
    ],
    vocabulary: Annotated[
        str | None,
        typer.Option(
            metavar="NAME|WORDS|FILE",
            help="What to look for: a dataset's name (pascal_part, voc+pascal_part, lvis, ...), words "
            "('dog,dog:head'), or a file of names. (Default: what the model was trained with.)",
        ),
    ] = None,
    no_objects: Annotated[
        bool,
        typer.Option(
            "--no-objects",
            help="Only what the vocabulary names. Else the objects of its parts are looked for, too, where "
            "it has parts alone (pascal_part), so that each part finds its object.",
        ),
    ] = False,
    encoder: Annotated[
        str | None,
        typer.Option(help="What turns names into vectors. (Default: the model's own, or open_clip:RN50.)"),
    ] = None,
    text_weights: Annotated[Path | None, typer.Option(help="A local file of the encoder's weights.")] = None,
    embeddings: Annotated[
        Path | None, typer.Option(help="A table of vectors (.npy, .safetensors) in place of an encoder.")
    ] = None,
    out: Annotated[Path, typer.Option(help="Folder for the results.")] = Path("predictions"),
    score: Annotated[float, typer.Option(min=0.0, max=1.0, help="Least score of a detection.")] = 0.5,
    crops: Annotated[bool, typer.Option("--crops", help="Also write every detection cut out.")] = False,
    no_overlays: Annotated[bool, typer.Option("--no-overlays", help="Write no pictures.")] = False,
    overwrite: Annotated[
        bool, typer.Option("--overwrite", help="Do again what is done, and replace other results.")
    ] = False,
    batch: Annotated[int, typer.Option(min=1, help="Photos computed at once.")] = 1,
    device: Annotated[str, typer.Option(help="auto, cpu, or cuda.")] = "auto",
    precision: Annotated[
        str,
        typer.Option(
            metavar="float32|bf16",
            help="bf16: backbone and pyramid with 16 bits; faster on most GPUs and some processors.",
        ),
    ] = "float32",
    compile_: Annotated[
        bool,
        typer.Option("--compile", help="Translate the network first; takes minutes, pays for many photos."),
    ] = False,
    as_json: Annotated[bool, typer.Option("--json", help="Print JSON.")] = False,
) -> None:
    """Find objects and their parts in photos.

    Writes a picture and a JSON file per photo, and results.json with images.json for COCO's tools.

    Photos that are done are skipped, and those that cannot be read are named at the end.
    """
    from partseg.predict import Predictor
    from partseg.predict.folder import PredictionsFolder
    from partseg.predict.photos import find_photos
    from partseg.predict.run import predict_photos
    from partseg.predict.sources import weights_digest

    files = find_photos(photos)
    predictor = Predictor.from_pretrained(
        weights,
        vocabulary,
        encoder=encoder,
        text_weights=text_weights,
        embeddings=embeddings,
        device=device,
        score=score,
        objects=not no_objects,
        precision=precision,
        compile=compile_,
    )
    settings = {
        "weights": weights_digest(weights),
        "encoder": encoder,
        "text_weights": None if text_weights is None else str(text_weights),
        "embeddings": None if embeddings is None else str(embeddings),
        "score": score,
        "precision": precision,
    }
    folder = PredictionsFolder(
        out, predictor.classes, settings, overlays=not no_overlays, crops=crops, overwrite=overwrite
    )
    with Bar("photos") as bar:
        outcome = predict_photos(predictor, files, folder, batch=batch, report=bar)
    totals = folder.finish()
    alone = _without_object(predictor.classes)
    if embeddings is not None and vocabulary is not None and alone and not (no_objects or as_json):
        named = ", ".join(alone[:MOST_OBJECTS]) + (", ..." if len(alone) > MOST_OBJECTS else "")
        console().print(
            f"note: the embeddings have no row for every object ({named}), so parts have none", soft_wrap=True
        )
    if as_json:
        content = {
            "out": str(out),
            "computed": outcome.computed,
            "skipped": outcome.skipped,
            "failed": [{"photo": str(error.where), "reason": error.what} for error in outcome.failures],
            "images": totals.images,
            "objects": totals.objects,
            "parts": totals.parts,
        }
        print(json.dumps(content, indent=2))
    else:
        if len(files) == 1 and not outcome.failures:
            _print_detections(folder.read(files[0]))
        done = f", {outcome.skipped:,} of them done before" if outcome.skipped else ""
        console().print(
            f"{out}: {_count(outcome.computed + outcome.skipped, 'photo')}{done}; the folder has "
            f"{_count(totals.objects, 'object')} and {_count(totals.parts, 'part')} in "
            f"{_count(totals.images, 'photo')}",
            soft_wrap=True,
        )
    if outcome.failures:
        raise _not_read(files, outcome.failures)


def _without_object(classes: tuple[NamedClass, ...]) -> list[str]:
    """Names of the objects whose parts are looked for, while they are not."""
    parts = (item.name for item in classes if item.kind == "part" and item.owner < 0)
    return list(dict.fromkeys(name.partition(":")[0] for name in parts))


def _print_detections(content: dict[str, Any]) -> None:
    """A line per object, with its parts, and per part without one."""
    found = content["detections"]
    rows = []
    for place, item in enumerate(found):
        if item["part_of"] is None:
            parts = [
                f"{part['name'].partition(':')[2] or part['name']} {part['score']:.2f}"
                for part in found
                if part["part_of"] == place
            ]
            box = " ".join(f"{value:.0f}" for value in item["box_xyxy"])
            rows.append([item["name"], f"{item['score']:.2f}", box, ", ".join(parts)])
    if rows:
        print_table(["name", "score", "box", "parts"], rows[:MOST_ROWS])
    if len(rows) > MOST_ROWS:
        console().print(f"and {len(rows) - MOST_ROWS:,} more, see the picture and the JSON file")


def _not_read(files: list[PhotoFile], failures: tuple[SourceError, ...]) -> SourceError:
    if len(failures) == 1:
        return failures[0]
    named = "; ".join(f"{error.where}: {error.what}" for error in failures[:MOST_NAMED])
    more = f"; and {len(failures) - MOST_NAMED} more" if len(failures) > MOST_NAMED else ""
    return SourceError(
        f"{len(failures)} of {len(files)} photos could not be read ({named}{more})",
        fix="mend or remove them; the others are done",
    )


def _count(number: int, noun: str) -> str:
    return f"{number:,} {noun}{'' if number == 1 else 's'}"
