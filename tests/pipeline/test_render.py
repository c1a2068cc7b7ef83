"""An ad is the rendering of its document: layers in their order, and stored jobs made again to the byte."""

import itertools
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from ad_agent_mcp.contract.document import Document, Layer, Lettering, Product, Scene
from ad_agent_mcp.contract.messages import Inputs
from ad_agent_mcp.contract.stages import Stage
from ad_agent_mcp.engines.draft.engine import DraftEngine
from ad_agent_mcp.imaging.composite import merged, place_product, product_reflection
from ad_agent_mcp.imaging.picture import coverage, on_canvas
from ad_agent_mcp.imaging.shadow import product_shadow
from ad_agent_mcp.pipeline import workspace
from ad_agent_mcp.pipeline.render import render, stack
from ad_agent_mcp.pipeline.verify import rendering_trouble

from ..imaging.products import bottle, file_bytes, photo
from .stored import document_of, rendered_again
from .test_run_job import Repainting, Washing, core, make, pixels

CANVAS = (8, 6)
RED, GREEN, BLUE, WHITE = (255, 0, 0), (0, 255, 0), (0, 0, 255), (255, 255, 255)
WHOLE = (0, 0, *CANVAS)


class Sheet:
    """A document of single-coloured layers, put together piece by piece."""

    def __init__(self) -> None:
        self.pictures: dict[str, np.ndarray] = {}

    def layer(self, name: str, colour: tuple[int, int, int], box=WHOLE, alpha: int = 255) -> Layer:
        self.pictures[f"{name}.png"] = np.full((box[3], box[2], 4), (*colour, alpha), np.uint8)
        return Layer(file=f"{name}.png", box=box)

    def letters(self, name: str, colour: tuple[int, int, int], box=WHOLE, **fields: Any) -> Lettering:
        return Lettering(size=(1, 1), layers=(self.layer(name, colour, box),), **fields)

    def scene(self, colour: tuple[int, int, int]) -> Scene:
        return Scene(name="flat", light_x=0, background=self.layer("background", colour))

    def product(self, colour: tuple[int, int, int], box=(2, 2, 4, 3)) -> Product:
        cutout, shadow = self.layer("cutout", colour, box), self.layer("shadow", (0, 0, 0), (0, 4, 8, 2), alpha=127)
        return Product(source_box=box, placed_box=box, route="alpha", confidence=1, cutout=cutout, shadow=shadow)

    def render(self, **parts: Any) -> np.ndarray:
        return render(Document(canvas=CANVAS, engine="draft", seed=0, inputs={}, **parts), self.pictures)


@pytest.fixture
def sheet() -> Sheet:
    return Sheet()


def at(picture: np.ndarray, x: int, y: int) -> tuple[int, ...]:
    return tuple(picture[y, x].tolist())


def test_a_product_stands_on_its_shadow_and_both_on_the_scene(sheet: Sheet):
    picture = sheet.render(scene=sheet.scene(WHITE), product=sheet.product(RED))
    assert at(picture, 0, 0) == WHITE
    assert at(picture, 0, 5) == (128, 128, 128)
    assert at(picture, 2, 4) == RED


def test_a_picture_of_step_1_hides_the_scene_and_the_product(sheet: Sheet):
    step1 = sheet.layer("step1", GREEN)
    picture = sheet.render(scene=sheet.scene(WHITE), product=sheet.product(RED), step1=step1)
    assert (picture == GREEN).all()


def test_what_lies_under_objects_is_over_the_picture_and_below_each_of_them(sheet: Sheet):
    under = sheet.layer("under-1", BLUE, (0, 0, 8, 2)), sheet.layer("under-2", GREEN, (1, 0, 7, 2))
    objects = sheet.letters("one", RED, (2, 0, 2, 1), z=-1), sheet.letters("two", RED, (5, 0, 2, 1))
    picture = sheet.render(step1=sheet.layer("step1", WHITE), under=under, objects=objects)
    assert [at(picture, x, 0) for x in (0, 1, 2, 5)] == [BLUE, GREEN, RED, RED]
    assert at(picture, 0, 3) == WHITE


