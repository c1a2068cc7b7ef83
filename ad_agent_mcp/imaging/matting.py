"""The soft edge of a mask: how much of each pixel is product, and the product's own colour there.

Each edge pixel is taken for a mix of the product's colour inwards of it and the backdrop's outwards of it. The
backdrop is read from the picture beside the edge, so a shadow that lies on it belongs to it.
"""

import cv2
import numpy as np

from .picture import Flags, Floats, Matte, Picture, blur, box_of, dilate, erode, floats
from .regions import lab_of

_SURE_MATTE = 0.98


def solve_matte(work: Picture, mask: Flags) -> tuple[Picture, Matte]:
    """Colours of the product alone and its matte.

    Args:
        work: uint8 RGB (H, W, 3).
        mask: the product, right to within about half a percent of the longer side.

    Returns:
        uint8 RGB, equal to `work` where the matte is 1, and the matte; both of the size of `work`.
    """
    colours, matte = work.copy(), np.zeros(mask.shape, np.float32)
    box = box_of(mask)
    if box is None:
        return colours, matte
    reach = 4 + round(0.03 * max(mask.shape))
    x, y, width, height = box
    window = np.s_[max(0, y - reach) : y + height + reach, max(0, x - reach) : x + width + reach]
    colours[window], matte[window] = _solve(work[window], mask[window], max(2, round(0.0055 * max(mask.shape))))
    return colours, matte


def own_colours(work: Picture, matte: Matte) -> Picture:
    """Colours of the product alone, where its `matte` is already known: `work` with the edge's taken from inwards.

    Args:
        work: uint8 RGB (H, W, 3).
        matte: float32 (H, W).
    """
    reach = max(2.0, 0.003 * max(matte.shape))
    near, away = (
        spread(floats(work), known, (reach, 4 * reach)) for known in (matte > _SURE_MATTE, matte < 1 - _SURE_MATTE)
    )
    return _unmixed(work, matte[..., None], near, away)


def _solve(work: Picture, mask: Flags, radius: int) -> tuple[Picture, Matte]:
    inner, outer = erode(mask, radius), ~dilate(mask, radius)
    lab = lab_of(work)
    product = spread(lab, inner, (0.8 * radius, 2.5 * radius))
    behind = spread(lab, outer, (0.8 * radius, 2.5 * radius))
    step = product - behind
    power = np.einsum("ijk,ijk->ij", step, step)
    matte = np.einsum("ijk,ijk->ij", lab - behind, step) / np.maximum(power, 1e-3)
    matte = np.clip((matte - 0.12) / 0.76, 0, 1)
    # Where product and backdrop look alike the division is noise: there the mask knows better.
    trust = np.clip((np.sqrt(power) - 8) / 10, 0, 1)
    matte = floats(trust * matte + (1 - trust) * blur(floats(mask), 0.8))
    matte[inner], matte[outer] = 1, 0
    near, away = (floats(cv2.cvtColor(colours, cv2.COLOR_LAB2RGB)) * 255 for colours in (product, behind))
    return _unmixed(work, matte[..., None], near, away), matte


def _unmixed(work: Picture, share: Floats, near: Floats, away: Floats) -> Picture:
    """`work` without the backdrop's colours `away`; where too little of it is product, the product's colours `near`."""
    unmixed = (floats(work) - (1 - share) * away) / np.maximum(share, 0.25)
    weight = np.clip((share - 0.5) / 0.4, 0, 1)
    rgb = np.clip(weight * unmixed + (1 - weight) * near + 0.5, 0, 255).astype(np.uint8)
    return np.where(share == 1, work, rgb)


def spread(values: Floats, known: Flags, sigmas_px: tuple[float, ...]) -> Floats:
    """`values` where `known`; elsewhere their Gaussian average over what is known, widening until some is."""
    result = values.copy()
    missing = ~known
    weight = floats(known)
    for sigma in sigmas_px:
        total = blur(weight, sigma)
        reached = missing & (total > 1e-3)
        average = blur(floats(values * weight[..., None]), sigma)
        result[reached] = average[reached] / total[reached][:, None]
        missing &= ~reached
    return result
