"""How often images with rare classes are repeated (LVIS, arXiv:1908.03195, appendix B.2)."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray


def repeat_factors(
    rows: NDArray[np.int64], labels: NDArray[np.int64], count: int, threshold: float
) -> NDArray[np.float64]:
    """The repeat factor of every image.

    A class that the share f of the images has is repeated max(1, sqrt(threshold / f)) times, an image as
    often as the class of it that is repeated most, and an image without a class once.

    Args:
        rows: [K], image of every annotation, 0 to count - 1.
        labels: [K], class of every annotation, from 0.
        count: number of images, those without annotations included.
        threshold: share of images below which a class counts as rare; 0 repeats nothing.

    Returns:
        [count] factors, each at least 1.
    """
    factors = np.ones(count)
    if not len(rows) or not threshold:
        return factors
    with np.errstate(divide="ignore"):  # a class of no image is not looked up
        of_class = np.maximum(1.0, np.sqrt(threshold / (images_per_class(rows, labels) / count)))
    np.maximum.at(factors, rows, of_class[labels])
    return factors


def images_per_class(
    rows: NDArray[np.int64], labels: NDArray[np.int64], classes: int = 0
) -> NDArray[np.int64]:
    """In how many images each class occurs: [at least ``classes``]; arguments as above."""
    span = int(labels.max(initial=0)) + 1
    return np.bincount(np.unique(rows * span + labels) % span, minlength=classes)