@pytest.mark.parametrize("order", list(itertools.permutations(range(4))))
def test_objects_lie_over_each_other_by_their_height_whatever_their_order(sheet: Sheet, order: tuple[int, ...]):
    heights = {"lowest": (BLUE, -2), "low": (RED, -1), "high": (GREEN, 1), "highest": (WHITE, 2)}
    objects = [
        sheet.letters(name, colour, (index, 0, 8 - index, 1), z=z)
        for index, (name, (colour, z)) in enumerate(heights.items())
    ]
    picture = sheet.render(step1=sheet.layer("step1", (9, 9, 9)), objects=tuple(objects[index] for index in order))
    assert [at(picture, x, 0) for x in range(4)] == [BLUE, RED, GREEN, WHITE]


@pytest.mark.parametrize("height", [0, 1])
def test_a_product_comes_over_what_is_behind_it_and_under_what_is_before_it(sheet: Sheet, height: int):
    objects = sheet.letters("before", BLUE, (0, 2, 8, 1), z=height), sheet.letters("behind", GREEN, (0, 2, 8, 2), z=-1)
    picture = sheet.render(scene=sheet.scene(WHITE), product=sheet.product(RED), objects=objects)
    assert [at(picture, x, 2) for x in (0, 3)] == [BLUE, BLUE]
    assert [at(picture, x, 3) for x in (0, 3, 7)] == [GREEN, RED, GREEN]


def test_a_soft_product_is_laid_over_the_picture_again_only_for_what_is_behind_it(sheet: Sheet):
    found = sheet.layer("cutout", RED, (2, 2, 4, 3), alpha=100)
    step1, far = sheet.layer("step1", WHITE), (0, 0, 1, 1)
    assert at(sheet.render(step1=step1, found=found, objects=(sheet.letters("l", BLUE, far, z=1),)), 3, 3) == WHITE
    shown = at(sheet.render(step1=step1, found=found, objects=(sheet.letters("l", BLUE, far, z=-1),)), 3, 3)
    assert shown == (255, 155, 155)


def test_an_object_at_the_products_own_height_is_laid_over_it_once(sheet: Sheet):
    soft = Lettering(size=(1, 1), z=0, layers=(sheet.layer("letters", RED, (0, 0, 8, 1), alpha=100),))
    picture = sheet.render(step1=sheet.layer("step1", WHITE), objects=(soft,))
    assert at(picture, 0, 0) == (255, 155, 155)


def test_an_objects_later_layers_lie_over_its_earlier_ones(sheet: Sheet):
    layers = sheet.layer("letters", RED, (1, 1, 4, 2)), sheet.layer("blend", BLUE, (2, 1, 1, 1))
    letters = Lettering(size=(1, 1), layers=layers)
    picture = sheet.render(step1=sheet.layer("step1", WHITE), objects=(letters,))
    assert [at(picture, x, 1) for x in range(6)] == [WHITE, RED, BLUE, RED, RED, WHITE]
    assert at(picture, 2, 2) == RED


def test_a_layer_fills_its_box_and_nothing_else(sheet: Sheet):
    picture = sheet.render(step1=sheet.layer("step1", WHITE), under=(sheet.layer("under-1", RED, (3, 1, 4, 2)),))
    rows, columns = np.nonzero((picture != WHITE).any(axis=2))
    assert (columns.min(), columns.max(), rows.min(), rows.max()) == (3, 6, 1, 2)


def test_rendering_changes_none_of_its_layers(sheet: Sheet):
    parts = {"scene": sheet.scene(WHITE), "product": sheet.product(RED), "objects": (sheet.letters("l", BLUE, z=-1),)}
    before = {name: picture.copy() for name, picture in sheet.pictures.items()}
    sheet.render(**parts)
    assert all((sheet.pictures[name] == picture).all() for name, picture in before.items())


@pytest.mark.parametrize("box", [(0, 0, 3, 2), (7, 0, 2, 2), (0, 5, 2, 2), (-1, 0, 2, 2)])
def test_a_layer_of_another_size_than_its_place_is_refused(sheet: Sheet, box):
    under = sheet.layer("under-1", RED, (0, 0, 2, 2)).model_copy(update={"box": box})
    with pytest.raises(ValueError, match=r"under-1\.png"):
        sheet.render(step1=sheet.layer("step1", WHITE), under=(under,))


