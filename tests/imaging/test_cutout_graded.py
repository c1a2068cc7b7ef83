"""The cut-out against drawn products with exact truth: the mean wanted of each kind of backdrop."""

import numpy as np
import pytest

from .graded import BLURRED, PLAIN, PRODUCTS, grade

# Kind of backdrop: the wanted mean overlap (IoU), the route, and what each backdrop has to reach by itself.
KINDS = {
    "plain": (0.96, "plain", {"white": 0.96, "grey gradient": 0.94, "pastel gradient": 0.97}),
    "textured": (0.94, "clutter", {"wood": 0.96, "brick": 0.90, "grass": 0.93}),
    "blurred": (0.85, "clutter", dict.fromkeys(BLURRED, 0.90)),
}


@pytest.mark.timeout(300)  # some fifty photos each
@pytest.mark.parametrize("kind", KINDS)
def test_drawn_products_are_cut_out_as_well_as_wanted(kind):
    wanted, route, floors = KINDS[kind]
    grades = {behind: [grade(product, behind) for product in PRODUCTS] for behind in floors}
    every = [one for of_backdrop in grades.values() for one in of_backdrop]
    assert all(one.core_is_exact for one in every)
    assert {one.route for one in every} == {route}
    assert np.mean([one.overlap for one in every]) >= wanted
    for behind, floor in floors.items():
        assert np.mean([one.overlap for one in grades[behind]]) >= floor, behind


def test_the_plain_backdrops_are_those_that_are_graded_as_plain():
    assert set(PLAIN) == set(KINDS["plain"][2])
