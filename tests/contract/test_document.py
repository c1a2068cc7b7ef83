"""A document as it is stored, and what version 0.1 stored instead."""

import json
import zipfile
from pathlib import Path
from typing import Any

import pytest
from pydantic import ValidationError

from ad_agent_mcp.contract.document import Document, Layer, Lettering, read_document

JOBS = Path(__file__).parents[1] / "data" / "jobs-0.1.zip"


def of_version_1() -> list[dict[str, Any]]:
    with zipfile.ZipFile(JOBS) as stored:
        return [json.loads(stored.read(name)) for name in stored.namelist() if name.endswith("layout.json")]


def upgraded(old: dict[str, Any]) -> Document:
    return read_document(json.dumps(old).encode())


def test_documents_of_0_1_with_and_without_words_are_at_hand():
    stored = of_version_1()
    assert {old["version"] for old in stored} == {1}
    assert {(old["text"] is None, old["letters"] is None) for old in stored} >= {(True, True), (False, False)}


@pytest.mark.parametrize("old", of_version_1(), ids=lambda old: old["job_id"])
def test_a_document_of_0_1_is_read_with_all_that_it_told(old: dict[str, Any]):
    document = upgraded(old)
    assert document.version == 2
    for name in ("job_id", "engine", "seed", "inputs"):
        assert getattr(document, name) == old[name]
    assert document.canvas == tuple(old["canvas"])
    assert {str(step): files for step, files in document.finished.items()} == old["finished"]
    assert json.loads(document.model_dump_json(by_alias=True))["checks"] == old["checks"]
    assert (document.scene.name, document.scene.light_x) == (old["scene"], old["light_x"])
    for name in ("route", "confidence", "source_error", "side"):
        assert getattr(document.product, name) == old["product"][name]
    assert [*document.product.source_box, *document.product.placed_box] == [
        *old["product"]["source_box"],
        *old["product"]["placed_box"],
    ]
    text, letters, lettering = old["text"], old["letters"], document.lettering
    if text is None:
        assert lettering is None
        return
    assert (lettering.words.content, lettering.words.font_name) == (text["content"], text["font_name"])
    assert [line.model_dump(mode="json") for line in lettering.words.lines] == text["lines"]
    assert (lettering.words.font_size_px, lettering.sha256) == (text["font_size_px"], text["sha256"])
    assert (lettering.mode, lettering.position, lettering.size) == (text["mode"], text["position"], (*text["size"],))
    if letters is None:
        assert lettering.box is None
    else:
        assert (lettering.box, lettering.scale) == ((*letters["box"],), letters["scale"])
        assert (lettering.z < 0) == letters["is_behind"]


@pytest.mark.parametrize("old", of_version_1(), ids=lambda old: old["job_id"])
def test_only_an_ad_of_0_1_without_words_can_be_rendered(old: dict[str, Any]):
    document = upgraded(old)
    assert document.is_drawn == (old["text"] is None)
    assert document.step1 == Layer(file="step1.png", box=(0, 0, *old["canvas"]))


@pytest.mark.parametrize("old", of_version_1(), ids=lambda old: old["job_id"])
def test_an_upgraded_document_is_stored_as_one_of_today(old: dict[str, Any]):
    document = upgraded(old)
    assert Document.model_validate_json(document.model_dump_json(by_alias=True)) == document


def test_a_product_that_0_1_found_by_guess_is_still_a_guess():
    old = next(old for old in of_version_1() if old["letters"])
    document = upgraded({**old, "product": None, "scene": None, "light_x": None})
    assert (document.product, document.scene) == (None, None)
    assert document.cutout == Layer(file="cutout.png", box=(0, 0, *old["canvas"]))


def test_foreign_letters_of_0_1_have_a_place_and_no_words():
    old = next(old for old in of_version_1() if old["letters"])
    lettering = upgraded({**old, "text": None}).lettering
    assert lettering.words is None
    assert lettering.box == (*old["letters"]["box"],)


@pytest.mark.parametrize(
    "damage",
    [
        {"version": 3}, {"version": None}, {"canvas": [1]}, {"product": {}}, {"product": [1]}, {"text": {"content": 1}},
        {"letters": {"box": 5}}, {"letters": "no"}, {"light_x": "left"}, {"more": 1}, {"finished": []},
    ],
    ids=str,
)  # fmt: skip
def test_a_damaged_document_is_refused(damage: dict[str, Any]):
    with pytest.raises(ValidationError):
        upgraded({**of_version_1()[0], **damage})


@pytest.mark.parametrize(
    "file", ["../../secret.png", "/etc/passwd", "a/b.png", "..png", "step1.jpg", "Step1.png", "", "a.png\n"]
)
def test_a_layer_lies_in_its_jobs_folder(file: str):
    with pytest.raises(ValidationError):
        Layer(file=file, box=(0, 0, 1, 1))


def test_an_object_of_an_unknown_kind_is_refused():
    letters = Lettering(size=(1, 1)).model_dump()
    blank = {"version": 2, "canvas": [8, 8], "engine": "draft", "seed": 1, "inputs": {}}
    assert upgraded({**blank, "objects": [letters]}).lettering == Lettering(size=(1, 1))
    with pytest.raises(ValidationError):
        upgraded({**blank, "objects": [{**letters, "kind": "hologram"}]})
