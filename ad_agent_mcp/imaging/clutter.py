"""A product before anything: what stands out from the border and the middle favours, as GrabCut then parts it.

Source: minimum barrier distance, Zhang et al. 2015; GrabCut, Rother et al. 2004.
"""

from itertools import pairwise

import cv2
import numpy as np

from .picture import Flags, Floats, Picture, at_most, blur, dilate, erode, floats, resize, to_bytes
from .regions import closed, filled, kept, lab_of, large_parts, opened, parts, step_edges

_SALIENCY_SIDE_PX = 200
_GRABCUT_SIDE_PX = 400
_SHARP = 0.6
_ROUGH_PX = 7


def salient_mask(work: Picture) -> Flags:
    """The likeliest product of `work` (uint8 RGB); empty where nothing stands out."""
    height, width = work.shape[:2]
    # Bricks, blades and grain are texture of one thing; a median takes most of it for what it is.
    small = at_most(work, _GRABCUT_SIDE_PX)
    likely = _saliency(_features(small, 9))
    likely = resize(likely, (small.shape[1], small.shape[0]))
    middle = cv2.threshold(to_bytes(likely), 0, 255, cv2.THRESH_OTSU)[0] / 255
    marks = np.full(likely.shape, cv2.GC_PR_BGD, np.uint8)
    hull = _in_focus(small)
    if hull.any():
        reach = max(2, round(0.02 * max(hull.shape)))
        marks[hull] = cv2.GC_PR_FGD
        marks[erode(hull, reach)] = cv2.GC_FGD
        marks[~dilate(hull, reach)] = cv2.GC_BGD
    else:
        marks[likely > middle] = cv2.GC_PR_FGD
        marks[likely > min(0.95, middle + 0.6 * (1 - middle))] = cv2.GC_FGD
        marks[likely < 0.25 * middle] = cv2.GC_BGD
    band = max(2, int(0.012 * min(likely.shape)))
    marks[:band] = marks[:, :band] = marks[:, -band:] = cv2.GC_BGD
    if not (marks == cv2.GC_FGD).any():
        return np.zeros((height, width), np.bool_)
    cv2.setRNGSeed(7)
    told = to_bytes(_telling(_features(small, 5)))
    cv2.grabCut(told, marks, (0, 0, 0, 0), np.zeros((1, 65)), np.zeros((1, 65)), 5, cv2.GC_INIT_WITH_MASK)
    product = large_parts(opened(closed((marks == cv2.GC_FGD) | (marks == cv2.GC_PR_FGD), 3), 2))
    # A hole that is as unremarkable as the backdrop is one to see through.
    labels, statistics = parts(opened(filled(product) & ~product, 3), 4)
    areas = statistics[:, cv2.CC_STAT_AREA]
    plain = np.bincount(labels.ravel(), likely.ravel()) / areas < middle
    product = filled(product) & ~kept(labels, (areas > 0.003 * product.size) & (plain | hull.any()))
    return floats(cv2.resize(floats(product), (width, height), interpolation=cv2.INTER_CUBIC)) > 0.5


def _in_focus(small: Picture) -> Flags:
    """What edges surround, where the border has none: a sharp product before an unfocused backdrop; else empty."""
    steps = step_edges(lab_of(cv2.bilateralFilter(small, 5, 12, 5))) > _SHARP
    band = max(3, int(0.04 * min(steps.shape)))
    edge = np.ones(steps.shape, np.bool_)
    edge[band:-band, band:-band] = False
    if steps[edge].mean() > 0.03:
        return np.zeros(steps.shape, np.bool_)
    # Widened until its gaps meet, an outline can be filled; what is lost to it at the end is what was added.
    gap = round(0.018 * max(steps.shape))
    hull = erode(filled(closed(dilate(steps, gap), gap)), gap)
    return filled(large_parts(opened(hull, 3)))


