"""Cutting a product out of its photo without a model: real alpha, a plain backdrop, or (at a guess) clutter.

A plain backdrop is modelled as a smooth quadratic in Lab; what differs from it is the product, and because
the backdrop is known under the edge as well, the matte there is solved for instead of guessed.
"""

from dataclasses import dataclass
from typing import Literal, NamedTuple

import cv2
import numpy as np

from ..contract.errors import invalid
from ..contract.layout import Box
from .picture import Flags, Floats, Matte, Picture, blur, box_of, dilate, disc, erode, floats, resize, to_bytes

Route = Literal["alpha", "plain", "clutter", "model"]

WORK_SIDE_PX = 1024
"""The matte is found at this size at most; a product is rarely placed larger."""
_ALPHA_FLOOR = 4
_BORDER_SHARE = 0.03
_BOX_MARGIN = 0.06


@dataclass(frozen=True)
class CutOut:
    """A product cut from a picture.

    Attributes:
        rgba: uint8 (H, W, 4), straight alpha, same size as the picture that was cut. Where alpha is 255
            the colours are the picture's own.
        box: tight box of alpha > 0.
        confidence: 0-1; below 0.5 the cut is surely bad.
        route: how it was found.
    """

    rgba: Picture
    box: Box
    confidence: float
    route: Route


class _Backdrop(NamedTuple):
    fit: Floats
    distance: Floats
    tolerance: float
    is_plain: bool


def cut_out(photo: Picture, *, product_box: Box | None = None) -> CutOut:
    """Cut the product out of `photo`.

    Args:
        photo: RGB, or RGBA whose alpha is then taken as it is.
        product_box: where the product is, in pixels of `photo`; nothing outside it is kept.

    Raises:
        AdAgentError: `invalid_request`; the box misses the picture, or the picture is empty.
    """
    if photo.shape[2] == 4:
        return _by_alpha(photo, product_box)
    height, width = photo.shape[:2]
    left, top, right, bottom = _window(product_box, width, height)
    part = photo[top:bottom, left:right]
    rgb, matte, confidence, route = _cut(part)
    rgba = np.zeros((height, width, 4), np.uint8)
    alpha = to_bytes(matte)
    alpha[alpha < _ALPHA_FLOOR] = 0
    rgba[top:bottom, left:right, :3] = np.where((alpha == 255)[..., None], part, rgb)
    rgba[top:bottom, left:right, 3] = alpha
    box = box_of(rgba[..., 3] > 0) or (left, top, right - left, bottom - top)
    return CutOut(rgba, box, confidence, route)


def _by_alpha(photo: Picture, product_box: Box | None) -> CutOut:
    rgba = photo.copy()
    if product_box is not None:
        left, top, right, bottom = _window(product_box, photo.shape[1], photo.shape[0])
        kept = np.zeros(photo.shape[:2], np.bool_)
        kept[top:bottom, left:right] = True
        rgba[~kept, 3] = 0
    rgba[rgba[..., 3] < _ALPHA_FLOOR, 3] = 0
    box = box_of(rgba[..., 3] > 0)
    if box is None:
        raise invalid("The product picture is transparent all over. Send one that shows it.", field="product_image")
    return CutOut(rgba, box, 1.0, "alpha")


def _window(product_box: Box | None, width: int, height: int) -> tuple[int, int, int, int]:
    if product_box is None:
        return 0, 0, width, height
    x, y, box_width, box_height = product_box
    margin = round(_BOX_MARGIN * max(box_width, box_height))
    left, top = max(0, x - margin), max(0, y - margin)
    right, bottom = min(width, x + box_width + margin), min(height, y + box_height + margin)
    if right - left < 16 or bottom - top < 16:
        raise invalid(
            f"product_box {list(product_box)} covers too little of the picture ({width} x {height} pixels). "
            "Correct it or leave it out.",
            field="product_box",
        )
    return left, top, right, bottom