def test_a_ground_that_leaves_part_of_the_canvas_open_is_refused(sheet: Sheet):
    with pytest.raises(ValueError, match=r"step1\.png"):
        sheet.render(step1=sheet.layer("step1", WHITE, (0, 0, 8, 5)))
    with pytest.raises(ValueError, match="nothing"):
        sheet.render(scene=sheet.scene(WHITE))


# whole jobs

NEITHER = frozenset({Stage.REFINE, Stage.BLEND})
PALE = {"bg_prompt": "bright white studio", "text_model_prompt": "silver chrome", "text_content": "SUMMER\nSALE"}


def resumed(folder: Path, *cuts: tuple[int, ...], **request: Any) -> None:
    source = folder / "given.png"
    folder.mkdir()
    source.write_bytes(file_bytes(photo(bottle(400), "gradient", (420, 500))))
    for steps in cuts:
        make(folder, steps=steps, inputs=Inputs(product=source, has_step1_layers=1 not in steps), **request)


def given_step1(folder: Path, *, steps: tuple[int, ...] = (2, 3), **request: Any) -> None:
    folder.mkdir()
    given = folder / "edited.png"
    given.write_bytes(file_bytes(photo(bottle(300), "gradient", (500, 420))))
    make(folder, steps=steps, inputs=Inputs(step1=given), **request)


def given_letters(folder: Path) -> None:
    letters = Image.new("RGBA", (200, 60), (0, 0, 0, 0))
    letters.paste((20, 20, 60, 255), (10, 10, 190, 50))
    make(folder, steps=(1,))
    (folder / "letters-given.png").write_bytes(file_bytes(letters))
    make(folder, steps=(3,), inputs=Inputs(step2=folder / "letters-given.png", has_step1_layers=True))


def taken_over(folder: Path, **request: Any) -> None:
    """Another job's step 1 goes on here with other words."""
    make(folder.with_name("earlier"), **request)
    folder.mkdir()
    for name in ("product", "cutout", "background", "shadow", "step1", "matte"):
        shutil.copy(folder.with_name("earlier") / f"{name}.png", folder)
    shutil.copy(folder.with_name("earlier") / "layout.json", folder)
    words = {"text_content": "Later"}
    make(folder, steps=(2, 3), inputs=Inputs(has_step1_layers=True), **{**request, **words})


Making = Callable[[Path], object]
JOBS: dict[str, Making] = {
    "overlay": lambda folder: make(folder),
    "blend": lambda folder: make(folder, composition_mode="blend"),
    "behind": lambda folder: make(folder, composition_mode="behind", text_content="SUMMER"),
    "with a scrim": lambda folder: make(folder, **PALE),
    "behind, with a scrim": lambda folder: make(folder, composition_mode="behind", **{**PALE, "text_content": "SALE"}),
    "repainted": lambda folder: make(folder, engine=Repainting()),
    "repainted behind": lambda folder: make(
        folder, engine=Repainting(), composition_mode="behind", text_content="SUMMER"
    ),
    "blended too much": lambda folder: make(folder, engine=Washing()),
    "unlocked": lambda folder: make(folder, engine=Repainting(), product_lock=False),
    "unlocked behind": lambda folder: make(
        folder, engine=Repainting(), product_lock=False, composition_mode="behind", text_content="SUMMER"
    ),
    "not refined": lambda folder: make(folder, skip=frozenset({Stage.REFINE})),
    "not blended": lambda folder: make(folder, skip=frozenset({Stage.BLEND})),
    "neither, behind": lambda folder: make(folder, skip=NEITHER, composition_mode="behind", text_content="SUMMER"),
    "no words": lambda folder: make(folder, steps=(1,), text_content=None),
    "no words, not refined": lambda folder: make(folder, steps=(1,), text_content=None, skip=NEITHER),
    "resumed": lambda folder: resumed(folder, (1,), (2,), (3,)),
    "resumed at step 2": lambda folder: resumed(folder, (1,), (2, 3), skip=NEITHER),
    "resumed behind at step 3": lambda folder: resumed(
        folder, (1, 2), (3,), skip=NEITHER, composition_mode="behind", text_content="SUMMER"
    ),
    "step 1 given": lambda folder: given_step1(folder),
    "step 1 given, behind": lambda folder: given_step1(
        folder, composition_mode="behind", text_content="SUMMER", width=500, height=420
    ),
    "step 1 given, no words": lambda folder: given_step1(folder, steps=(), text_content=None),
    "letters given": lambda folder: given_letters(folder),
    "step 1 taken over": lambda folder: taken_over(folder),
    "step 1 taken over, not refined": lambda folder: taken_over(folder, skip=NEITHER),
}


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> Callable[[str], Path]:
    """The folders of `JOBS`, each made once."""
    root, folders = tmp_path_factory.mktemp("made"), dict[str, Path]()

    def folder_of(name: str) -> Path:
        if name not in folders:
            (root / str(len(folders))).mkdir()
            folders[name] = root / str(len(folders)) / "job"
            JOBS[name](folders[name])
        return folders[name]

    return folder_of


