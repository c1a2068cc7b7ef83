"""The ad as pixels: a document and the pictures of its layers in, RGB out. Knows neither engines nor files."""

from collections.abc import Mapping

import numpy as np

from ..contract.document import PRODUCT_Z, Document, Layer
from ..contract.texts import TextError, say
from ..engines.base import Picture
from ..imaging.picture import alpha_over, box_of


def render(document: Document, layers: Mapping[str, Picture]) -> Picture:
    """The ad that `document` describes: the only way to `final.png`.

    Args:
        document: which layers lie where, and over what.
        layers: RGBA by file name, of the size of their boxes; the lowest may be RGB.

    Returns:
        RGB of the canvas's size.

    Raises:
        KeyError: a layer of `stack` is missing.
        TextError: one has another size than the document says, or the lowest does not fill the canvas.
    """
    lowest, *others = stack(document)
    result = layers[lowest.file][..., :3].copy()
    for layer in others:
        x, y, width, height = layer.box
        part, picture = result[y : y + height, x : x + width], layers[layer.file]
        if picture.shape[:2] != part.shape[:2]:
            raise TextError(say("pipeline.layer_size", file=layer.file))
        part[:] = alpha_over(part, picture)
    if result.shape[1::-1] != document.canvas:
        raise TextError(say("pipeline.layer_no_ground", file=lowest.file))
    return result


def stack(document: Document) -> tuple[Layer, ...]:
    """The layers that make the ad, in the order in which they are laid over each other.

    Raises:
        TextError: the document has neither a scene with a product nor a picture of step 1.
    """
    ordered = sorted(document.objects, key=lambda item: item.z)
    behind = [layer for item in ordered if item.z < PRODUCT_Z for layer in item.layers]
    before = [layer for item in ordered if item.z >= PRODUCT_Z for layer in item.layers]
    front = [document.cutout] if behind and document.cutout is not None else []
    return *ground(document), *document.under, *behind, *front, *before


def ground(document: Document) -> tuple[Layer, ...]:
    """The layers of the ad without its objects; see `stack`."""
    if document.step1 is not None:
        return (document.step1,)
    if document.scene is None or document.product is None:
        raise TextError(say("pipeline.no_layers"))
    return document.scene.background, document.product.shadow, document.product.cutout


def cropped(name: str, picture: Picture) -> tuple[Layer, Picture]:
    """RGBA `picture` of the whole canvas as a layer called `name`, without the empty rim."""
    x, y, width, height = box = box_of(picture[..., 3] > 0) or (0, 0, 1, 1)
    return Layer(file=f"{name}.png", box=box), np.ascontiguousarray(picture[y : y + height, x : x + width])
