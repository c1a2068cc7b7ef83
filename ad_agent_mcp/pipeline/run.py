"""Runs the steps of one job's plan in order. Knows nothing about pipes or processes."""

from ..contract.document import Document
from ..contract.messages import StartJob
from ..contract.schemas import Check
from ..engines.base import Engine
from ..imaging.placement import safe_area
from ..media.fonts import FontCatalog
from . import checks
from .background import make_background
from .composition import make_composition
from .events import JobEvents
from .render import render
from .text_asset import make_text_asset
from .workspace import Workspace


def run_job(job: StartJob, engine: Engine, events: JobEvents, *, fonts: FontCatalog | None = None) -> tuple[Check, ...]:
    """Run every stage of `job.plan`.

    Args:
        job: what to do, from which pictures, into which folder.
        engine: what paints.
        events: where progress and results are told.
        fonts: the fonts a request may name; by default the bundled ones.

    Returns:
        The checks of the finished picture; empty while there is none.

    Raises:
        Cancelled: the job is to stop.
        AdAgentError: it cannot be finished; `check_failed` when the product would not be itself.
        OSError: a picture cannot be read or there is no room for a layer.
    """
    request = job.request
    canvas = (request.width, request.height)
    blank = Document(canvas=canvas, safe_area=safe_area(canvas), engine=engine.name, seed=request.seed or 0, inputs={})
    workspace = Workspace(job, engine, events, fonts or FontCatalog(), blank)
    engine.prepare(job.plan, request)
    workspace.load_earlier_steps()
    if 1 in job.plan.steps:
        make_background(workspace)
    text = request.text_content
    if text is None:
        final = render(workspace.document, workspace.pictures)
        workspace.write({"final.png": final})
        results = checks.wordless_checks(final, workspace.cutout, workspace.promised_product)
        workspace.finish_step(1, results)
        return results
    if 1 in job.plan.steps:
        workspace.finish_step(1)
    if 2 in job.plan.steps:
        make_text_asset(workspace, text)
    return make_composition(workspace) if 3 in job.plan.steps else ()