def _cut(photo: Picture) -> tuple[Picture, Matte, float, Route]:
    height, width = photo.shape[:2]
    scale = min(1.0, WORK_SIDE_PX / max(height, width))
    size = (max(16, round(width * scale)), max(16, round(height * scale)))
    work = photo if scale == 1 else np.asarray(cv2.resize(photo, size, interpolation=cv2.INTER_AREA), dtype=np.uint8)
    backdrop = _fit_backdrop(_lab(floats(cv2.GaussianBlur(work, (3, 3), 0))))
    route: Route = "clutter"
    mask = np.zeros(work.shape[:2], np.bool_)
    if backdrop.is_plain:
        mask = _plain_mask(work, backdrop)
        route = "plain" if 0.005 < mask.mean() < 0.97 else "clutter"
    if route == "clutter":
        mask = _clutter_mask(work)
        if not 0.005 < mask.mean() < 0.97:
            return photo, np.ones((height, width), np.float32), 0.0, route
        inner = erode(mask, 2)
        matte = floats(np.clip(blur(floats(mask), 1.2) * 1.3 - 0.15, 0, 1))
        matte[inner] = 1
        rgb = _spread(floats(work), inner, (3.0, 9.0))
    else:
        rgb, matte = _solve_matte(work, mask, backdrop)
    confidence = _edge_share(work, mask)
    picture = np.clip(rgb + 0.5, 0, 255).astype(np.uint8)
    if scale < 1:
        picture = np.asarray(cv2.resize(picture, (width, height), interpolation=cv2.INTER_CUBIC), dtype=np.uint8)
        matte = resize(matte, (width, height))
        matte[matte > 0.99] = 1
    return picture, matte, confidence, route


def _lab(rgb: Floats) -> Floats:
    """Lab (L 0-100) of RGB 0-255."""
    return floats(cv2.cvtColor(floats(rgb / 255), cv2.COLOR_RGB2LAB))


def _fit_backdrop(lab: Floats) -> _Backdrop:
    """The smooth quadratic that most of the border follows, and how far every pixel is from it."""
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
    return _Backdrop(fit, off, tolerance, is_plain)


def _plain_mask(work: Picture, backdrop: _Backdrop) -> Flags:
    height, width = work.shape[:2]
    long_side, area = max(height, width), height * width
    lab = _lab(floats(cv2.bilateralFilter(work, 5, 12, 5)))
    off = floats(np.linalg.norm(lab - backdrop.fit, axis=2))
    slope = _slope(lab)
    sure = _touching_border(off < backdrop.tolerance)
    darker = lab[..., 0] - backdrop.fit[..., 0]
    tint = np.hypot(lab[..., 1] - backdrop.fit[..., 1], lab[..., 2] - backdrop.fit[..., 2])
    soft = (tint < 5) & (darker < 3) & (darker > -45) & (slope < 2.6)
    grown = _touching_border(sure | _opened(soft, 1))
    # A cast shadow is smooth, keeps the backdrop's hue and lies low; anything else that grows is the product.
    product, shadow = ~sure, grown & ~sure
    share = shadow.sum() / max(1, product.sum())
    if 0 < share < 0.45:
        rows = np.flatnonzero(product.any(axis=1))
        low_from = rows[0] + 0.6 * (rows[-1] - rows[0])
        if share < 0.12 or (np.nonzero(shadow)[0] > low_from).mean() > 0.6:
            product = ~grown
    product = _opened(np.asarray(cv2.morphologyEx(product.astype(np.uint8), cv2.MORPH_CLOSE, disc(2))) > 0, 1)
    crumb = max(3, int(0.009 * long_side))
    product &= ~((off < 14) & product) | _opened(product, crumb)
    smooth = 0.0045 * long_side
    thin = product & ~_opened(product, int(smooth) + 1)
    product = (blur(floats(product), smooth) > 0.5) | _long_parts(thin, 0.035 * long_side)
    product = ~_touching_border(~_large_parts(product))
    # Holes one can see through (a mug's handle) look like the backdrop. On white so does a white label,
    # and a product that lost its label is worse than a handle that kept its white.
    if float(np.median(backdrop.fit[..., 0])) > 97:
        return product
    holes = _opened((off < max(2.2, backdrop.tolerance * 0.6)) & (slope < 1.5) & product, 2)
    labels, statistics = _parts(holes, 4)
    return product & ~dilate(_kept(labels, statistics[:, cv2.CC_STAT_AREA] > 0.0015 * area), 1)


