import numpy as np
import pytest

from .graded import BACKDROPS, BLURRED, PLAIN, PRODUCTS, grade

# What the whole set reaches, less a little; the wanted bars are .96 plain, .94 textured, .85 blurred.
FLOORS = {"white": 0.93, "grey gradient": 0.90, "pastel gradient": 0.95, "wood": 0.95, "brick": 0.85, "grass": 0.83}


@pytest.mark.parametrize("behind", [name for name in BACKDROPS if name in FLOORS or name in BLURRED])
def test_drawn_products_are_cut_out_as_well_as_the_table_says(behind):
    grades = [grade(product, behind) for product in PRODUCTS]
    assert all(one.core_is_exact for one in grades)
    assert {one.route for one in grades} == {"plain" if behind in PLAIN else "clutter"}
    assert np.mean([one.overlap for one in grades]) > FLOORS.get(behind, 0.83)