def _features(small: Picture, window_px: int) -> Floats:
    """Lab of `small` without its texture, and how rough that is, as a fourth channel (on the scale of L)."""
    lab = lab_of(cv2.medianBlur(small, window_px))
    light = lab_of(small)[..., 0]
    around = (_ROUGH_PX, _ROUGH_PX)
    spread = floats(cv2.blur(light * light, around)) - floats(cv2.blur(light, around)) ** 2
    # The calmest window that a pixel lies in, so that an edge is not taken for texture.
    calmest = cv2.erode(np.sqrt(np.maximum(spread, 0)), np.ones(around, np.uint8))
    return np.dstack([lab, 15 * np.log1p(floats(calmest))]).astype(np.float32)


def _telling(features: Floats) -> Floats:
    """The three mixtures of `features` that vary most, measured by how they vary along the border; 0-1."""
    band = max(3, int(0.05 * min(features.shape[:2])))
    edge = np.ones(features.shape[:2], np.bool_)
    edge[band:-band, band:-band] = False
    size = features.shape[2]
    behind = np.cov(features[edge].T) + np.eye(size) * 9
    values, vectors = np.linalg.eigh(behind)
    whiten = vectors / np.sqrt(values)
    flat = (features.reshape(-1, size) - features[edge].mean(axis=0)) @ whiten
    mixed = flat @ np.linalg.eigh(np.cov(flat.T))[1][:, -3:]
    low, high = np.percentile(mixed, [0.5, 99.5], axis=0)
    scale = max(1e-6, float((high - low).max()))
    return floats(np.clip(0.5 + (mixed - (low + high) / 2) / scale, 0, 1).reshape(*features.shape[:2], 3))


def _saliency(features: Floats) -> Floats:
    """How far each pixel stands out, 0-1, at `_SALIENCY_SIDE_PX`."""
    scale = min(1.0, _SALIENCY_SIDE_PX / max(features.shape))
    lab = resize(features, (max(16, round(features.shape[1] * scale)), max(16, round(features.shape[0] * scale))))
    height, width = lab.shape[:2]
    barrier = _barrier_distance(lab)
    band = max(3, int(0.06 * min(height, width)))
    unlike: list[Floats] = []
    for side in (lab[:band], lab[-band:], lab[:, :band], lab[:, -band:]):
        pixels = side.reshape(-1, lab.shape[2])
        away = lab - pixels.mean(axis=0)
        inverse = np.linalg.inv(np.cov(pixels.T) + np.eye(lab.shape[2]) * 4)
        far = np.sqrt(np.einsum("ijk,kl,ijl->ij", away, inverse, away))
        unlike.append(floats(far / max(1e-6, float(far.max()))))
    border = sum(unlike) - np.maximum.reduce(unlike)
    y, x = np.mgrid[0:height, 0:width].astype(np.float32)
    centre = np.exp(-(((x / width - 0.5) / 0.38) ** 2) - ((y / height - 0.52) / 0.38) ** 2)
    likely = 0.6 * barrier / max(1e-6, float(barrier.max())) + 0.4 * border / max(1e-6, float(border.max()))
    likely = blur(floats(likely * (0.25 + 0.75 * centre)), 2)
    return floats((likely - likely.min()) / max(1e-6, float(np.ptp(likely))))


def _barrier_distance(lab: Floats) -> Floats:
    """The least range of values that a path from the border to each pixel crosses, summed over the channels."""
    distance = np.full(lab.shape, 1e9, np.float32)
    distance[0] = distance[-1] = distance[:, 0] = distance[:, -1] = 0
    high, low = lab.copy(), lab.copy()
    height, width = lab.shape[:2]
    steps = [np.s_[y] for y in range(height)], [np.s_[:, x] for x in range(width)]
    for _ in range(3):
        for lines in (steps[0], steps[1], steps[0][::-1], steps[1][::-1]):
            for last, here in pairwise(lines):
                top, bottom = np.maximum(high[last], lab[here]), np.minimum(low[last], lab[here])
                better = (top - bottom < distance[here]) & (distance[last] < 1e8)
                distance[here] = np.where(better, top - bottom, distance[here])
                high[here] = np.where(better, top, high[here])
                low[here] = np.where(better, bottom, low[here])
    return floats(distance.sum(axis=2))
