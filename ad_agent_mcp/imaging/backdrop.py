"""A product before a plain backdrop: the backdrop as a smooth quadratic in Lab, and what differs from it.

What is backdrop is found from the border inwards. A shadow belongs to the backdrop: it keeps its hue and starts
softly, where a product, however close in colour, starts with a step.
"""

from typing import NamedTuple

import cv2
import numpy as np

from .picture import Flags, Floats, Picture, blur, dilate, disc, erode, floats
from .regions import closed, filled, kept, lab_of, large_parts, long_parts, opened, parts, step_edges, touching_border

_BORDER_SHARE = 0.03
STEP = 0.3
FAINT_STEP = 0.15
_FAINT_SHARE = 0.5
_BLOCK_PX = 16
"""How far a JPEG's traces reach from an edge: blocks have 8 pixels, those of colour mostly 16."""
_RINGING = 0.12
"""How strong they are at most, as a share of that edge's step."""


class Backdrop(NamedTuple):
    """`fit` is Lab (H, W, 3); colours within `tolerance` of it (Lab distance) are the backdrop's."""

    fit: Floats
    tolerance: float
    is_plain: bool


def fit_backdrop(lab: Floats) -> Backdrop:
    """The smooth quadratic that most of the border follows."""
    height, width = lab.shape[:2]
    band = max(2, int(_BORDER_SHARE * min(height, width)))
    border = np.ones((height, width), np.bool_)
    border[band:-band, band:-band] = False
    y, x = np.mgrid[0:height, 0:width].astype(np.float32)
    x, y = x / width - 0.5, y / height - 0.5
    terms = np.stack([np.ones_like(x), x, y, x * y, x * x, y * y], axis=-1)
    samples, basis = lab[border], terms[border]
    distance = np.linalg.norm(samples - np.median(samples, axis=0), axis=1)
    inside = distance < np.clip(3 * 1.48 * np.median(distance), 6, 25)
    weights = np.zeros((6, 3), np.float32)
    weights[0] = np.median(samples, axis=0)
    spread = 99.0
    for _ in range(4):
        if inside.sum() < 50:
            break
        weights = floats(np.linalg.lstsq(basis[inside], samples[inside], rcond=None)[0])
        distance = np.linalg.norm(samples - basis @ weights, axis=1)
        spread = float(1.48 * np.median(distance[inside]))
        inside = distance < max(3.5, 3 * spread)
    fit = floats(terms @ weights)
    off = floats(np.linalg.norm(lab - fit, axis=2))
    tolerance = float(np.clip(3 * spread + 2, 3, 9))
    sides = sorted(
        float((side < tolerance).mean()) for side in (off[:band], off[-band:], off[:, :band], off[:, -band:])
    )
    share = float((off[border] < tolerance).mean())
    is_plain = spread < 3 and (sides[1] > 0.8 or (sides[2] > 0.9 and share > 0.6))
    return Backdrop(fit, tolerance, is_plain)


def product_mask(work: Picture, backdrop: Backdrop) -> Flags:
    """What of `work` (uint8 RGB) is neither `backdrop` nor a shadow on it."""
    long_side = max(work.shape)
    lab = lab_of(cv2.bilateralFilter(work, 5, 12, 5))
    off = floats(np.linalg.norm(lab - backdrop.fit, axis=2))
    steps = step_edges(lab)
    smooth = steps < STEP
    # What light does to the backdrop's colour is the same factor on all of it.
    dimmed = (lab[..., :1] + 16) / (backdrop.fit[..., :1] + 16)
    tint = np.linalg.norm(lab[..., 1:] - backdrop.fit[..., 1:] * dimmed, axis=2)
    darker = lab[..., 0] - backdrop.fit[..., 0]
    bare = off < backdrop.tolerance
    shaded = (tint < 5) & (darker < 3) & (darker > -70)
    sure = _flooded(bare & smooth, bare, 2)
    # Lossy compression leaves specks of backdrop that the product's edge fences in: not smooth, and not far in.
    peak = floats(cv2.dilate(off, disc(_BLOCK_PX)))
    ringing = off < np.maximum(1.5 * backdrop.tolerance, _RINGING * peak)
    for _ in range(max(_BLOCK_PX, round(0.014 * long_side))):
        sure |= dilate(sure, 1) & ringing
    gap = max(3, round(0.01 * long_side))
    grown = _flooded((bare | shaded) & smooth | sure, (bare | shaded) & smooth, gap)
    inside = _outlined(steps > FAINT_STEP)
    shadow = _shadows(~sure, grown & ~sure & ~inside, ~smooth)
    # At the foot the product's colour tints the shadow, and its darkest line has a step of its own: a thin band.
    tinted = (tint < 9) & (darker < 3) & ~sure
    foot = tinted & ~(inside & opened(tinted & inside, max(3, round(0.006 * long_side))))
    for _ in range(gap):
        shadow |= dilate(shadow, 1) & foot
    product = ~sure & ~shadow
    product = opened(closed(product, 2), 1)
    crumb = max(3, int(0.015 * long_side))
    product &= ~((off < 10) & product) | opened(product, crumb)
    softness = 0.0045 * long_side
    thin = product & ~opened(product, int(softness) + 1)
    product = (blur(floats(product), softness) > 0.5) | long_parts(thin, 0.035 * long_side)
    product = filled(large_parts(product))
    return product & ~_holes(product, off, smooth, backdrop)


