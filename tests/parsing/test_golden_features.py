"""Descriptors against those of the original parser, with its weights and pictures."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from partseg.parsing.base_images import base_pixels
from partseg.parsing.descriptors import Describer, Features
from partseg.parsing.index import BaseIndex, query_pixels
from partseg.parsing.transfer import correspondences
from tests.golden import parser
from tests.golden.parser import Case, needs_golden

pytestmark = needs_golden


@pytest.fixture(scope="module")
def describer() -> Describer:
    return Describer(parser.formula_vit(), parser.READING)


@pytest.fixture(scope="module", params=range(2), ids="q{}".format)
def case(request: pytest.FixtureRequest) -> Case:
    return parser.cases(novel=True)[request.param]


@pytest.fixture(scope="module")
def query(describer: Describer, case: Case) -> Features:
    return describer.describe([describer.normalise(case.picture)])[0]


@pytest.fixture(scope="module")
def base(describer: Describer, case: Case) -> Features:
    return describer.describe([describer.normalise(case.base_picture)])[0]


def test_what_the_transformer_is_shown(describer: Describer, case: Case) -> None:
    case.check("dino_input", describer.normalise(case.picture))


def test_tokens_of_all_base_images(describer: Describer) -> None:
    names = parser.base_names()
    assert len(names) == 6
    for name in names:
        picture = parser.pictures()[f"build_image.{name}"]
        token = describer.describe([describer.normalise(picture)])[0].token
        np.testing.assert_allclose(token, parser.arrays()[f"base_token.{name}"], rtol=0, atol=1e-4)


def test_features_of_a_query_and_its_base_image(query: Features, base: Features, case: Case) -> None:
    assert query.grid == tuple(case.meta["num_patches2"])
    assert base.grid == tuple(case.meta["num_patches1"])
    case.check("query_token", query.token)
    case.check("descriptors1", base.descriptors)
    case.check("descriptors2", query.descriptors)
    case.check("saliency1", base.saliency)
    case.check("saliency2", query.saliency)


def test_the_same_patches_are_foreground(
    describer: Describer, query: Features, base: Features, case: Case
) -> None:
    for features, saliency, share in ((base, "saliency1", "fg1"), (query, "saliency2", "fg2")):
        foreground = describer.foreground(features)
        # A patch that is only just salient may be on either side.
        clear = np.abs(case[saliency][0] - 0.05) > 1e-4
        assert (foreground.flatten().numpy() == (case[saliency][0] > 0.05))[clear].all()
        assert foreground.float().mean().item() == pytest.approx(case.meta[share], abs=1e-3)


def test_the_same_base_image_is_the_nearest(query: Features, case: Case) -> None:
    names = parser.base_names()
    tokens = torch.from_numpy(np.stack([parser.arrays()[f"base_token.{name}"] for name in names]))
    index = BaseIndex(tokens=tokens, image_ids=torch.arange(len(names)))
    rows, cosines = index.nearest(query.token[None], k=len(names))
    assert names[int(rows[0, 0])] == case.meta["base_filename"]
    found = torch.empty(len(names)).index_copy(0, rows[0], cosines[0])
    case.check("query_base_cos", found)


def test_every_patch_finds_the_same_partner(query: Features, base: Features, case: Case) -> None:
    found = correspondences(base.descriptors, query.descriptors, back=True)
    case.check("sim_2", found.cosine)
    assert found.back is not None
    assert (found.back.numpy() == case["nn_1"]).mean() > 0.999
    clear = case["nn_2_margin"] > 1e-5
    assert clear.mean() > 0.99
    assert (found.partners.numpy() == case["nn_2"])[clear].all()


def test_photos_are_made_small_like_the_originals(describer: Describer, case: Case) -> None:
    folder = parser.PASCAL_PART / "VOCdevkit" / "VOC2010" / "JPEGImages"
    if not folder.is_dir():
        pytest.skip("the photos are not in the repository")
    # Where a JPEG library decodes differently, pixels may be one off.
    shown, size = query_pixels(parser.photo(case.meta["query"]), describer)
    expected = describer.normalise(case.picture)
    assert size == tuple(case.meta["resized"])
    assert (shown - expected).abs().max() < 2 / 255 / 0.224
    shown = base_pixels(parser.photo(case.meta["base_filename"]), describer)
    expected = describer.normalise(case.base_picture)
    assert shown.shape == expected.shape
    assert (shown - expected).abs().max() < 2 / 255 / 0.224
