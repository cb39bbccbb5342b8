"""`partseg vocabulary`: what to look for, the prompts of the names, and their embeddings."""

from __future__ import annotations

import json
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from partseg.cli.tables import console, print_table

if TYPE_CHECKING:
    from partseg.vocabulary import EmbeddingTable, Vocabulary

app = typer.Typer(
    help="Published and own vocabularies: names, prompts and their embeddings.", no_args_is_help=True
)

NEIGHBOURS = 3
"""Neighbours of each name in the list; ``--near`` prints more."""

Text = Annotated[
    str,
    typer.Argument(
        metavar="VOCABULARY",
        help="A published name (see `list`), several as 'voc+pascal_part', words as 'dog,dog:head',"
        " or a .txt, .npy or .safetensors file.",
    ),
]
Encoder = Annotated[
    str | None,
    typer.Option(help="offline, open_clip:RN50, open_clip:ViT-B-32, ...  [default: open_clip:RN50]"),
]
Weights = Annotated[Path | None, typer.Option(help="Local file with the encoder's weights.")]
Table = Annotated[
    Path | None,
    typer.Option(help="Ready rows instead: .safetensors, .npy, or VLPart's folder datasets/metadata."),
]
Template = Annotated[
    str | None, typer.Option(help="Prompt around each name: {name}, {words}, '{part} of a {object}'.")
]
Json = Annotated[bool, typer.Option("--json", help="Print JSON.")]


@app.command("list")
def list_published(as_json: Json = False) -> None:
    """List the published vocabularies."""
    from partseg.vocabulary import published, resolve

    rows: list[dict[str, Any]] = []
    for name, facts in published().items():
        kinds = resolve(name).kinds
        rows.append(
            {
                "name": name,
                "aliases": list(facts.aliases),
                "objects": kinds.count("object"),
                "parts": kinds.count("part"),
                "template": facts.template,
                "released": [table.file for table in facts.released],
                "source": facts.source,
            }
        )
    if as_json:
        print(json.dumps(rows, indent=2))
        return
    print_table(
        ["name", "objects", "parts", "prompt", "also called"],
        [
            [
                row["name"],
                f"{row['objects']:,}",
                f"{row['parts']:,}",
                row["template"],
                ", ".join(row["aliases"]),
            ]
            for row in rows
        ],
    )


@app.command()
def show(
    vocabulary: Text,
    near: Annotated[
        str | None, typer.Option(metavar="WORD", help="Only the names nearest to this one, best first.")
    ] = None,
    count: Annotated[int, typer.Option(min=1, help="How many names --near prints.")] = 10,
    encoder: Encoder = None,
    weights: Weights = None,
    table: Table = None,
    template: Template = None,
    as_json: Json = False,
) -> None:
    """List names, kinds and prompts; with an encoder or a table, the nearest names by cosine as well."""
    from partseg.vocabulary import ENCODER, embed, from_names, resolve

    found = resolve(vocabulary, template=template)
    if near is not None:
        rows = embed(found, encoder=encoder or ENCODER, weights=weights, table=table)
        source = table or found.table
        if near in found.names or (source is not None and source.is_file()):
            neighbours = rows.nearest(near, count)  # a file has no other words
        else:
            word = from_names([near], template=template or found.template)
            of_word = embed(word, encoder=encoder or ENCODER, weights=weights, table=table)
            (neighbours,) = rows.nearest_to(of_word.vectors, count)
        if as_json:
            print(json.dumps({"near": near, "neighbours": _pairs(neighbours)}, indent=2))
        else:
            print_table(["name", "cosine"], [[name, f"{cosine:.3f}"] for name, cosine in neighbours])
        return
    wanted = encoder is not None or table is not None or weights is not None
    rows_or_none = embed(found, encoder=encoder or ENCODER, weights=weights, table=table) if wanted else None
    _print(found, rows_or_none, as_json)


@app.command()
def build(
    vocabulary: Text,
    out: Annotated[Path, typer.Option("--out", help="The .safetensors file to write.")],
    encoder: Encoder = None,
    weights: Weights = None,
    table: Table = None,
    template: Template = None,
) -> None:
    """Write the embeddings of a vocabulary into one file, for machines without the encoder."""
    from partseg.errors import RecipeError
    from partseg.vocabulary import ENCODER, embed, resolve

    if out.suffix != ".safetensors":
        raise RecipeError(f"--out {out} is no .safetensors file", fix="give it that ending")
    found = resolve(vocabulary, template=template)
    rows = embed(found, encoder=encoder or ENCODER, weights=weights, table=table)
    rows.save(out)
    console().print(f"{out}: {len(rows.names):,} names, {rows.dim} numbers each", soft_wrap=True)


def _print(vocabulary: Vocabulary, rows: EmbeddingTable | None, as_json: bool) -> None:
    near: list[list[tuple[str, float]]] = [[] for _ in vocabulary.names]
    if rows is not None:
        more = rows.nearest_to(rows.vectors, NEIGHBOURS + 1)
        near = [
            [pair for pair in found if pair[0] != name][:NEIGHBOURS]
            for name, found in zip(vocabulary.names, more, strict=True)
        ]
    if as_json:
        terms = [
            {
                "name": term.name,
                "kind": term.kind,
                "object": term.object,
                "part": term.part,
                "parent": parent,
                "prompt": term.prompt,
                "id": term.id,
                "synonyms": list(term.synonyms),
                **({"neighbours": _pairs(neighbours)} if rows is not None else {}),
            }
            for term, parent, neighbours in zip(vocabulary.terms, vocabulary.parents, near, strict=True)
        ]
        content = {"vocabulary": vocabulary.title, "template": vocabulary.template, "terms": terms}
        print(json.dumps(content, indent=2, ensure_ascii=False))
        return
    columns = ["row", "id", "kind", "name", "prompt"] + (["nearest"] if rows is not None else [])
    print_table(
        columns,
        [
            [
                str(row),
                "" if term.id is None else str(term.id),
                term.kind,
                term.name,
                term.prompt,
                *(
                    [", ".join(f"{name} {cosine:.2f}" for name, cosine in near[row])]
                    if rows is not None
                    else []
                ),
            ]
            for row, term in enumerate(vocabulary.terms)
        ],
    )


def _pairs(found: list[tuple[str, float]]) -> list[dict[str, Any]]:
    return [{"name": name, "cosine": round(cosine, 6)} for name, cosine in found]