def _flooded(passable: Flags, like: Flags, gap_px: int) -> Flags:
    """What the border reaches through gaps that are no mere cracks in an edge, and a little of `like` beyond."""
    reached = touching_border(opened(passable, gap_px))
    for _ in range(gap_px):
        reached |= dilate(reached, 1) & like
    return reached


def _shadows(product: Flags, dim: Flags, steps: Flags) -> Flags:
    """The regions of `dim` that are plausibly shadows of `product`: small, or lying low and starting softly."""
    labels, statistics = parts(dim, 4)
    areas = statistics[:, cv2.CC_STAT_AREA]
    rows = np.flatnonzero(product.any(axis=1))
    if not rows.size:
        return dim
    low_from = int(rows[0] + 0.6 * (rows[-1] - rows[0]))
    low = np.bincount(labels[low_from:].ravel(), minlength=len(areas)) / areas
    small = areas < 0.01 * product.sum()
    keep = small | ((low > 0.6) & (areas < 0.3 * product.sum()))
    # Where a shadow leaves from under the product, the step in sight is the product's.
    beside = ~product & ~dilate(product & ~dim, 12)
    for label in np.flatnonzero((keep & ~small)[1:]) + 1:
        keep[label] = _step_share(labels == label, steps, beside) < 0.09
    return kept(labels, keep)


def _outlined(steps: Flags) -> Flags:
    """What `steps` surround, gaps in them aside."""
    labels, statistics = parts(steps, 8)
    lines = kept(labels, statistics[:, cv2.CC_STAT_AREA] > 0.02 * max(steps.shape))
    gap = max(3, round(0.016 * max(steps.shape)))
    return erode(filled(dilate(lines, gap)), gap)


def _step_share(region: Flags, steps: Flags, beside: Flags) -> float:
    """How much of the outline that `region` shares with `beside` is a step."""
    outline = dilate(region, 5) & ~region & beside
    return float((outline & dilate(steps, 4)).sum() / max(1, outline.sum()))


def _holes(product: Flags, off: Floats, smooth: Flags, backdrop: Backdrop) -> Flags:
    """Holes one can see through, such as a mug's handle: like the backdrop, and ending with a step all around."""
    holes = opened((off < max(2.2, backdrop.tolerance * 0.6)) & smooth & product, 2)
    labels, statistics = parts(holes, 4)
    areas = statistics[:, cv2.CC_STAT_AREA]
    # A white label looks like white, too; but it is shaded or printed on, and a product must not lose it.
    white = float(np.median(backdrop.fit[..., 0])) > 97
    mean = np.bincount(labels.ravel(), off.ravel()) / areas
    keep = (areas > 0.0006 * product.size) & ((mean < 0.8) | (not white))
    for label in np.flatnonzero(keep[1:]) + 1:
        region = labels == label
        keep[label] = _step_share(region, ~smooth, product) > 0.7
        keep[label] &= not white or filled(region).sum() < 1.01 * areas[label]
    return dilate(kept(labels, keep), 1)


def is_overlooking(work: Picture, mask: Flags) -> bool:
    """Whether what a product's `mask` leaves of `work` hints that it is not all of it.

    That is a part that hangs in the air above another, or long faint outlines beside it.
    """
    long_side = max(mask.shape)
    statistics = parts(mask, 8)[1]
    boxes = [statistics[label] for label in range(1, len(statistics))]
    for above in boxes:
        for below in boxes:
            x, y, width, height = (int(value) for value in above[:4])
            left, top, across = (int(value) for value in below[:3])
            is_over = min(x + width, left + across) - max(x, left) > 0.3 * min(width, across)
            if is_over and top > y + height + 0.01 * long_side:
                return True
    steps = step_edges(lab_of(cv2.bilateralFilter(work, 5, 12, 5)))
    # Beside the product lies what lossy compression made of its edge.
    outside = ~dilate(mask, max(_BLOCK_PX + 2, round(0.02 * long_side)))
    outside[:3] = outside[-3:] = outside[:, :3] = outside[:, -3:] = False
    if not outside.any():
        return False
    noise = float(np.percentile(steps[outside], 90))
    lines = long_parts((steps > max(FAINT_STEP, 2.5 * noise)) & outside, 0.08 * long_side)
    return bool(lines.sum() > _FAINT_SHARE * long_side)
