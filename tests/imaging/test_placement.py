"""Where words go on a picture."""

import numpy as np
import pytest

from ad_agent_mcp.contract.ad import TextPosition
from ad_agent_mcp.imaging.placement import find_spots, safe_area


@pytest.mark.parametrize(("least", "smallest"), [(0.0, 0.45), (0.6, 0.7), (1.5, 1.0)])
def test_letters_are_not_scaled_down_so_far_that_they_cannot_be_read(least: float, smallest: float):
    picture = np.full((400, 400, 3), 200, np.uint8)
    product = np.zeros((400, 400), np.float32)
    product[60:, 20:380] = 1
    spot = find_spots(
        picture, product, (300, 80), area=safe_area((400, 400)), position=TextPosition.TOP, least_scale=least
    )[0]
    assert spot.scale == smallest
