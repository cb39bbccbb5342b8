"""How sure a number is, and whether a difference of two models is real: bootstrap over images.

Images are drawn with replacement, as many as there are, many times over; an interval holds 95 of 100 of the
numbers that come out (Efron and Tibshirani 1993, "An Introduction to the Bootstrap", chapter 13: percentile
interval). Two models are compared on the same samples, so what is hard in an image is hard for both. This
says how much depends on which images were evaluated, and nothing about another training of the same model.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np

from partseg.evaluation.assess import Assessed, Samples
from partseg.evaluation.instance_truth import Floats
from partseg.evaluation.predictions import PredictionError
from partseg.evaluation.resampling import SEED, draw_samples

LEVEL = 0.95
"""Share of the samples that an interval holds."""

_AT_ONCE = 256  # samples that are computed together


@dataclass(frozen=True, slots=True, kw_only=True)
class Interval:
    """A number and where it may lie, fractions from 0 to 1.

    Attributes:
        value: over all images.
        low: the lower end of the interval.
        high: the upper end.
        mean: over the samples. It is larger than ``value`` where classes occur in few images, because the
            precision of an image's right predictions grows as it is drawn several times.
        deviation: standard deviation over the samples.
    """

    value: float
    low: float
    high: float
    mean: float
    deviation: float

    def as_dict(self) -> dict[str, float]:
        """Plain JSON values."""
        return asdict(self)


@dataclass(frozen=True, slots=True, kw_only=True)
class Difference:
    """The second model minus the first.

    Attributes:
        first: number of the first model.
        second: number of the second.
        value: their difference.
        low: the lower end of its interval.
        high: the upper end.
        better: share of the samples in which the second model is better; equal ones count half.
        p: twice the smaller share of the two signs, at most 1; each sign counts one sample more, so it is
            never 0. Below 0.05, the difference is called real.
    """

    first: float
    second: float
    value: float
    low: float
    high: float
    better: float
    p: float

    @property
    def is_real(self) -> bool:
        """Whether other images would hardly turn the sign around."""
        return self.p < 1 - LEVEL

    def as_dict(self) -> dict[str, Any]:
        """Plain JSON values."""
        return {**asdict(self), "is_real": self.is_real}


def samples_of(item: Assessed, samples: int, *, seed: int = SEED) -> Samples:
    """The numbers of many samples of the images; the same images and seed give the same samples.

    Args:
        item: an evaluation.
        samples: how many, B.
        seed: of the drawing.
    """
    weights = draw_samples(len(item.image_ids), samples, seed)
    parts = [item.resampled(weights[start : start + _AT_ONCE]) for start in range(0, samples, _AT_ONCE)]
    return Samples(
        metrics={name: np.concatenate([part.metrics[name] for part in parts]) for name in parts[0].metrics},
        classes={key: np.concatenate([part.classes[key] for part in parts]) for key in parts[0].classes},
    )


def intervals(values: Mapping[Any, float | None], samples: Mapping[Any, Floats]) -> dict[Any, Interval]:
    """An interval for every number that has samples.

    Args:
        values: over all images.
        samples: float64 [B] by the same names; nan where a sample does not define it.
    """
    found = {}
    for name, value in values.items():
        drawn = samples.get(name)
        if value is None or drawn is None:
            continue
        known = drawn[~np.isnan(drawn)]
        if not len(known):
            continue
        low, high = _ends(known)
        found[name] = Interval(
            value=value, low=low, high=high, mean=float(np.mean(known)), deviation=float(np.std(known))
        )
    return found


def differences(
    first: Mapping[str, float],
    second: Mapping[str, float],
    first_samples: Mapping[str, Floats],
    second_samples: Mapping[str, Floats],
) -> dict[str, Difference]:
    """Paired differences of every number that both models have.

    Args:
        first: numbers of the first model over all images.
        second: those of the second.
        first_samples: float64 [B] by name.
        second_samples: of the same samples.
    """
    found = {}
    for name in first:
        if name not in second or name not in first_samples or name not in second_samples:
            continue
        drawn = second_samples[name] - first_samples[name]
        drawn = drawn[~np.isnan(drawn)]
        if not len(drawn):
            continue
        low, high = _ends(drawn)
        least = min(int((drawn <= 0).sum()), int((drawn >= 0).sum()))
        found[name] = Difference(
            first=first[name],
            second=second[name],
            value=second[name] - first[name],
            low=low,
            high=high,
            better=float(np.mean((drawn > 0) + 0.5 * (drawn == 0))),
            p=min(1.0, 2 * (least + 1) / (len(drawn) + 1)),
        )
    return found


def require_same_images(first: Sequence[Assessed], second: Sequence[Assessed]) -> None:
    """Refuse to compare what was not evaluated alike.

    Raises:
        PredictionError: other evaluations, or other images.
    """
    names, others = [item.name for item in first], [item.name for item in second]
    if names != others:
        raise PredictionError(
            f"the two models were evaluated differently: {', '.join(names)} and {', '.join(others)}",
            fix="give both predictions in the same form, or choose --iou and --protocol",
        )
    for item, other in zip(first, second, strict=True):
        if item.image_ids != other.image_ids:
            raise PredictionError(
                "the two models were evaluated on other images", fix="evaluate both on one split"
            )


def _ends(drawn: Floats) -> tuple[float, float]:
    tail = 100 * (1 - LEVEL) / 2
    low, high = np.percentile(drawn, [tail, 100 - tail])
    return float(low), float(high)
