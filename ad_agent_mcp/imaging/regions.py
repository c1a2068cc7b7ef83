"""Connected regions of a mask, and the edges that part them. Knows nothing about what they show."""

import cv2
import numpy as np
from numpy.typing import ArrayLike

from .picture import Flags, Floats, blur, disc, floats


def lab_of(picture: ArrayLike) -> Floats:
    """Lab (L 0-100) of RGB 0-255."""
    return floats(cv2.cvtColor(floats(picture) / 255, cv2.COLOR_RGB2LAB))


def step_edges(lab: Floats) -> Floats:
    """How steep `lab` is at each pixel beyond what a soft ramp would be, in Lab units per pixel.

    A step stands out from the same picture seen blurred; a cast shadow or an unfocused shape does not.
    """
    fine, coarse = slopes(blur(lab, 1)).max(axis=2), slopes(blur(lab, 3)).max(axis=2)
    return floats(fine - 1.6 * coarse)


def slopes(lab: Floats) -> Floats:
    """How steep each channel of `lab` (H, W, 3) is, in Lab units per pixel."""
    across, down = cv2.Scharr(lab, cv2.CV_32F, 1, 0), cv2.Scharr(lab, cv2.CV_32F, 0, 1)
    return floats(cv2.magnitude(across, down) / 32)


def opened(flags: Flags, radius_px: int) -> Flags:
    """`flags` without what a disc of `radius_px` does not fit into."""
    return np.asarray(cv2.morphologyEx(flags.astype(np.uint8), cv2.MORPH_OPEN, disc(radius_px))) > 0


def closed(flags: Flags, radius_px: int) -> Flags:
    """`flags` with gaps that a disc of `radius_px` does not fit into filled."""
    return np.asarray(cv2.morphologyEx(flags.astype(np.uint8), cv2.MORPH_CLOSE, disc(radius_px))) > 0


def touching_border(flags: Flags) -> Flags:
    """The regions (4-connected) that reach the picture's border."""
    labels, statistics = parts(flags, 4)
    keep = np.zeros(len(statistics), np.bool_)
    for edge in (labels[0], labels[-1], labels[:, 0], labels[:, -1]):
        keep[np.unique(edge)] = True
    return kept(labels, keep)


def filled(flags: Flags) -> Flags:
    """`flags` and what they enclose."""
    return ~touching_border(~flags)


def large_parts(flags: Flags) -> Flags:
    """The regions (8-connected) that are not tiny beside the largest, or in the picture."""
    labels, statistics = parts(flags, 8)
    if len(statistics) < 2:
        return flags
    areas = statistics[:, cv2.CC_STAT_AREA]
    return kept(labels, areas >= max(0.03 * areas[1:].max(), 0.0008 * flags.size))


def long_parts(flags: Flags, length_px: float) -> Flags:
    """The regions (8-connected) that are wider or taller than `length_px`."""
    labels, statistics = parts(flags, 8)
    return kept(labels, np.maximum(statistics[:, cv2.CC_STAT_WIDTH], statistics[:, cv2.CC_STAT_HEIGHT]) > length_px)


def parts(flags: Flags, connectivity: int) -> tuple[np.ndarray, np.ndarray]:
    """Labels (0 is what is not set) and OpenCV's statistics of each."""
    _, labels, statistics, _ = cv2.connectedComponentsWithStats(flags.astype(np.uint8), connectivity=connectivity)
    return np.asarray(labels), np.asarray(statistics)


def kept(labels: np.ndarray, keep: np.ndarray) -> Flags:
    """Where a label is one to `keep`; the label 0 never is."""
    keep[0] = False
    return keep[labels]
