"""Whole jobs over every transport, in both protocol eras."""

import base64
import io
import itertools
import json

import anyio
import pytest
from mcp.types import BlobResourceContents, ImageContent, TextResourceContents
from PIL import Image, ImageChops

from ad_agent_mcp.mcp_api.responses import MAX_MESSAGE_BYTES

from .support import ERAS, SMALL, TRANSPORTS, Place, call, connected, finish, refused

pytestmark = pytest.mark.anyio


@pytest.mark.parametrize(("transport", "era"), list(itertools.product(TRANSPORTS, ERAS)))
async def test_a_job_runs_through_its_three_steps_with_rising_progress(transport: str, era: str, place: Place):
    seen: list[float] = []

    async def on_progress(progress: float, total: float | None, message: str | None) -> None:
        seen.append(progress)

    async with connected(transport, place, era=era) as client:
        arguments = {"product_image": place.photo, "text_content": "여름 세일\n50% OFF", "wait_seconds": 50, **SMALL}
        result = await client.call_tool("generate", arguments, progress_callback=on_progress)
        state = result.structured_content or {}
        assert state["status"] == "completed"
        assert state["progress_percent"] == 100
        assert [bool(state[f"{name}_result"]) for name in ("step1", "step2", "final")] == [True] * 3
        assert any(isinstance(block, ImageContent) for block in result.content)
        assert seen == sorted(set(seen))
        assert len(seen) >= 3
        picture = await read_whole(client, state["final_result"])
        assert Image.open(io.BytesIO(picture)).size == (320, 320)
        report = json.loads(await read_text(client, f"ad://jobs/{state['job_id']}"))
        assert report["status"] == "completed"
        assert all(check["pass"] is not False for check in state["checks"] if check["name"] == "product_core_identity")


async def test_the_same_request_gives_the_same_bytes(place: Place):
    async with connected("stdio", place) as client:
        arguments = {"product_image": place.photo, "text_content": "Fresh", **SMALL}
        finals = []
        for _ in range(2):
            job = await call(client, "generate", **arguments)
            state = await finish(client, job["job_id"])
            finals.append(await read_whole(client, state["final_result"]))
        assert finals[0] == finals[1]


async def test_without_words_the_scene_is_the_ad(place: Place):
    async with connected("stdio", place) as client:
        job = await call(client, "generate", product_image=place.photo, text_content="  ", **SMALL)
        state = await finish(client, job["job_id"])
        assert state["status"] == "completed"
        assert state["step2_result"] is None
        assert await read_whole(client, state["final_result"]) == await read_whole(client, state["step1_result"])


async def test_a_finished_ad_is_changed_by_what_is_said_and_nothing_else(place: Place):
    async with connected("stdio", place) as client:
        first = await finish(
            client, (await call(client, "generate", product_image=place.photo, text_content="하나", **SMALL))["job_id"]
        )
        words = await call(client, "generate", resume_job_id=first["job_id"], text_content="둘", wait_seconds=50)
        assert words["status"] == "completed"
        assert words["parameters"]["start_step"] == 2
        assert words["parameters"]["seed"] == SMALL["seed"]
        assert await read_whole(client, words["step1_result"]) == await read_whole(client, first["step1_result"])
        assert await read_whole(client, words["final_result"]) != await read_whole(client, first["final_result"])
        moved = await call(client, "generate", resume_job_id=first["job_id"], text_position="bottom", wait_seconds=50)
        assert moved["parameters"]["start_step"] == 3
        assert await read_whole(client, moved["step2_result"]) == await read_whole(client, first["step2_result"])
        error = await refused(client, "generate", resume_job_id=first["job_id"], start_step=3, text_content="셋")
        assert error["code"] == "invalid_request"
        assert error["fix"]["arguments"]["start_step"] == 2
        again = await client.call_tool(error["fix"]["tool"], {**error["fix"]["arguments"], "wait_seconds": 50})
        assert (again.structured_content or {})["status"] == "completed"


async def test_resumed_steps_equal_an_uninterrupted_run(place: Place):
    async with connected("stdio", place) as client:
        arguments = {"product_image": place.photo, "text_content": "A lot of words", **SMALL}
        whole = await call(client, "generate", **arguments, wait_seconds=50)
        paused = await call(client, "generate", **arguments, pause_after_step=1, wait_seconds=50)
        assert (paused["status"], paused["waiting_for"]) == ("pending", "approval")
        assert paused["final_result"] is None
        await call(client, "approve_step", job_id=paused["job_id"])
        approved = await finish(client, paused["job_id"])
        assert approved["status"] == "completed"
        for name in ("step1", "step2", "final"):
            assert await read_whole(client, approved[f"{name}_result"]) == await read_whole(
                client, whole[f"{name}_result"]
            )


