from __future__ import annotations

import pytest

from partseg.parsing.naming import rename, split_name

VOCABULARY = {
    "dog:head": 1, "dog:torso": 2, "dog:foot": 3, "bottle:mouth": 4, "bottle:cap": 5, "bus:body": 6,
    "quadruped head": 7, "quadruped body": 8, "quadruped foot": 9, "mirror": 10, "snake torso": 11,
}  # fmt: skip


@pytest.mark.parametrize(
    ("name", "label", "separator", "expected"),
    [
        ("cat:head", "dog", ":", "dog:head"),
        ("cat:body", "dog", ":", "dog:torso"),  # no "dog:body", so the synonym
        ("car:body", "bus", ":", "bus:body"),
        ("cat:paw", "dog", ":", "dog:foot"),  # hand, foot, paw are tried in this order
        ("bottle:cap", "bottle", ":", "bottle:mouth"),  # mouth before cap
        ("cat:tail", "dog", ":", None),
        ("cat:head", "sheep", ":", None),
        ("mirror", "dog", ":", "mirror"),  # an object without a part keeps its name
        ("bench", "dog", ":", None),
        ("bird head", "quadruped", " ", "quadruped head"),
        ("fish body", "snake", " ", "snake torso"),
        ("car side mirror", "quadruped", " ", None),  # its second word is "side"
    ],
)
def test_what_a_found_part_is_called(name: str, label: str, separator: str, expected: str | None) -> None:
    assert rename(name, label, VOCABULARY, separator=separator) == expected


def test_part_words_of_more_than_one_word_stay_whole_after_a_colon() -> None:
    assert split_name("bus:license plate", ":") == ("bus", "license plate")
    assert split_name("car side mirror", " ") == ("car", "side")
    assert split_name("bench", ":") is None