@pytest.mark.parametrize("name", JOBS)
def test_a_stored_ad_is_rendered_again_to_the_byte(made: Callable[[str], Path], name: str):
    folder = made(name)
    assert rendered_again(folder) == (folder / "final.png").read_bytes()
    assert rendering_trouble(folder) is None


@pytest.mark.parametrize(("steps", "skip"), [((1,), frozenset()), ((1,), NEITHER), ((1, 2), frozenset())])
def test_a_paused_job_is_rendered_as_its_step_1(tmp_path: Path, steps: tuple[int, ...], skip: frozenset[Stage]):
    make(tmp_path, steps=steps, skip=skip)
    assert rendered_again(tmp_path) == (tmp_path / "step1.png").read_bytes()


def test_words_that_go_behind_a_product_are_below_it_and_the_others_are_not(made: Callable[[str], Path]):
    assert document_of(made("behind")).lettering.z < 0 < document_of(made("overlay")).lettering.z
    assert "cutout.png" in [layer.file for layer in stack(document_of(made("behind")))]


def test_words_go_behind_a_product_that_was_found_by_guess_too(made: Callable[[str], Path]):
    folder = made("step 1 given, behind")
    document = document_of(folder)
    assert document.product is None
    assert document.lettering.z < 0
    assert document.cutout in stack(document)
    inside = core(folder)
    assert inside.any()
    assert (pixels(folder / "final.png")[inside] == pixels(folder / "cutout.png", "RGBA")[inside][:, :3]).all()


def test_layers_are_as_large_as_what_they_show(made: Callable[[str], Path]):
    for name in ("overlay", "blend", "behind, with a scrim"):
        document = document_of(made(name))
        for layer in (*document.under, *document.lettering.layers):
            alpha = pixels(made(name) / layer.file, "RGBA")[..., 3]
            assert alpha.shape == (layer.box[3], layer.box[2])
            assert all(edge.any() for edge in (alpha[0], alpha[-1], alpha[:, 0], alpha[:, -1]))


class Keeping(DraftEngine):
    """Remembers what it painted of words and picture."""

    def blend_text(self, image, letters, **kwargs):
        self.painted = super().blend_text(image, letters, **kwargs)
        return self.painted


@pytest.mark.parametrize("request_", [{"composition_mode": "blend"}, PALE, {"composition_mode": "blend", **PALE}])
def test_the_ad_is_what_the_engine_painted_over_the_scrim_and_the_shadow(tmp_path: Path, request_: dict[str, Any]):
    engine = Keeping()
    make(tmp_path, engine=engine, **request_)
    assert (pixels(tmp_path / "final.png") == engine.painted).all()


def test_the_layer_of_a_blend_is_clear_where_it_changes_nothing(made: Callable[[str], Path]):
    final, document = pixels(made("blend") / "final.png"), document_of(made("blend"))
    layers = {layer.file: pixels(made("blend") / layer.file, "RGBA") for layer in stack(document)}
    letters = document.lettering
    unblended = letters.model_copy(update={"layers": letters.layers[:1]})
    plain = render(document.with_words(unblended, document.under), layers)
    patch = on_canvas(layers["blend.png"], letters.layers[1].box[:2], document.canvas)
    assert ((final != plain).any(axis=2) == (patch[..., 3] == 255)).all()
    assert set(np.unique(patch[..., 3])) == {0, 255}


