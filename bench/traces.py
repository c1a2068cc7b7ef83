"""Records what workers say of whole jobs, and when, for the tests of the estimates: `python -m bench.traces FILE`.

Each sequence of jobs runs on a worker of its own, fresh at its first job, as after the start of a server. An event is
[seconds since the job's start, stage, done, total], [seconds, "step", number] or [seconds, "done"].
"""

import argparse
import json
import shutil
import tempfile
import time
from pathlib import Path
from typing import Any

import anyio

from ad_agent_mcp.config import Settings
from ad_agent_mcp.contract.call import GenerateRequest
from ad_agent_mcp.contract.messages import Inputs, JobDone, JobFailed, StageProgress, StartJob, StepResult
from ad_agent_mcp.contract.stages import EngineName
from ad_agent_mcp.engines.draft.info import INFO
from ad_agent_mcp.jobs.job import Job, new_job_id, steps_to_run
from ad_agent_mcp.jobs.plan import plan_segment
from ad_agent_mcp.supervisor.process import WorkerProcess

from .pictures import photographs

WORDS = {"text_content": "Summer Sale", "bg_prompt": "wooden table in a cozy cafe"}
SQUARE, PORTRAIT, SMALL = (
    {"width": width, "height": height} for width, height in ((1024, 1024), (1080, 1350), (512, 512))
)
SEQUENCES: dict[str, list[dict[str, Any]]] = {
    "one kind": [{**WORDS, **SQUARE}] * 8,
    "sizes": [{**WORDS, **size} for size in (SQUARE, SQUARE, SQUARE, PORTRAIT, PORTRAIT, SMALL, SQUARE)],
    "scenes": [
        {**WORDS, **SQUARE, "bg_prompt": scene} for scene in ("studio", "sunset beach", "luxury marble", "neon night")
    ],
    "no words": [{**SQUARE, "bg_prompt": "studio"}] * 5,
}


async def record(requests: list[dict[str, Any]], folder: Path, photo: Path) -> list[dict[str, Any]]:
    """Run `requests` for `photo` one after the other on one worker; each with its events."""
    jobs: list[dict[str, Any]] = []
    async with anyio.create_task_group() as tasks:
        async with WorkerProcess.spawn(Settings(data_dir=folder, log_level="WARNING"), tasks) as (worker, _):
            for arguments in requests:
                request = GenerateRequest(seed=3, **arguments)
                job = Job(
                    id=new_job_id(),
                    request=request,
                    engine=EngineName.DRAFT,
                    steps=steps_to_run(request),
                    created_at=time.time(),
                )
                out = folder / job.id
                (out / "inputs").mkdir(parents=True)
                product = out / "inputs" / "product_image"
                shutil.copyfile(photo, product)
                plan, _ = plan_segment(job, INFO)
                command = StartJob(
                    job_id=job.id, request=request, plan=plan, inputs=Inputs(product=product), out_dir=out
                )
                began = time.perf_counter()
                await worker.send(command)
                events: list[list[Any]] = []
                async for event in worker.events():
                    at = round(time.perf_counter() - began, 3)
                    match event:
                        case StageProgress(stage=stage, done=done, total=total):
                            if not events or events[-1][1:] != [stage, done, total]:
                                events.append([at, stage, done, total])
                        case StepResult(step=step):
                            events.append([at, "step", step])
                        case JobDone():
                            events.append([at, "done"])
                            break
                        case JobFailed(error=error):
                            raise RuntimeError(error.message)
                        case _:
                            pass
                jobs.append({"request": arguments, "events": events})
        tasks.cancel_scope.cancel()
    return jobs


def main() -> None:
    """Record every sequence; one line for each job."""
    parser = argparse.ArgumentParser(description="Record what workers say of draft jobs.")
    parser.add_argument("file", type=Path)
    options = parser.parse_args()
    traces: dict[str, list[dict[str, Any]]] = {}
    for name, requests in SEQUENCES.items():
        with tempfile.TemporaryDirectory(prefix="ad-agent-traces-") as folder:
            photo = Path(photographs(Path(folder))["1 MP PNG"])
            traces[name] = anyio.run(record, requests, Path(folder), photo)
    write(options.file, traces)


def write(file: Path, traces: dict[str, list[dict[str, Any]]]) -> None:
    """Write `traces` so that each job is a line."""
    parts = [
        json.dumps(name) + ": [\n" + ",\n".join(json.dumps(job, separators=(",", ":")) for job in jobs) + "\n]"
        for name, jobs in traces.items()
    ]
    file.write_text("{\n" + ",\n".join(parts) + "\n}\n", "utf-8")


if __name__ == "__main__":
    main()