async def test_a_paused_step_is_redone_with_changes(place: Place):
    async with connected("stdio", place) as client:
        paused = await call(
            client,
            "generate",
            product_image=place.photo,
            text_content="Hi",
            bg_prompt="a blue studio",
            pause_after_step=1,
            wait_seconds=50,
            **SMALL,
        )
        before = await read_whole(client, paused["step1_result"])
        error = await refused(client, "approve_step", job_id=paused["job_id"], action="redo", changes={"width": 512})
        assert error["code"] == "invalid_request"
        await call(
            client, "approve_step", job_id=paused["job_id"], action="redo", changes={"bg_prompt": "an orange studio"}
        )
        redone = await finish(client, paused["job_id"])
        assert redone["waiting_for"] == "approval"
        assert await read_whole(client, redone["step1_result"]) != before
        stopped = await call(client, "approve_step", job_id=paused["job_id"], action="stop")
        assert stopped["status"] == "stopped"
        assert stopped["step1_result"]


async def test_an_edited_step1_picture_is_the_canvas_and_says_that_the_product_is_unverified(place: Place):
    async with connected("stdio", place) as client:
        first = await call(client, "generate", product_image=place.photo, text_content="Old", wait_seconds=50, **SMALL)
        picture = Image.open(io.BytesIO(await read_whole(client, first["step1_result"]))).convert("RGB")
        edited = picture.crop((0, 0, 320, 300))
        edited.putpixel((0, 0), (1, 2, 3))
        edited.save(place.pictures / f"edited-{first['job_id']}.png")
        state = await call(
            client,
            "generate",
            start_step=2,
            step1_image=str(place.pictures / f"edited-{first['job_id']}.png"),
            text_content="New",
            wait_seconds=50,
        )
        assert state["status"] == "completed"
        assert (state["parameters"]["width"], state["parameters"]["height"]) == (320, 300)
        assert "product_unverified" in [warning["code"] for warning in state["warnings"]]
        step1 = Image.open(io.BytesIO(await read_whole(client, state["step1_result"]))).convert("RGB")
        assert ImageChops.difference(step1, edited).getbbox() is None
        untouched = await call(
            client,
            "generate",
            start_step=2,
            step1_image=first["step1_result"],
            text_content="New",
            wait_seconds=50,
        )
        assert "product_unverified" not in [warning["code"] for warning in untouched["warnings"]]


async def test_no_message_is_larger_than_the_budget_even_at_2048_pixels_over_sse(place: Place):
    noisy = Image.effect_noise((1200, 1200), 90).convert("RGB")
    noisy.paste((200, 30, 40), (400, 300, 800, 1000))
    noisy.save(place.pictures / "noisy.png")
    async with connected("sse", place, era="legacy") as client:
        with anyio.fail_after(110):
            job = await call(
                client,
                "generate",
                product_image=str(place.pictures / "noisy.png"),
                text_content="크게",
                width=2048,
                height=2048,
                seed=1,
            )
            await finish(client, job["job_id"], seconds=100)
            full = await client.call_tool("status", {"job_id": job["job_id"], "include_images": "full"})
            sizes = [len(full.model_dump_json(by_alias=True))]
            images = (full.structured_content or {})["images"]
            assert all(Image.open(io.BytesIO(base64.b64decode(data))).format == "JPEG" for data in images.values())
            for picture_format in ("png", "jpeg", "webp"):
                picture = await client.call_tool(
                    "get_image", {"job_id": job["job_id"], "max_side": 2048, "format": picture_format}
                )
                assert not picture.is_error
                sizes.append(len(picture.model_dump_json(by_alias=True)))
            chunk = await client.read_resource(f"ad://jobs/{job['job_id']}/final.png?length=99999999")
            sizes.append(len(chunk.model_dump_json(by_alias=True)))
            assert max(sizes) <= MAX_MESSAGE_BYTES
            whole = await read_whole(client, f"ad://jobs/{job['job_id']}/final.png")
            assert Image.open(io.BytesIO(whole)).size == (2048, 2048)


async def read_whole(client, uri: str) -> bytes:
    data = b""
    while True:
        contents = (await client.read_resource(f"{uri}?offset={len(data)}")).contents[0]
        assert isinstance(contents, BlobResourceContents)
        chunk = base64.b64decode(contents.blob)
        if not chunk:
            return data
        data += chunk


async def read_text(client, uri: str) -> str:
    contents = (await client.read_resource(uri)).contents[0]
    assert isinstance(contents, TextResourceContents)
    return contents.text
