"""What crosses the pipe, letter by letter: a change here is a change of the protocol."""

import json
from pathlib import Path

import pytest
from pydantic import ValidationError

from ad_agent_mcp.contract.call import GenerateRequest
from ad_agent_mcp.contract.errors import ErrorCode, ErrorInfo, Fix
from ad_agent_mcp.contract.messages import (
    COMMAND,
    EVENT,
    FRAME_HEADER,
    CancelJob,
    Inputs,
    JobDone,
    JobFailed,
    JobNotice,
    Message,
    ModelMoved,
    Ready,
    Shutdown,
    StageProgress,
    StartJob,
    StepResult,
    UnloadModels,
    encode,
)
from ad_agent_mcp.contract.schemas import Check
from ad_agent_mcp.contract.stages import EngineInfo, EngineName, Plan, PlannedStage, Stage, StageInfo

PLAN = Plan(
    engine=EngineName.DRAFT,
    preset="draft",
    steps=(1,),
    stages=(PlannedStage(stage=Stage.CUT_OUT, label="draft_cut_out", iterations=1),),
)
INFO = EngineInfo(
    name=EngineName.DRAFT,
    preset="draft",
    stages={Stage.CUT_OUT: StageInfo(label="draft_cut_out", prior_s=1, iterations=2, load_s=0.5)},
    unused=("strength",),
    preset_values={"composition_steps": 4},
    reads_hangul=True,
)
REQUEST = GenerateRequest(text_content="가", seed=1)
COMMANDS: list[tuple[Message, str]] = [
    (
        StartJob(
            job_id="j",
            request=REQUEST,
            plan=PLAN,
            inputs=Inputs(product=Path("/p")),
            out_dir=Path("/o"),
        ),
        f'{{"type":"start_job","job_id":"j","request":{REQUEST.model_dump_json()},"plan":{{"engine":"draft","preset":'
        '"draft","steps":[1],"stages":[{"stage":"cut_out","label":"draft_cut_out","iterations":1}]},'
        '"inputs":{"product":"/p","step1":null,'
        '"step2":null,"has_step1_layers":false},"out_dir":"/o"}',
    ),
    (CancelJob(job_id="j"), '{"type":"cancel_job","job_id":"j"}'),
    (UnloadModels(), '{"type":"unload_models"}'),
    (Shutdown(), '{"type":"shutdown"}'),
]
EVENTS: list[tuple[Message, str]] = [
    (
        Ready(pid=1, engine=EngineName.DRAFT, device="cpu", presets=("draft",), engines=(INFO,)),
        '{"type":"ready","protocol":2,"pid":1,"engine":"draft","device":"cpu","presets":["draft"],"note":"",'
        '"refusal":null,"engines":[{"name":"draft","preset":"draft","stages":{"cut_out":{"label":"draft_cut_out",'
        '"prior_s":1.0,"iterations":2,"load_s":0.5}},"unused":["strength"],"preset_values":{"composition_steps":4},'
        '"reads_hangul":true}]}',
    ),
    (
        StageProgress(job_id="j", stage=Stage.BLEND, done=1, total=2),
        '{"type":"stage_progress","job_id":"j","stage":"blend","done":1,"total":2}',
    ),
    (
        StepResult(job_id="j", step=1, files={"step1": "ff"}, width=3, height=4),
        '{"type":"step_result","job_id":"j","step":1,"files":{"step1":"ff"},"width":3,"height":4}',
    ),
    (
        ModelMoved(model="flux", state="loading"),
        '{"type":"model_moved","model":"flux","state":"loading","bytes":0,"seconds":0.0}',
    ),
    (JobNotice(job_id="j", code="c", message="m"), '{"type":"notice","job_id":"j","code":"c","message":"m"}'),
    (
        JobDone(job_id="j", checks=(Check(name="n", passed=None),)),
        '{"type":"job_done","job_id":"j","checks":[{"name":"n","pass":null,"value":null,"limit":null,"fix":null}]}',
    ),
    (
        JobFailed(
            job_id="j",
            error=ErrorInfo(code=ErrorCode.CHECK_FAILED, message="m", fix=Fix(tool="t", arguments={"a": 1})),
        ),
        '{"type":"job_failed","job_id":"j","error":{"code":"check_failed","message":"m","retry_after_seconds":null,'
        '"job_id":null,"field":null,"fix":{"tool":"t","arguments":{"a":1}}},"checks":[],"ends_worker":false}',
    ),
]


@pytest.mark.parametrize(("message", "wire"), COMMANDS + EVENTS, ids=lambda value: getattr(value, "type", ""))
def test_a_message_has_this_form_on_the_wire(message: Message, wire: str):
    frame = encode(message)
    assert FRAME_HEADER.unpack(frame[:4]) == (len(frame) - 4,)
    assert frame[4:].decode() == wire


@pytest.mark.parametrize(("message", "wire"), COMMANDS + EVENTS, ids=lambda value: getattr(value, "type", ""))
def test_a_message_survives_the_pipe(message: Message, wire: str):
    adapter = COMMAND if (message, wire) in COMMANDS else EVENT
    assert adapter.validate_json(encode(message)[4:]) == message


def test_a_drift_between_the_two_sides_is_an_error():
    with pytest.raises(ValidationError):
        EVENT.validate_json('{"type":"job_done","job_id":"j","novelty":1}')
    with pytest.raises(ValidationError):
        COMMAND.validate_json('{"type":"format_disk"}')


def test_a_request_travels_whole_so_that_a_default_means_the_same_on_both_sides():
    assert json.loads(REQUEST.model_dump_json()).keys() == GenerateRequest.model_fields.keys()
    assert GenerateRequest.model_validate_json(REQUEST.model_dump_json()) == REQUEST