def test_a_document_keeps_what_places_its_product_again(made: Callable[[str], Path]):
    folder = made("not refined")
    document = document_of(folder)
    product, scene = document.product, document.scene
    original = Image.open(folder / "given.png")
    matte = on_canvas(pixels(folder / "matte.png", "RGBA"), product.matte.box[:2], original.size)
    boxes = {"source_box": product.source_box, "placed_box": product.placed_box}
    cutout = place_product(original, matte, canvas=document.canvas, **boxes)
    assert (cutout == pixels(folder / "cutout.png", "RGBA")).all()
    light = {"light_x": scene.light_x, "light_z": scene.light_z, "cast": scene.cast}
    shadow = product_shadow(coverage(cutout), product=product.placed_box, **light)
    if scene.gloss:
        shadow = merged(shadow, product_reflection(cutout, product=product.placed_box, gloss=scene.gloss))
    assert (shadow == pixels(folder / "shadow.png", "RGBA")).all()
    assert len(scene.palette) == 3


def test_a_document_names_no_layer_that_is_not_on_disk_yet(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    write, described = workspace.write_atomically, list[int]()

    def look(path: Path, data: bytes) -> None:
        if path.name == "layout.json":
            document = Document.model_validate_json(data)
            named = [*stack(document), *filter(None, [document.cutout, document.product and document.product.matte])]
            assert all((path.parent / layer.file).is_file() for layer in named)
            described.append(len(named))
        write(path, data)

    monkeypatch.setattr(workspace, "write_atomically", look)
    make(tmp_path, composition_mode="blend")
    assert len(described) == 3
    assert described[0] == described[1] < described[2]


# damage


def damage(folder: Path, file: str) -> None:
    """Invert the colours of a layer."""
    picture = np.array(Image.open(folder / file))
    picture[..., :3] = 255 - picture[..., :3]
    Image.fromarray(picture).save(folder / file)


DAMAGED = [
    *(("with a scrim", file) for file in ("step1.png", "under-1.png", "under-2.png", "letters.png")),
    *(("neither, behind", file) for file in ("background.png", "shadow.png", "cutout.png", "letters.png")),
    ("blend", "blend.png"),
    ("behind", "cutout.png"),
]


@pytest.mark.parametrize(("name", "file"), DAMAGED)
def test_a_changed_layer_is_told(made: Callable[[str], Path], tmp_path: Path, name: str, file: str):
    folder = Path(shutil.copytree(made(name), tmp_path / "job"))
    damage(folder, file)
    assert "pixels differ" in str(rendering_trouble(folder))


@pytest.mark.parametrize("content", [None, b"", b"no picture"])
def test_a_layer_that_cannot_be_read_is_named(made: Callable[[str], Path], tmp_path: Path, content: bytes | None):
    folder = Path(shutil.copytree(made("overlay"), tmp_path / "job"))
    if content is None:
        (folder / "letters.png").unlink()
    else:
        (folder / "letters.png").write_bytes(content)
    assert "letters.png is missing or damaged" in str(rendering_trouble(folder))


def test_a_layer_cut_short_is_named(made: Callable[[str], Path], tmp_path: Path):
    folder = Path(shutil.copytree(made("overlay"), tmp_path / "job"))
    (folder / "letters.png").write_bytes((folder / "letters.png").read_bytes()[:400])
    assert "letters.png is missing or damaged" in str(rendering_trouble(folder))


def test_a_changed_ad_is_told_with_where(made: Callable[[str], Path], tmp_path: Path):
    folder = Path(shutil.copytree(made("overlay"), tmp_path / "job"))
    picture = pixels(folder / "final.png").copy()
    picture[30:32, 40:43] ^= 1
    Image.fromarray(picture).save(folder / "final.png")
    assert "6 pixels differ, in the box (40, 30, 3, 2)" in str(rendering_trouble(folder))
    Image.fromarray(picture[:-1]).save(folder / "final.png")
    assert "size" in str(rendering_trouble(folder))
