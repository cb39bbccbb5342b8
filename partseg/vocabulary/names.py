"""What to look for: a dataset's published names, words of one's own, or a file of names."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from difflib import get_close_matches
from functools import cached_property
from pathlib import Path
from typing import Literal

from partseg.errors import RecipeError, WeightsError
from partseg.vocabulary.prompts import PUBLISHED, prompt, split
from partseg.vocabulary.published import canonical, published, release
from partseg.vocabulary.table import EmbeddingTable

TABLES = (".npy", ".safetensors")
_WRITE = "write a dataset's name (see `partseg vocabulary list`), words like 'dog,dog:head', or a file"


@dataclass(frozen=True, slots=True, kw_only=True)
class Term:
    """One name to look for.

    Attributes:
        name: ``dog`` or ``dog:head``.
        prompt: the text that is embedded.
        id: published category id; None for words of one's own.
        synonyms: other published names.
    """

    name: str
    prompt: str
    id: int | None = None
    synonyms: tuple[str, ...] = ()

    @property
    def kind(self) -> Literal["object", "part"]:
        """A name with a colon is that of a part."""
        return "object" if self.part is None else "part"

    @property
    def object(self) -> str:
        """Name of the object: the name itself, or what is before the colon."""
        return split(self.name)[0]

    @property
    def part(self) -> str | None:
        """Name of the part, without its object."""
        return split(self.name)[1]


@dataclass(frozen=True, kw_only=True)
class Vocabulary:
    """Names to look for, each once.

    Attributes:
        title: where they come from: names of published vocabularies, 'words', or a file's name.
        terms: C names with their prompts.
        template: what made the prompts.
        table: a file with their embeddings, if they came from one.
    """

    title: str
    terms: tuple[Term, ...]
    template: str = PUBLISHED
    table: Path | None = None

    def __len__(self) -> int:
        return len(self.terms)

    @cached_property
    def names(self) -> tuple[str, ...]:
        """C names."""
        return tuple(term.name for term in self.terms)

    @property
    def prompts(self) -> tuple[str, ...]:
        """C prompts."""
        return tuple(term.prompt for term in self.terms)

    @property
    def kinds(self) -> tuple[Literal["object", "part"], ...]:
        """For each name whether it is an object's or a part's."""
        return tuple(term.kind for term in self.terms)

    @cached_property
    def parents(self) -> tuple[int | None, ...]:
        """For each part the row of its object; None for objects and where the object is not looked for."""
        rows = {name: row for row, name in enumerate(self.names)}
        return tuple(rows.get(term.object) if term.kind == "part" else None for term in self.terms)


def objects_of(vocabulary: Vocabulary) -> Vocabulary:
    """The objects whose parts a vocabulary has without having them, in the order of their first parts.

    Their prompts have the vocabulary's template; where that is about parts only, the published one.
    """
    there = {name.lower() for name in vocabulary.names}
    names = dict.fromkeys(term.object for term in vocabulary.terms if term.object.lower() not in there)
    template = vocabulary.template or PUBLISHED
    if "{part}" in template:
        template = PUBLISHED
    terms = tuple(Term(name=name, prompt=prompt(template, name)) for name in names)
    return Vocabulary(title=f"objects of {vocabulary.title}", terms=terms, template=template)


def resolve(text: str, *, template: str | None = None) -> Vocabulary:
    """The vocabulary that a command line names.

    Args:
        text: a published vocabulary ('pascal_part'), several of them whose names are put together
            ('voc+pascal_part'), a file (.txt with one name per line; .safetensors of partseg; .npy, one of
            VLPart's or with a .txt of the same name beside it), or words with commas between them
            ('dog,dog:head'). What is none of the others is taken as words.
        template: the prompt around each name instead of the published one.

    Raises:
        RecipeError: no name, an empty or malformed one, or one that occurs twice.
        WeightsError: a file is missing or cannot be read.
    """
    text = text.strip()
    pieces = [piece.strip() for piece in text.split("+")]
    unknown = [piece for piece in pieces if piece not in canonical()]
    if not unknown:
        return _published([canonical()[piece] for piece in pieces], template)
    near = _meant(unknown[0])
    if near or len(unknown) < len(pieces):
        raise RecipeError(
            f"there is no published vocabulary {unknown[0]!r}",
            fix=f"did you mean {near!r}?" if near else "see `partseg vocabulary list`",
        )
    path = Path(text).expanduser()
    if "," not in text and path.suffix.lower() in (".txt", *TABLES):
        return _from_file(path, template)
    return from_names(text.split(","), template=template)


def from_names(
    names: Iterable[str], *, title: str = "words", where: object = None, template: str | None = None
) -> Vocabulary:
    """A vocabulary of any names, ``object`` or ``object:part``.

    Raises:
        RecipeError: no name, an empty or malformed one, or one that occurs twice.
    """
    template = template or PUBLISHED
    given = [":".join(piece.strip() for piece in name.split(":")) for name in names]
    if not any(given):
        raise RecipeError("the vocabulary has no names", where=where, fix=_WRITE)
    faults = []
    if empty := given.count(""):
        faults.append("an empty name" if empty == 1 else f"{empty} empty names")
    if odd := [name for name in given if name and (name.count(":") > 1 or "" in name.split(":"))]:
        faults.append(f"names that are neither 'object' nor 'object:part': {', '.join(odd)}")
    count = Counter(name.lower() for name in given if name)
    if twice := [name for name, times in count.items() if times > 1]:
        faults.append(f"names that occur twice: {', '.join(twice)}")
    if faults:
        raise RecipeError(
            f"the vocabulary has {'; '.join(faults)}",
            where=where,
            fix="give each name once, as 'object' or 'object:part'",
        )
    terms = tuple(Term(name=name, prompt=prompt(template, name)) for name in given)
    return Vocabulary(title=title, terms=terms, template=template)


def _meant(text: str) -> str | None:
    """The published vocabulary that a word was probably meant to be; such names have an underscore."""
    near = get_close_matches(text, canonical(), n=1, cutoff=0.85)
    return near[0] if near and "_" in near[0] else None


def _published(names: Sequence[str], template: str | None) -> Vocabulary:
    """The names of published vocabularies; one that several have is taken from the first."""
    facts = [published()[name] for name in names]
    templates = {template} if template else {each.template for each in facts}
    terms: dict[str, Term] = {}
    for each in facts:
        for entry in each.categories:
            text = prompt(template or each.template, entry.words or entry.name)
            terms.setdefault(
                entry.name, Term(name=entry.name, prompt=text, id=entry.id, synonyms=entry.synonyms)
            )
    return Vocabulary(
        title="+".join(names),
        terms=tuple(terms.values()),
        template=str(*templates) if len(templates) == 1 else PUBLISHED,
    )


def _from_file(path: Path, template: str | None) -> Vocabulary:
    if not path.is_file():
        raise WeightsError("no such file of names", where=path, fix=_WRITE)
    if path.suffix.lower() == ".txt":
        return from_names(_lines(path), title=path.name, where=path, template=template)
    if path.suffix.lower() == ".safetensors":
        table = EmbeddingTable.load(path)
        terms = tuple(Term(name=name, prompt=_told(table.template, name)) for name in table.names)
        return Vocabulary(title=path.name, terms=terms, template=table.template, table=path)
    beside = path.with_suffix(".txt")
    if beside.is_file():
        found = from_names(_lines(beside), title=path.name, where=beside, template=template)
    elif known := release(path.name):
        found = _published([known[0]], template or known[1].template)
    else:
        raise WeightsError(
            "a .npy file has no names",
            where=path,
            fix=f"put them into {beside.name} beside it, one line per row",
        )
    return Vocabulary(title=found.title, terms=found.terms, template=found.template, table=path)


def _told(template: str, name: str) -> str:
    """The prompt of a ready table's row; tables that were read from a .npy do not say."""
    return prompt(template, name) if template else ""


def _lines(path: Path) -> list[str]:
    """The names in a text file; empty lines do not count."""
    try:
        return [line for line in path.read_text(encoding="utf-8-sig").splitlines() if line.strip()]
    except (OSError, UnicodeDecodeError) as error:
        raise WeightsError(
            "the names cannot be read", where=path, fix=f"give UTF-8 text ({error})"
        ) from error