def _clutter_mask(work: Picture) -> Flags:
    """What GrabCut makes of "unlike the border and near the centre"."""
    height, width = work.shape[:2]
    scale = min(1.0, 400 / max(height, width))
    size = (max(16, round(width * scale)), max(16, round(height * scale)))
    small = np.asarray(cv2.resize(work, size, interpolation=cv2.INTER_AREA), dtype=np.uint8)
    lab = _lab(floats(small))
    band = max(3, int(0.06 * min(size)))
    unlike: list[Floats] = []
    for side in (lab[:band], lab[-band:], lab[:, :band], lab[:, -band:]):
        pixels = side.reshape(-1, 3)
        away = lab - pixels.mean(axis=0)
        inverse = np.linalg.inv(np.cov(pixels.T) + np.eye(3) * 4)
        far = np.sqrt(np.einsum("ijk,kl,ijl->ij", away, inverse, away))
        unlike.append(floats(far / max(1e-6, float(far.max()))))
    y, x = np.mgrid[0 : size[1], 0 : size[0]].astype(np.float32)
    centre = np.exp(-(((x / size[0] - 0.5) / 0.38) ** 2) - ((y / size[1] - 0.52) / 0.38) ** 2)
    likely = blur(floats((sum(unlike) - np.maximum.reduce(unlike)) * (0.25 + 0.75 * centre)), 2)
    likely = (likely - likely.min()) / max(1e-6, float(np.ptp(likely)))
    middle = cv2.threshold(to_bytes(likely), 0, 255, cv2.THRESH_OTSU)[0] / 255
    marks = np.full(likely.shape, cv2.GC_PR_BGD, np.uint8)
    marks[likely > middle] = cv2.GC_PR_FGD
    marks[likely > min(0.95, middle + 0.6 * (1 - middle))] = cv2.GC_FGD
    marks[likely < 0.25 * middle] = cv2.GC_BGD
    marks[:2] = marks[:, :2] = marks[:, -2:] = cv2.GC_BGD
    if not (marks == cv2.GC_FGD).any():
        return np.zeros((height, width), np.bool_)
    cv2.setRNGSeed(7)
    bgr = cv2.cvtColor(small, cv2.COLOR_RGB2BGR)
    cv2.grabCut(bgr, marks, (0, 0, 0, 0), np.zeros((1, 65)), np.zeros((1, 65)), 5, cv2.GC_INIT_WITH_MASK)
    product = _large_parts(_opened((marks == cv2.GC_FGD) | (marks == cv2.GC_PR_FGD), 2))
    product = ~_touching_border(~product)
    return floats(cv2.resize(floats(product), (width, height), interpolation=cv2.INTER_CUBIC)) > 0.5


