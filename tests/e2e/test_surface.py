"""What clients and models read of the server, word for word and in tokens.

`python -m tests.e2e.test_surface` writes surface.json anew, after a change that was meant.
"""

import difflib
import json
import tempfile
from pathlib import Path
from typing import Any

import anyio
import pytest

from .support import CLIENTS, ERAS, Place, connected, needs_node, run_node

SNAPSHOT = Path(__file__).parent / "surface.json"
INPUT_TOKENS = {"instructions": 300, "tools": 1_900, "prompts": 130}
"""The most that a model reads before anything is done, in tokens of o200k."""
OUTPUT_TOKENS = 1_200
"""Output schemas, which most hosts keep from the model."""


async def surface_of(place: Place, era: str) -> dict[str, Any]:
    async with connected("stdio", place, era=era) as client:
        listed = {
            "tools": (await client.list_tools()).tools,
            "prompts": (await client.list_prompts()).prompts,
            "resources": (await client.list_resources()).resources,
            "resource_templates": (await client.list_resource_templates()).resource_templates,
        }
        items = {
            name: [item.model_dump(mode="json", by_alias=True, exclude_none=True) for item in found]
            for name, found in listed.items()
        }
        return {"instructions": client.instructions, **items}


def written(surface: dict[str, Any]) -> str:
    return json.dumps(surface, indent=2, ensure_ascii=False, sort_keys=True) + "\n"


@pytest.mark.anyio
@pytest.mark.parametrize("era", ERAS)
async def test_clients_read_what_the_snapshot_says(era: str, place: Place):
    known, now = SNAPSHOT.read_text("utf-8"), written(await surface_of(place, era))
    if known != now:
        change = difflib.unified_diff(
            known.splitlines(), now.splitlines(), "surface.json", f"read ({era})", lineterm=""
        )
        pytest.fail("If this is meant: python -m tests.e2e.test_surface\n" + "\n".join(change), pytrace=False)


@needs_node
def test_a_model_reads_no_more_tokens_than_it_has_to(place: Place, tmp_path: Path):
    surface = json.loads(SNAPSHOT.read_text("utf-8"))
    tools = surface["tools"]
    texts = {
        "instructions": surface["instructions"],
        "tools": compact([{name: tool[name] for name in ("name", "description", "inputSchema")} for tool in tools]),
        "prompts": compact(surface["prompts"]),
        "output": compact([tool["outputSchema"] for tool in tools]),
    }
    file = tmp_path / "texts.json"
    file.write_text(json.dumps(texts), "utf-8")
    counted = json.loads(run_node(place, str(CLIENTS / "count_tokens.mjs"), str(file)))
    limits = {**INPUT_TOKENS, "output": OUTPUT_TOKENS}
    assert {name: count for name, count in counted.items() if count > limits[name]} == {}, counted


def compact(value: Any) -> str:
    return json.dumps(value, ensure_ascii=False, separators=(",", ":"))


if __name__ == "__main__":
    with tempfile.TemporaryDirectory() as folder:
        surface = anyio.run(surface_of, Place(Path(folder, "data"), Path(folder)), "auto")
    SNAPSHOT.write_text(written(surface), "utf-8")
