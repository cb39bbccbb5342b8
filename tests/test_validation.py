from __future__ import annotations

from typing import Any

import pytest
from pydantic import BaseModel, ConfigDict, ValidationError, model_validator

from partseg.validation import faults


class Inner(BaseModel):
    sizes: list[int]


class Outer(BaseModel):
    model_config = ConfigDict(extra="forbid")

    inner: Inner
    low: int = 0
    high: int = 1

    @model_validator(mode="after")
    def _ordered(self) -> Outer:
        if self.low > self.high:
            raise ValueError("low is above high")
        return self


def said(content: Any) -> str:
    with pytest.raises(ValidationError) as caught:
        Outer.model_validate(content)
    return faults(caught.value)


def test_every_fault_is_named_with_its_place_in_one_line():
    text = said({"inner": {"sizes": [1, "x"]}, "extra": 1})
    first, second = text.split("; ")
    assert first.startswith("inner.sizes.1: Input should be a valid integer")
    assert second == "extra: Extra inputs are not permitted"
    assert "\n" not in text


def test_a_fault_of_the_whole_has_no_place():
    assert said({"inner": {"sizes": []}, "low": 2}) == "Value error, low is above high"
    assert said([]).startswith("Input should be a valid dictionary")
