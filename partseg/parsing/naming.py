"""What a part found in an image is called there.

A detector or a base image knows a part as "cat:head". In an image labelled "dog" the same thing is
"dog:head", if the vocabulary has such a name. The rules and synonyms are those of VLPart's parser.
"""

from __future__ import annotations

from collections.abc import Collection

# Part words to try for a word, in this order (facebookresearch/VLPart, ann parser of golden sets).
SYNONYMS: dict[str, tuple[str, ...]] = {
    "body": ("body", "torso"),
    "torso": ("body", "torso"),
    "paw": ("hand", "foot", "paw"),
    "cap": ("mouth", "cap"),
}


def split_name(name: str, separator: str) -> tuple[str, str] | None:
    """Object and part word of a name such as "dog:head"; None for a name of an object.

    With a blank as separator (PartImageNet, "quadruped head") the part is the second word only, so
    that "car side mirror" gives "side", as published.
    """
    if separator not in name:
        return None
    thing, _, rest = name.partition(separator)
    return thing, (rest.split()[0] if separator == " " else rest)


def rename(name: str, label: str, vocabulary: Collection[str], *, separator: str = ":") -> str | None:
    """The name of a found part in an image with a given label.

    Args:
        name: what the part was found as, for instance "cat:body".
        label: the image's label, for instance "dog".
        vocabulary: the names that may be written.
        separator: what stands between object and part.

    Returns:
        The first of the part's synonyms that the vocabulary has for the label, here "dog:torso".
        A name without a part is returned unchanged if the vocabulary has it. None otherwise.
    """
    parts = split_name(name, separator)
    if parts is None:
        return name if name in vocabulary else None
    word = parts[1]
    candidates = (f"{label}{separator}{other}" for other in SYNONYMS.get(word, (word,)))
    return next((candidate for candidate in candidates if candidate in vocabulary), None)
