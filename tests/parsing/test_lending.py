"""Several base images lend parts to one image: how they vote, and which patches count."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from hypothesis import given
from hypothesis import strategies as st

from partseg.parsing.base_images import BaseImage
from partseg.parsing.config import ParserConfig
from partseg.parsing.descriptors import Features
from partseg.parsing.lending import Lent, lend, vote

EVERYWHERE = torch.ones(1, 6, dtype=torch.bool)
CLAIMS = st.lists(st.booleans(), min_size=12, max_size=12)


def lent(keys: Sequence[str], *claims: str, cosine: float = 0.5) -> Lent:
    """What one base image says of a row of six patches: "x" where a part is."""
    found = torch.tensor([[[c == "x" for c in claim]] for claim in claims], dtype=torch.bool).view(-1, 1, 6)
    return Lent(
        keys=keys,
        partners=torch.zeros(6, dtype=torch.int64),
        cosine=torch.full((1, 6), cosine),
        carried=found,
        claims=found,
    )


def shown(patches: torch.Tensor) -> list[str]:
    return ["".join("x" if inside else "." for inside in row[0]) for row in patches.tolist()]


def test_one_lender_decides_alone() -> None:
    only = lent(["leg", "leg", "head"], "xx....", ".xx...", "......")
    found = vote([only], 0.5, EVERYWHERE)
    assert found.origins == ((0, 0), (0, 1), (0, 2))
    assert torch.equal(found.patches, only.claims)
    assert found.share.max() == 1


def test_patches_belong_to_a_part_if_enough_lenders_say_so() -> None:
    three = [lent(["leg"], "xxx..."), lent(["leg"], ".xxx.."), lent(["leg"], "..xxx.")]
    assert shown(vote(three, 1 / 3, EVERYWHERE).patches) == ["xxxxx."]
    assert shown(vote(three, 0.5, EVERYWHERE).patches) == [".xxx.."]
    assert shown(vote(three, 1, EVERYWHERE).patches) == ["..x..."]
    assert torch.allclose(vote(three, 0.5, EVERYWHERE).share, torch.tensor([[[1.0, 2, 3, 2, 1, 0]]]) / 3)


def test_only_lenders_that_have_a_part_vote_on_it() -> None:
    found = vote([lent(["head"], "x....."), lent(["horn"], ".x....")], 1, EVERYWHERE)
    assert shown(found.patches) == ["x.....", ".x...."]
    assert found.origins == ((0, 0), (1, 0))


def test_parts_of_one_name_stay_apart_and_share_what_the_others_add() -> None:
    first, second = lent(["leg", "leg"], "x.....", "....x."), lent(["leg"], "xx.xxx")
    assert shown(vote([first, second], 0.5, EVERYWHERE).patches) == ["xx....", "...xxx"]


def test_the_first_lender_that_finds_a_part_says_how_many_there_are() -> None:
    blind, seeing = lent(["leg"], "......"), lent(["leg", "leg"], "xx....", "....xx")
    found = vote([blind, seeing], 0.5, EVERYWHERE)
    assert found.origins == ((1, 0), (1, 1))
    assert shown(found.patches) == ["xx....", "....xx"]


def test_the_similarity_of_a_patch_is_that_to_the_lenders_who_see_the_part_there() -> None:
    two = [lent(["leg"], "xx....", cosine=0.8), lent(["leg"], ".xx...", cosine=0.4)]
    cosine = vote(two, 0.5, EVERYWHERE).cosine[0, 0]
    torch.testing.assert_close(cosine[:3], torch.tensor([0.8, 0.6, 0.4]))


def test_nobody_lends_nothing() -> None:
    found = vote([], 0.5, EVERYWHERE)
    assert found.patches.shape == found.cosine.shape == found.share.shape == (0, 1, 6)
    assert found.patches.dtype == torch.bool
    assert (found.origins, found.mutual.tolist()) == ((), [])


@given(CLAIMS, st.integers(1, 5), st.floats(0.01, 1))
def test_lenders_that_agree_say_what_one_says(claims: list[bool], count: int, needed: float) -> None:
    found = torch.tensor(claims).view(2, 1, 6)
    one = Lent(
        keys=["leg", "leg"],
        partners=torch.zeros(6, dtype=torch.int64),
        cosine=torch.linspace(0.1, 0.6, 6).view(1, 6),
        carried=found,
        claims=found,
    )
    alone, together = vote([one], 0.5, EVERYWHERE), vote([one] * count, needed, EVERYWHERE)
    assert together.origins == alone.origins
    assert torch.equal(together.patches, alone.patches)
    torch.testing.assert_close(together.cosine, alone.cosine)
    assert torch.equal(together.share, alone.share)


@given(st.lists(CLAIMS, min_size=1, max_size=4), st.floats(0.01, 1), st.floats(0.01, 1))
def test_asking_for_more_votes_leaves_fewer_patches(claims: list[list[bool]], a: float, b: float) -> None:
    lenders = []
    for claim in claims:
        marks = ["".join("x" if inside else "." for inside in claim[i : i + 6]) for i in (0, 6)]
        lenders.append(lent(["leg", "leg"], *marks))
    few, many = (vote(lenders, needed, EVERYWHERE).patches.any(dim=0) for needed in sorted((a, b)))
    assert not (many & ~few).any()
    said = torch.stack([one.claims.any(dim=0) for one in lenders])
    assert not (few & ~said.any(dim=0)).any()


def features(descriptors: torch.Tensor, grid: tuple[int, int]) -> Features:
    return Features(
        token=descriptors.mean(0), descriptors=descriptors, saliency=torch.ones(len(descriptors)), grid=grid
    )


@given(st.integers(0, 2**31))
def test_fewer_patches_find_their_way_back_the_nearer_it_must_end(seed: int) -> None:
    draw = torch.Generator().manual_seed(seed)
    query = features(torch.randn(20, 4, generator=draw), (4, 5))
    base = BaseImage(
        image_id=1,
        features=features(torch.randn(9, 4, generator=draw), (3, 3)),
        grids=torch.randint(0, 2, (2, 3, 3), generator=draw).bool(),
        category_ids=(1, 2),
    )
    foreground = torch.randint(0, 2, (4, 5), generator=draw).bool()
    free = lend(base, ["a", "b"], query, foreground, ParserConfig())
    before = torch.zeros_like(free.claims)
    for within in range(6):
        found = lend(base, ["a", "b"], query, foreground, ParserConfig(mutual_within=within))
        assert torch.equal(found.carried, free.claims)
        assert not (before & ~found.claims).any()
        before = found.claims
        mutual = vote([found], 0.5, foreground).mutual
        expected = found.claims.sum(dim=(1, 2)) / found.carried.sum(dim=(1, 2)).clamp_min(1)
        torch.testing.assert_close(mutual, expected)
    assert torch.equal(before, free.claims)  # no patch of 4 x 5 is more than 4 away
