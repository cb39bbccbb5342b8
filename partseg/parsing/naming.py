"""What a part found in an image is called there, and the categories it can be written under.

A detector or a base image knows a part as "cat:head". In an image labelled "dog" the same thing is
"dog:head", if the vocabulary has such a name, and in one labelled "Quadruped" it is
"Quadruped:Head". The rules and synonyms are those of VLPart's parser.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence

from partseg.layout import Category
from partseg.parsing.config import ParserConfig
from partseg.vocabulary import resolve

# Part words to try for a word, in this order (facebookresearch/VLPart, ann parser of golden sets).
SYNONYMS: dict[str, tuple[str, ...]] = {
    "body": ("body", "torso"),
    "torso": ("body", "torso"),
    "paw": ("hand", "foot", "paw"),
    "cap": ("mouth", "cap"),
}


def spellings(names: Iterable[str]) -> dict[str, str]:
    """Each name under itself in lower case: names are compared without regard to case."""
    return {name.lower(): name for name in names}


def part_word(name: str, config: ParserConfig) -> str | None:
    """The part's word, in lower case, of a name such as "dog:head"; None for a name of an object."""
    _, separator, word = name.lower().partition(config.separator)
    if not separator:
        return None
    return word.split()[0] if config.part_word == "first" else word


def rename(name: str, label: str, vocabulary: Mapping[str, str], config: ParserConfig) -> str | None:
    """The name of a found part in an image with a given label.

    Args:
        name: what the part was found as, for instance "cat:body".
        label: the image's label, for instance "dog".
        vocabulary: the names that may be written, see :func:`spellings`.
        config: how names are put together.

    Returns:
        The first of the part's synonyms that the vocabulary has for the label, here "dog:torso".
        A name without a part is kept if the vocabulary has it. None otherwise.
    """
    word = part_word(name, config)
    if word is None:
        return vocabulary.get(name.lower())
    candidates = (f"{label}{config.separator}{other}".lower() for other in SYNONYMS.get(word, (word,)))
    return next((vocabulary[candidate] for candidate in candidates if candidate in vocabulary), None)


def published_categories(vocabulary: str, labels: Sequence[str]) -> tuple[Category, ...]:
    """A published vocabulary as the category table of a dataset.

    Args:
        vocabulary: its name.
        labels: names of objects that the images are labelled with.

    Returns:
        The names of the vocabulary in its order, under their published ids, or one more where those begin
        at 0; then the labels and the objects of its parts that it does not have itself.
    """
    terms = {term.name: term for term in resolve(vocabulary).terms}
    published = {name: term.id for name, term in terms.items() if term.id is not None}
    first = 1 if min(published.values()) == 0 else 0
    ids = {name: number + first for name, number in published.items()}
    objects = dict.fromkeys((*labels, *(term.object for term in terms.values())))
    for name in objects:
        ids.setdefault(name, max(ids.values()) + 1)
    return tuple(
        Category(
            category_id=number,
            name=name,
            kind="object" if name in objects else "part",
            parent_id=None if name in objects else ids[terms[name].object],
            source_id=published.get(name),
        )
        for name, number in ids.items()
    )
