"""What is true of each argument, in one table. Admission, resume, redo, notices and hints read it.

Knows nothing about how a value is checked (ad.py, call.py) or what a step does with it.
"""

from typing import NamedTuple

from .call import Call
from .texts import Text, say


class FieldRow(NamedTuple):
    """One argument of `generate`.

    Attributes:
        steps: the steps on which it acts, in order; a job that runs none of them has no use for it. What speaks of the
            call alone acts on none.
        aliases: what callers call it who have not read its name.
        is_picture: whether it is a reference to a picture, which only `generate` takes.
        is_prompt: whether models read it.
    """

    steps: tuple[int, ...] = ()
    aliases: tuple[str, ...] = ()
    is_picture: bool = False
    is_prompt: bool = False


GENERATE: dict[str, FieldRow] = {
    "product_image": FieldRow(
        (1,),
        (
            "image",
            "photo",
            "picture",
            "image_path",
            "photo_path",
            "path",
            "file",
            "image_url",
            "product",
            "product_photo",
        ),
        is_picture=True,
    ),
    "product_box": FieldRow((1,), ("box", "bbox", "bounding_box", "crop")),
    "text_content": FieldRow(
        (2, 3),
        ("text", "headline", "title", "words", "copy", "caption", "slogan", "message", "ad_text", "main_text"),
    ),
    "bg_prompt": FieldRow((1, 3), ("scene", "background", "background_prompt", "scene_prompt", "bg"), is_prompt=True),
    "bg_negative_prompt": FieldRow((1,), ("background_negative_prompt", "scene_negative_prompt"), is_prompt=True),
    "bg_composition_prompt": FieldRow((1,), is_prompt=True),
    "bg_composition_negative_prompt": FieldRow((1,), is_prompt=True),
    "step1_image": FieldRow((2, 3), ("step1", "step1_result"), is_picture=True),
    "step2_image": FieldRow((3,), ("step2", "step2_result"), is_picture=True),
    "text_model_prompt": FieldRow(
        (2, 3), ("text_style", "text_prompt", "letters", "lettering", "font_style"), is_prompt=True
    ),
    "negative_prompt": FieldRow((2,), ("text_negative_prompt",), is_prompt=True),
    "font_name": FieldRow((2,), ("font", "font_family", "typeface")),
    "composition_mode": FieldRow((3,), ("mode", "blend_mode", "text_mode")),
    "text_position": FieldRow((3,), ("position", "text_location", "placement_of_text", "headline_position")),
    "composition_prompt": FieldRow((3,), ("blend_prompt",), is_prompt=True),
    "composition_negative_prompt": FieldRow((3,), is_prompt=True),
    "width": FieldRow((1,), ("w",)),
    "height": FieldRow((1,), ("h",)),
    "product_lock": FieldRow((1, 3), ("lock_product", "keep_product")),
    "composition_strength": FieldRow((3,), ("blend_strength",)),
    "composition_steps": FieldRow((3,), ("blend_steps",)),
    "composition_guidance_scale": FieldRow((3,)),
    "strength": FieldRow((1,), ("denoising_strength", "denoise")),
    "guidance_scale": FieldRow((1,), ("cfg", "cfg_scale", "guidance")),
    "num_inference_steps": FieldRow((1,), ("steps", "inference_steps", "num_steps")),
    "seed": FieldRow((1, 2, 3), ("random_seed",)),
    "start_step": FieldRow(aliases=("step", "from_step")),
    "pause_after_step": FieldRow(aliases=("pause", "pause_after", "stop_after_step")),
    "resume_job_id": FieldRow(aliases=("resume", "job_id", "resume_from", "previous_job_id", "parent_job_id")),
    "test_mode": FieldRow(aliases=("draft", "dry_run", "test")),
    "wait_seconds": FieldRow(aliases=("wait", "timeout", "timeout_seconds", "wait_s")),
}

OTHER_TOOLS: dict[str, tuple[str, ...]] = {
    "job_id": ("id", "job", "uuid", "resume_job_id"),
    "force": ("kill",),
    "action": ("decision", "answer"),
    "changes": ("change", "updates", "edits"),
    "name": ("layer", "image", "picture", "image_name", "which"),
    "max_side": ("size", "max_size", "width", "max_width"),
    "format": ("image_format", "type", "picture_format"),
    "limit": ("n", "count", "max", "max_results", "page_size"),
    "status": ("state",),
    "include_images": ("images", "include", "include_image", "with_images"),
    "wait_seconds": GENERATE["wait_seconds"].aliases,
}
"""The aliases of the other tools' arguments."""

WIDE_AS = ("size", "image_size", "resolution", "dimensions", "canvas_size", "aspect_ratio", "ratio", "aspect")
"""What callers call width and height together."""

HINTS: dict[str, Text] = {
    **dict.fromkeys(("prompt", "description"), say("contract.hint_prompt")),
    "style": say("contract.hint_style"),
    **dict.fromkeys(
        ("color", "colour", "text_color", "text_colour", "font_color", "letter_color"), say("contract.hint_color")
    ),
    **dict.fromkeys(
        ("n", "count", "num_images", "num_outputs", "batch_size", "variants", "number_of_images"),
        say("contract.hint_count"),
    ),
    "font_size": say("contract.hint_font_size"),
    "model": say("contract.hint_model"),
    "output_path": say("contract.hint_output_path"),
}
"""What callers ask `generate` for that no one argument means."""

AT_MOST = frozenset({"wait_seconds", "max_side", "limit"})
"""Numbers of which one over the limit asks for as much as there may be."""


def inherited() -> frozenset[str]:
    """What a resumed job takes from the earlier one where the caller says nothing."""
    return frozenset(
        name
        for name in GENERATE
        if name not in Call.model_fields
        and name not in ("step1_image", "step2_image")  # those are the earlier job's results
    )


def first_step(name: str) -> int:
    """The first step that an argument acts on; 3 for what speaks of the call alone."""
    return min(GENERATE[name].steps, default=3)
