"""Finished jobs, broken on purpose and measured again."""

import shutil
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from ad_agent_mcp.commands import cli
from ad_agent_mcp.contract.ad import CompositionMode
from ad_agent_mcp.contract.document import read_document
from ad_agent_mcp.contract.messages import Inputs
from ad_agent_mcp.imaging.picture import core_of
from ad_agent_mcp.media.fonts import FontCatalog
from ad_agent_mcp.pipeline import checks
from ad_agent_mcp.pipeline.verify import rendering_trouble, verify_job

from ..imaging.products import bottle, file_bytes, photo
from .stored import document_of, jobs_of_version_1, rendered_again
from .test_run_job import make

WORDS = "봄을 담은 세럼"


def job(folder: Path, **request: object) -> Path:
    """A finished job's folder as the server keeps it."""
    (folder / "inputs").mkdir(parents=True)
    source = folder / "inputs" / "product_image"
    source.write_bytes(file_bytes(photo(bottle(400), "gradient", (420, 500))))
    make(folder, inputs=Inputs(product=source), **{"text_content": WORDS, **request})
    return folder


@pytest.fixture(scope="module")
def finished(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return job(tmp_path_factory.mktemp("finished") / "job")


@pytest.fixture
def copy(finished: Path, tmp_path: Path) -> Path:
    return Path(shutil.copytree(finished, tmp_path / "job"))


def failed(folder: Path) -> list[str]:
    return [check.name for check in verify_job(folder, FontCatalog()) if check.passed is False]


def change(path: Path, where: object, value: object) -> None:
    pixels = np.array(Image.open(path))
    pixels[where] = value
    Image.fromarray(pixels).save(path)


def glyph(folder: Path, index: int) -> tuple[slice, slice]:
    """The pixels of one syllable on the canvas, as the words are about equally wide."""
    x, y, width, height = read_document((folder / "layout.json").read_bytes()).lettering.box
    cell = width / len(WORDS)
    return np.s_[y : y + height, round(x + index * cell) : round(x + (index + 1) * cell)]


@pytest.mark.parametrize("mode", list(CompositionMode))
def test_a_finished_job_measures_the_same_again(tmp_path: Path, mode: CompositionMode):
    folder = job(tmp_path / "job", composition_mode=mode)
    results = verify_job(folder, FontCatalog())
    assert results == read_document((folder / "layout.json").read_bytes()).checks
    assert all(check.passed for check in results)


def test_letters_too_small_to_read_are_found_again_with_the_same_call(tmp_path: Path):
    folder = job(tmp_path / "job", text_content="\n".join("가나다라마바사아자차" * 5))
    assert "text_size" in failed(folder)
    assert verify_job(folder, FontCatalog()) == read_document((folder / "layout.json").read_bytes()).checks


@pytest.mark.parametrize("words", [WORDS, "SALE", "여름"])
def test_a_check_is_judged_by_the_value_that_it_shows(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, words: str):
    folder = job(tmp_path / "job", text_content=words)
    shown = {check.name: check.value for check in verify_job(folder, FontCatalog())}
    monkeypatch.setattr(checks, "MIN_RATIO", shown["text_contrast"])
    monkeypatch.setattr(checks, "GLYPH_LIMIT", shown["glyph_overlap"])
    assert failed(folder) == []


def test_one_changed_pixel_of_the_product_is_found(copy: Path):
    inside = core_of(np.array(Image.open(copy / "cutout.png"))[..., 3])
    row, column = np.argwhere(inside)[1000]
    change(copy / "final.png", (row, column), (255, 0, 255))
    assert failed(copy) == ["product_core_identity"]


def test_a_product_that_is_not_the_photo_is_found(copy: Path):
    inside = core_of(np.array(Image.open(copy / "cutout.png"))[..., 3])
    row, column = np.argwhere(inside)[1000]
    for name in ("cutout.png", "final.png"):
        pixels = np.array(Image.open(copy / name))
        pixels[row, column, :3] ^= 4
        Image.fromarray(pixels).save(copy / name)
    assert failed(copy) == ["product_core_identity"]


@pytest.mark.parametrize("words", ["봄을 닮은 세럼", "봄을 담은 새럼", "봄을 담은 세럽", "몸을 담은 세럼"])
def test_one_swapped_syllable_is_found(copy: Path, tmp_path: Path, words: str):
    other = job(tmp_path / "other", text_content=words)
    shutil.copy(other / "step2.png", copy / "step2.png")
    assert "glyph_overlap" in failed(copy)


def test_a_glyph_that_vanished_from_the_picture_is_found(copy: Path):
    where = glyph(copy, 3)
    change(copy / "final.png", where, np.array(Image.open(copy / "step1.png").convert("RGB"))[where])
    assert failed(copy) == ["text_contrast"]


def test_a_glyph_that_the_product_covers_is_found(tmp_path: Path):
    folder = job(tmp_path / "job", composition_mode="behind")
    rows, columns = glyph(folder, 3)
    change(folder / "cutout.png", (rows, columns, 3), 255)
    assert "text_product_overlap" in failed(folder)


def test_words_as_light_as_their_ground_are_found(copy: Path):
    """The letters are repainted in the ground's own colour, a little darker."""
    ground = np.array(Image.open(copy / "step1.png").convert("RGB"))
    changed = (np.array(Image.open(copy / "final.png")) != ground).any(axis=2)
    change(copy / "final.png", changed, (ground[changed] * 0.85).astype(np.uint8))
    assert "text_contrast" in failed(copy)


def test_words_outside_the_margins_are_found(copy: Path):
    document = read_document((copy / "layout.json").read_bytes())
    x, _, width, height = document.lettering.box
    moved = document.lettering.model_copy(update={"box": (x, 2, width, height)})
    (copy / "layout.json").write_text(document.model_copy(update={"objects": (moved,)}).model_dump_json(by_alias=True))
    assert "safe_margins" in failed(copy)


def test_a_failed_check_names_the_call_that_helps(copy: Path):
    where = glyph(copy, 3)
    change(copy / "step2.png", np.s_[:, :40], 0)
    change(copy / "final.png", where, 0)
    fixes = {check.name: check.fix for check in verify_job(copy, FontCatalog()) if check.passed is False}
    assert fixes["glyph_overlap"].tool == "generate"
    assert fixes["glyph_overlap"].arguments == {"resume_job_id": "job-1", "start_step": 2}


def test_the_command_says_when_an_ad_that_passes_its_checks_is_not_what_its_layers_show(
    copy: Path, capsys: pytest.CaptureFixture[str]
):
    change(copy / "final.png", np.s_[2, 2], 0)
    assert failed(copy) == []
    assert cli.run(["verify", str(copy)]) == 1
    assert "final.png is not what its layers show: 1 pixels differ" in capsys.readouterr().out


@pytest.fixture
def earlier(tmp_path: Path) -> dict[str, Path]:
    """The jobs that version 0.1 stored."""
    return jobs_of_version_1(tmp_path / "data")


def test_jobs_of_0_1_measure_the_same_again_and_are_not_blamed_for_layers_that_they_never_had(earlier: dict[str, Path]):
    finished = [folder for folder in earlier.values() if (folder / "final.png").is_file()]
    assert len(finished) >= 3
    for folder in finished:
        assert verify_job(folder, FontCatalog()) == document_of(folder).checks
        assert rendering_trouble(folder) is None
        assert cli.run(["verify", str(folder)]) == 0


def test_an_ad_of_0_1_without_words_is_rendered_again_to_the_byte(earlier: dict[str, Path]):
    wordless = [folder for folder in earlier.values() if (folder / "final.png").is_file() and is_wordless(folder)]
    assert wordless
    for folder in wordless:
        assert rendered_again(folder) == (folder / "final.png").read_bytes()
        change(folder / "final.png", np.s_[2, 2], 0)
        assert "1 pixels differ" in str(rendering_trouble(folder))


@pytest.mark.parametrize("steps", [(2, 3), (3,)])
def test_a_job_of_0_1_goes_on_and_leaves_a_document_of_today(earlier: dict[str, Path], steps: tuple[int, ...]):
    paused = [folder for folder in earlier.values() if steps[0] - 1 in document_of(folder).finished]
    paused = [folder for folder in paused if not is_wordless(folder)]
    assert paused
    for folder in paused:
        content = document_of(folder).lettering.words.content
        events, results = make(folder, steps=steps, inputs=Inputs(has_step1_layers=True), text_content=content)
        assert not {"text_unverified", "product_unverified"} & {*events.codes}
        assert results["product_core_identity"].passed
        assert b'"version": 2' in (folder / "layout.json").read_bytes()
        assert rendered_again(folder) == (folder / "final.png").read_bytes()
        assert rendering_trouble(folder) is None


def is_wordless(folder: Path) -> bool:
    return document_of(folder).lettering is None


def test_the_command_says_by_its_exit_code_how_it_went(
    copy: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
):
    data = tmp_path / "data"
    job_id = "0b54d9d2-5a6e-4c6c-8b42-6c8b3f9b3a10"
    shutil.copytree(copy, data / "jobs" / job_id)
    monkeypatch.setenv("AD_AGENT_DATA_DIR", str(data))
    assert cli.run(["verify", job_id]) == 0
    assert cli.run(["verify", str(copy)]) == 0
    shown = capsys.readouterr().out
    assert "text_contrast" in shown
    assert "FAIL" not in shown
    change(copy / "final.png", glyph(copy, 3), 0)
    assert cli.run(["verify", str(copy / "final.png")]) == 1
    assert "FAIL" in capsys.readouterr().out
    assert cli.run(["verify", str(tmp_path)]) == 2
    assert cli.run(["verify", "no-such-job"]) == 2
    (copy / "final.png").unlink()
    assert cli.run(["verify", str(copy)]) == 2
