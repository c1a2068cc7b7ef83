import numpy as np
import pytest

from .graded import BACKDROPS, BLURRED, PLAIN, PRODUCTS, grade

# What each reaches, less a little, or the wanted bar where that is met
# (as means over each kind: .96 plain, .94 textured, .86 blurred).
FLOORS = {"white": 0.96, "grey gradient": 0.94, "pastel gradient": 0.96, "wood": 0.96, "brick": 0.90, "grass": 0.93}


@pytest.mark.parametrize("behind", [name for name in BACKDROPS if name in FLOORS or name in BLURRED])
def test_drawn_products_are_cut_out_as_well_as_the_table_says(behind):
    grades = [grade(product, behind) for product in PRODUCTS]
    assert all(one.core_is_exact for one in grades)
    assert {one.route for one in grades} == {"plain" if behind in PLAIN else "clutter"}
    assert np.mean([one.overlap for one in grades]) > FLOORS.get(behind, 0.86)
