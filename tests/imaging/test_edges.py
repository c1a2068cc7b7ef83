import cv2
import numpy as np
import pytest

from ad_agent_mcp.imaging.edges import canny_map
from ad_agent_mcp.imaging.typesetting import Typesetter
from ad_agent_mcp.media.fonts import FontCatalog


@pytest.fixture(scope="module")
def mask():
    setter = Typesetter(FontCatalog(), "NanumSquare/NanumSquareEB.ttf")
    return setter.draw(["봄 50%"], 220, padding_px=40).mask


def test_edges_are_the_outline_within_a_pixel(mask):
    edges = canny_map(mask, (mask.shape[1], mask.shape[0]))
    assert edges.dtype == np.uint8
    assert set(np.unique(edges)) == {0, 255}
    assert (edges == edges[..., :1]).all()
    found = edges[..., 0] > 0
    solid = (mask > 0.5).astype(np.uint8)
    cross = cv2.getStructuringElement(cv2.MORPH_CROSS, (3, 3))
    outline = cv2.morphologyEx(solid, cv2.MORPH_GRADIENT, cross) > 0
    square = np.ones((3, 3), np.uint8)
    assert (found & ~(cv2.dilate(outline.astype(np.uint8), square) > 0)).sum() == 0
    assert (outline & ~(cv2.dilate(found.astype(np.uint8), square) > 0)).sum() <= 0.01 * outline.sum()


@pytest.mark.parametrize("size", [(1024, 512), (300, 200)])
def test_the_map_has_the_size_that_was_asked_for(mask, size):
    edges = canny_map(mask, size)
    assert edges.shape == (size[1], size[0], 3)
    assert edges.any()
