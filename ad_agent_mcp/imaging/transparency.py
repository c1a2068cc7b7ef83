"""Whether a picture's alpha cuts a product out, or is only there: rounded corners, a window's shadow, a stray pixel."""

import cv2
import numpy as np

from .matting import spread
from .picture import Flags, Picture, box_of, dilate
from .regions import kept, parts, touching_border

_CLEAR = 12
"""Alpha this little above the haze that lies over everything is clear."""
_FAINT, _FIRM = 32, 64
"""Away from opaque parts, alpha up to the first is haze or a shadow; from the second on it is product."""
_HAZE = 64
_LEAST_CLEAR = 0.005
_CARD_FILL, _CARD_SPAN = 0.96, 0.9
_ROUNDED_FIT = 0.98
_SOFT_MARGIN = 0.01
_LEAST_PART = 0.01


def settled(photo: Picture) -> Picture:
    """RGBA `photo` with a clean matte as its alpha, or RGB where its alpha is none; RGB as it is.

    Haze and stray pixels go from a matte. What its opaque parts are stays as it is.
    """
    if photo.shape[2] == 3:
        return photo
    alpha = photo[..., 3]
    solid = alpha >= max(64, int(alpha.max()) // 2)
    if not solid.any():
        return photo
    product = _large(solid)
    border = np.concatenate([alpha[0], alpha[-1], alpha[:, 0], alpha[:, -1]])
    hazy = border[border < _HAZE]
    haze = int(np.median(hazy)) if hazy.size else 0
    clear = touching_border(alpha <= haze + _CLEAR)
    if clear.mean() < _LEAST_CLEAR or _is_card(product, clear, alpha.shape):
        return flattened(photo, product)
    result = photo.copy()
    result[..., 3] = _cleaned(alpha, product, haze)
    return result


def is_rectangle(flags: Flags) -> bool:
    """Whether what is set fills its box, as a picture's frame does."""
    box = box_of(flags)
    return box is not None and bool(flags.sum() >= _CARD_FILL * box[2] * box[3])


def is_rounded(flags: Flags) -> bool:
    """Whether what is set is a rectangle with corners as round as can be, up to the oval in its box."""
    box = box_of(flags)
    if box is None:
        return False
    x, y, width, height = box
    down, across = np.mgrid[0:height, 0:width].astype(np.float32)
    inside = ((across + 0.5) / width - 0.5) ** 2 + ((down + 0.5) / height - 0.5) ** 2 < 0.25
    part = flags[y : y + height, x : x + width]
    return all(alike.mean() > _ROUNDED_FIT for alike in (part | ~inside, part == part[::-1], part == part[:, ::-1]))


def _large(solid: Flags) -> Flags:
    """The parts that are no dust, and the dust beside them."""
    labels, statistics = parts(solid, 8)
    areas = statistics[:, cv2.CC_STAT_AREA]
    large = kept(labels, areas >= _LEAST_PART * areas[1:].max())
    return large | (solid & dilate(large, max(2, round(0.01 * max(solid.shape)))))


def _is_card(product: Flags, clear: Flags, shape: tuple[int, ...]) -> bool:
    """Whether the opaque part is a whole photo: a rectangle up to the border, or one with a window's shadow."""
    box = box_of(product)
    if box is None or not is_rectangle(product):
        return False
    spans = box[2] >= _CARD_SPAN * shape[1] and box[3] >= _CARD_SPAN * shape[0]
    return spans or bool((~clear & ~dilate(product, 3)).mean() > _SOFT_MARGIN)


def flattened(photo: Picture, product: Flags) -> Picture:
    """The colours alone, those of what is opaque carried on where nothing is."""
    x, y, width, height = box_of(product) or (0, 0, photo.shape[1], photo.shape[0])
    window = np.s_[y : y + height, x : x + width]
    reach = 0.02 * max(photo.shape)
    known = photo[window][..., 3] >= _FIRM
    part = photo[window][..., :3]
    if not known.all():
        part = np.where(known[..., None], part, spread(part.astype(np.float32), known, (reach, 5 * reach)) + 0.5)
    right, bottom = photo.shape[1] - x - width, photo.shape[0] - y - height
    whole = cv2.copyMakeBorder(part.astype(np.uint8), y, bottom, x, right, cv2.BORDER_REPLICATE)
    return np.asarray(whole, dtype=np.uint8)


def _cleaned(alpha: Picture, product: Flags, haze: int) -> Picture:
    risen = (alpha.astype(np.float32) - haze) * (255 / (255 - haze))
    faint = np.clip((risen - _FAINT) * (_FIRM / (_FIRM - _FAINT)), 0, 255)
    edge = dilate(product, 4)
    is_own = (risen >= _FIRM) | edge
    result = np.clip(np.where(is_own, risen, faint) + 0.5, 0, 255).astype(np.uint8)
    labels, statistics = parts(result > 0, 8)
    keep = np.zeros(len(statistics), np.bool_)
    keep[np.unique(labels[product])] = True
    result[~(kept(labels, keep) | edge)] = 0
    return result
