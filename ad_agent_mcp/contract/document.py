"""`layout.json`: the ad as a document, of which every picture is a rendering.

Boxes are `(x, y, width, height)` in pixels of the canvas unless said otherwise. Pictures lie in the job's folder, and
are named by their files; what is drawn over what is `pipeline.render`'s affair.
"""

from collections.abc import Iterable
from typing import Annotated, Any, Literal

from pydantic import Field, TypeAdapter

from .record import Record
from .schemas import Check

Box = tuple[int, int, int, int]


class Layer(Record):
    """A picture of the job, RGB or RGBA, and the `box` of the canvas that it fills; around it there is nothing."""

    file: str = Field(pattern=r"^[a-z0-9-]+\.png$")
    box: Box


class Scene(Record):
    """What a painted background shows, so that it can be told again: to a painter, or for another product's shadow.

    Attributes:
        name: what was painted, as reported to the caller.
        background: the empty scene.
        seed: it was painted with.
        palette: its colours as `#rrggbb`: in the light, in the shade, accent; empty where a model chose them.
        light_x: where the key light comes from, -1 (left) to 1 (right).
        light_z: whether from behind the product (-1) or from before it (1).
        floor_y: height of the floor line, as a share of the canvas.
        cast: 0-1, strength of a product's shadow along the floor.
        gloss: 0-1, strength of its reflection in the floor.
    """

    name: str
    background: Layer
    seed: int | None = None
    palette: tuple[str, ...] = ()
    light_x: float
    light_z: float | None = None
    floor_y: float | None = None
    cast: float | None = None
    gloss: float | None = None


class Product(Record):
    """The product of the caller's photo, placed on the canvas. Its shadow and reflection follow from the scene.

    Attributes:
        source_box: the product in the decoded original (upright).
        placed_box: where it stands.
        route: how it was cut out; `confidence` (0-1) says how surely.
        source_error: largest difference, in levels of 255, of the placed core from a plain resize of the original.
        side: where words were to stand when it was placed.
        cutout: the product on the canvas.
        shadow: what lies under it.
        matte: the cut product as it was in its photo; its box is in pixels of the `product` layer.
    """

    source_box: Box
    placed_box: Box
    route: Literal["alpha", "plain", "clutter", "model"]
    confidence: float
    source_error: float | None = None
    side: str | None = None
    cutout: Layer
    shadow: Layer
    matte: Layer | None = None


class TextLine(Record):
    """One line of words and its ink box within the picture that the object was painted as."""

    text: str
    box: Box


class Words(Record):
    """Words as they were set."""

    content: str
    font_name: str
    font_size_px: int
    lines: tuple[TextLine, ...]


class AdObject(Record):
    """What lies over the scene. A kind of object is a subclass with its `kind`, and a member of `Object`.

    Attributes:
        role: what it is for in the ad.
        words: what it says; None where nobody knows.
        colour: the middle one of its own, as `#rrggbb`; None as long as it is not placed.
        box: its ink; None as long as it is not placed.
        z: its height; objects below `PRODUCT_Z` lie behind the product.
        layers: its pictures, the lowest first.
    """

    role: str
    words: Words | None = None
    colour: str | None = None
    box: Box | None = None
    z: int = 1
    layers: tuple[Layer, ...] = ()


class Lettering(AdObject):
    """Words in letters that were painted as one picture, `step2`.

    Attributes:
        size: (width, height) of that picture.
        sha256: its file's, by which another one is told apart.
        scale: at which it lies on the canvas.
        mode: how it was laid over the picture.
        position: where it was wanted.
    """

    kind: Literal["lettering"] = "lettering"
    role: str = "headline"
    size: tuple[int, int]
    sha256: str | None = None
    scale: float = 1.0
    mode: str | None = None
    position: str | None = None


Object = Lettering
"""With a second kind: `Annotated[Lettering | ..., Field(discriminator="kind")]`."""
PRODUCT_Z = 0