def _solve_matte(work: Picture, mask: Flags, backdrop: _Backdrop) -> tuple[Floats, Matte]:
    """The matte that explains each edge pixel as a mix of the known backdrop and the nearby product.

    Returns:
        Colours of the product alone (RGB 0-255) and its matte.
    """
    radius = max(2, round(0.004 * max(mask.shape)))
    inner, outer = erode(mask, radius), ~dilate(mask, max(2, round(0.003 * max(mask.shape))))
    lab = _lab(floats(work))
    product = _spread(lab, inner, (1.2 * radius, 3.0 * radius))
    step = product - backdrop.fit
    power = (step * step).sum(axis=-1)
    matte = ((lab - backdrop.fit) * step).sum(axis=-1) / np.maximum(power, 1e-3)
    matte = np.clip((matte - 0.12) / 0.72, 0, 1)
    # Where product and backdrop look alike the division is noise: there the mask knows better.
    trust = np.clip((np.sqrt(power) - 8) / 10, 0, 1)
    matte = floats(trust * matte + (1 - trust) * blur(floats(mask), 0.8))
    matte[inner], matte[outer] = 1, 0
    behind = floats(cv2.cvtColor(backdrop.fit, cv2.COLOR_LAB2RGB)) * 255
    share = matte[..., None]
    unmixed = (floats(work) - (1 - share) * behind) / np.maximum(share, 0.25)
    nearby = floats(cv2.cvtColor(product, cv2.COLOR_LAB2RGB)) * 255
    weight = np.clip((share - 0.5) / 0.4, 0, 1)
    rgb = np.clip(weight * unmixed + (1 - weight) * nearby, 0, 255)
    return floats(np.where(inner[..., None], work, rgb)), matte


def _spread(values: Floats, known: Flags, sigmas_px: tuple[float, ...]) -> Floats:
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


def _edge_share(work: Picture, mask: Flags) -> float:
    """Share of the contour with a real colour step across it."""
    radius = max(2, int(0.006 * max(mask.shape)))
    small, large = erode(mask, 1), dilate(mask, 1)
    edge = large & ~small
    edge[:3] = edge[-3:] = False
    edge[:, :3] = edge[:, -3:] = False
    if not edge.any():
        return 0.0
    lab, window = _lab(floats(work)), (4 * radius + 1, 4 * radius + 1)
    sides: list[Floats] = []
    for part in (floats(small), floats(~large)):
        weight = floats(cv2.blur(part, window)) + 1e-4
        sides.append(floats(floats(cv2.blur(lab * part[..., None], window)) / weight[..., None]))
    return float((np.linalg.norm(sides[0] - sides[1], axis=2)[edge] > 8).mean())


def _slope(lab: Floats) -> Floats:
    """The steepest of the three channels' gradients, in Lab units per pixel."""
    steep = np.zeros(lab.shape[:2], np.float32)
    for channel in range(3):
        plane = np.ascontiguousarray(lab[..., channel])
        across, down = cv2.Scharr(plane, cv2.CV_32F, 1, 0), cv2.Scharr(plane, cv2.CV_32F, 0, 1)
        steep = np.maximum(steep, floats(cv2.magnitude(across, down)) / 32)
    return steep


def _opened(flags: Flags, radius_px: int) -> Flags:
    return np.asarray(cv2.morphologyEx(flags.astype(np.uint8), cv2.MORPH_OPEN, disc(radius_px))) > 0


def _parts(flags: Flags, connectivity: int) -> tuple[np.ndarray, np.ndarray]:
    _, labels, statistics, _ = cv2.connectedComponentsWithStats(flags.astype(np.uint8), connectivity=connectivity)
    return np.asarray(labels), np.asarray(statistics)


def _kept(labels: np.ndarray, keep: np.ndarray) -> Flags:
    keep[0] = False
    return keep[labels]


def _touching_border(flags: Flags) -> Flags:
    labels, statistics = _parts(flags, 4)
    keep = np.zeros(len(statistics), np.bool_)
    for edge in (labels[0], labels[-1], labels[:, 0], labels[:, -1]):
        keep[np.unique(edge)] = True
    return _kept(labels, keep)


def _large_parts(flags: Flags) -> Flags:
    labels, statistics = _parts(flags, 8)
    if len(statistics) < 2:
        return flags
    areas = statistics[:, cv2.CC_STAT_AREA]
    return _kept(labels, areas >= max(0.03 * areas[1:].max(), 0.0008 * flags.size))


def _long_parts(flags: Flags, length_px: float) -> Flags:
    labels, statistics = _parts(flags, 8)
    return _kept(labels, np.maximum(statistics[:, cv2.CC_STAT_WIDTH], statistics[:, cv2.CC_STAT_HEIGHT]) > length_px)
