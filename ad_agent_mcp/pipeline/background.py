"""Step 1: the product cut out, a scene painted, and the product placed in it."""

import numpy as np
from PIL import Image

from ..contract import document
from ..contract.document import Box, Layer, Product
from ..contract.errors import invalid
from ..contract.stages import Stage
from ..contract.texts import say
from ..engines.base import CutOut, Picture, Scene
from ..files import sha256_of
from ..imaging.composite import merged, place_product, product_box, product_reflection
from ..imaging.picture import alpha_over, coverage, from_image
from ..imaging.placement import words_side
from ..imaging.shadow import product_shadow
from ..media.decode import decode_picture
from . import checks
from .render import render
from .workspace import Workspace, crop, pad, padded_size

MAX_PRODUCT_SIDE_PX = 2048
_NOTICED_UPSCALE = 2.0


def make_background(workspace: Workspace) -> None:
    """Run step 1: writes `product cutout background shadow step1` and the matte.

    Raises:
        AdAgentError: the photo cannot be used; `check_failed` when the placed product differs from it.
        Cancelled: the job is to stop.
    """
    source = workspace.job.inputs.product
    if source is None:
        raise invalid(say("pipeline.no_product"), field="product_image")
    data = source.read_bytes()
    original = decode_picture(data, field="product_image")
    photo = original.copy()
    photo.thumbnail((MAX_PRODUCT_SIDE_PX, MAX_PRODUCT_SIDE_PX), Image.Resampling.LANCZOS)
    product = from_image(photo)

    report = workspace.events.open_stage(Stage.CUT_OUT)
    shrink = photo.width / original.width
    hint = workspace.request.product_box
    cut = workspace.engine.cut_out(product, product_box=hint and _scaled(hint, shrink), report=report)

    report = workspace.events.open_stage(Stage.BACKGROUND)
    scene = workspace.engine.paint_background(
        workspace.request,
        size=padded_size(workspace.canvas),
        product=cut,
        seed=workspace.seed_for(Stage.BACKGROUND),
        report=report,
    )
    workspace.pictures["background.png"] = crop(scene.image, workspace.canvas)

    report = workspace.events.open_stage(Stage.COMPOSITE)
    placed = _place(workspace, original, cut, scene)
    cutout = place_product(
        original, cut.rgba, source_box=placed.source_box, placed_box=placed.placed_box, canvas=workspace.canvas
    )
    shadow = product_shadow(
        coverage(cutout), product=placed.placed_box, light_x=scene.light_x, light_z=scene.light_z, cast=scene.cast
    )
    if scene.gloss > 0:
        shadow = merged(shadow, product_reflection(cutout, product=placed.placed_box, gloss=scene.gloss))
    error = checks.source_error(original, placed, cutout)
    workspace.pictures |= {"product.png": product, "cutout.png": cutout, "shadow.png": shadow}
    workspace.describe(
        scene=_described(workspace, scene),
        product=placed.model_copy(update={"source_error": error}),
        inputs={**workspace.document.inputs, "product_image": sha256_of(data)},
    )
    step1 = render(workspace.document, workspace.pictures)
    report.iteration(1, 1)

    if workspace.is_planned(Stage.REFINE):
        step1 = _refine(workspace, step1, cutout)
        workspace.describe(step1=workspace.document.whole("step1"))
    checks.require_identity(checks.product_core_identity(step1, cutout, workspace.promised_product))
    workspace.write({**workspace.pictures, "matte.png": _cropped(cut), "step1.png": step1})


def _described(workspace: Workspace, scene: Scene) -> document.Scene:
    told = {name: value for name, value in vars(scene).items() if name != "image"}
    drawn = {"background": workspace.document.whole("background"), "seed": workspace.seed_for(Stage.BACKGROUND)}
    return document.Scene.model_validate({**told, **drawn})


def _place(workspace: Workspace, original: Image.Image, cut: CutOut, scene: Scene) -> Product:
    source_box = _scaled(cut.box, original.width / cut.rgba.shape[1], (original.width, original.height))
    side = words_side(workspace.request)
    placed_box = product_box((source_box[2], source_box[3]), workspace.canvas, floor_y=scene.floor_y, side=side)
    if placed_box[2] > _NOTICED_UPSCALE * source_box[2]:
        workspace.events.notice(
            "product_upscaled",
            say(
                "pipeline.product_upscaled",
                width=source_box[2],
                height=source_box[3],
                placed_width=placed_box[2],
                placed_height=placed_box[3],
            ),
        )
    whole = workspace.document.whole
    return Product(
        source_box=source_box,
        placed_box=placed_box,
        route=cut.route,
        confidence=cut.confidence,
        side=None if side is None else str(side),
        cutout=whole("cutout"),
        shadow=whole("shadow"),
        matte=Layer(file="matte.png", box=cut.box),
    )


def _refine(workspace: Workspace, image: Picture, cutout: Picture) -> Picture:
    report = workspace.events.open_stage(Stage.REFINE)
    painted = workspace.engine.refine(pad(image), seed=workspace.seed_for(Stage.REFINE), report=report)
    refined = crop(painted, workspace.canvas)
    return alpha_over(refined, cutout) if workspace.request.product_lock else refined


def _cropped(cut: CutOut) -> Picture:
    x, y, width, height = cut.box
    return np.ascontiguousarray(cut.rgba[y : y + height, x : x + width])


def _scaled(box: Box, scale: float, limits: tuple[int, int] | None = None) -> Box:
    """`box` in a picture `scale` times as large, inside `limits` (width, height)."""
    left, top = round(box[0] * scale), round(box[1] * scale)
    right, bottom = round((box[0] + box[2]) * scale), round((box[1] + box[3]) * scale)
    if limits is not None:
        right, bottom = min(right, limits[0]), min(bottom, limits[1])
    return left, top, max(1, right - left), max(1, bottom - top)