class _Job(Record):
    """What every version tells of the job.

    Attributes:
        job_id: whose steps are `finished`: they map to their layers' SHA-256.
        checks: what was measured on the finished ad.
        canvas: (width, height).
        engine: what painted.
        seed: from which each stage has its own.
        inputs: SHA-256 of each input picture by its field name.
    """

    job_id: str = ""
    finished: dict[int, dict[str, str]] = Field(default_factory=dict[int, dict[str, str]])
    checks: tuple[Check, ...] = ()
    canvas: tuple[int, int]
    engine: str
    seed: int
    inputs: dict[str, str]

    def whole(self, name: str) -> Layer:
        """The layer `name` as one that fills the canvas."""
        return Layer(file=f"{name}.png", box=(0, 0, *self.canvas))


class Document(_Job):
    """One job's ad. It is written after a step's layers, so what it calls finished is on disk.

    Attributes:
        safe_area: the part of the canvas that no platform covers.
        placement: id of the format that it was made for, if it was for one.
        scene: None where step 1's picture was given.
        product: None where it cannot be known.
        found: the cut-out of a product that was found by guess in a picture that was given.
        step1: step 1's picture where it is more than scene, shadow and product: refined, or given. It hides them.
        under: what lies on it for the objects' sake: scrims, rims, shadows; the lowest first.
        objects: the words and whatever else lies over it.
    """

    version: Literal[2] = 2
    safe_area: Box | None = None
    placement: str | None = None
    scene: Scene | None = None
    product: Product | None = None
    found: Layer | None = None
    step1: Layer | None = None
    under: tuple[Layer, ...] = ()
    objects: tuple[Object, ...] = ()

    @property
    def cutout(self) -> Layer | None:
        """The product as it stands on the canvas."""
        return self.found if self.product is None else self.product.cutout

    @property
    def lettering(self) -> Lettering | None:
        """The words."""
        return next((item for item in self.objects if item.kind == "lettering"), None)

    @property
    def is_drawn(self) -> bool:
        """Whether every object has its layers, so that the ad can be rendered; those of version 1 have none."""
        return all(item.layers for item in self.objects)

    def with_words(self, lettering: Lettering | None, under: Iterable[Layer] = ()) -> "Document":
        """The same ad with this lettering, and what lies under it, alone."""
        return self.model_copy(update={"objects": () if lettering is None else (lettering,), "under": tuple(under)})


class _Version1(_Job):
    """What 0.1 wrote: no scene to tell again, no matte, and letters without their layers."""

    version: Literal[1]
    scene: str | None = None
    light_x: float | None = None
    product: dict[str, Any] | None = None
    text: dict[str, Any] | None = None
    letters: dict[str, Any] | None = None

    def upgraded(self) -> Document:
        """The same ad as a document of today.

        Raises:
            ValidationError: a part of it is damaged.
        """
        cutout, lettering = self.whole("cutout"), self._lettering()
        ad: dict[str, Any] = {name: getattr(self, name) for name in _Job.model_fields}
        ad |= {"step1": self.whole("step1"), "objects": () if lettering is None else (lettering,)}
        if self.scene is not None:
            background = self.whole("background")
            ad["scene"] = Scene(name=self.scene, background=background, light_x=self.light_x or 0.0)
        if self.product is not None:
            ad["product"] = {**self.product, "cutout": cutout, "shadow": self.whole("shadow")}
        elif lettering is not None:
            ad["found"] = cutout
        return Document.model_validate(ad)

    def _lettering(self) -> Lettering | None:
        if not self.text and not self.letters:
            return None
        text, letters = self.text or {}, self.letters or {}
        told: dict[str, Any] = {name: text.get(name) for name in ("sha256", "mode", "position")}
        told |= {name: letters.get(name) for name in ("box", "scale") if self.letters}
        told["words"] = {name: text.get(name) for name in Words.model_fields} if self.text else None
        told["z"] = PRODUCT_Z - 1 if letters.get("is_behind") else PRODUCT_Z + 1
        return Lettering.model_validate({**told, "size": text.get("size", (0, 0))})


_STORED = TypeAdapter[Document | _Version1](Annotated[Document | _Version1, Field(discriminator="version")])


def read_document(data: bytes) -> Document:
    """The document in a `layout.json`, whichever version wrote it.

    Raises:
        ValidationError: it is damaged.
    """
    stored = _STORED.validate_json(data)
    return stored.upgraded() if isinstance(stored, _Version1) else stored
