"""What the draft engine says of itself. Loads no arrays."""

from typing import Final

from ...contract.stages import EngineInfo, EngineName, Stage, StageInfo

INFO: Final = EngineInfo(
    name=EngineName.DRAFT,
    preset="draft",
    stages={
        Stage.CUT_OUT: StageInfo(label="draft_cut_out", prior_s=1.0),
        Stage.BACKGROUND: StageInfo(label="draft_background", prior_s=0.4),
        Stage.COMPOSITE: StageInfo(label="draft_composite", prior_s=0.3),
        Stage.REFINE: StageInfo(label="draft_refine", prior_s=0.3),
        Stage.TEXT_LAYOUT: StageInfo(label="draft_text_layout", prior_s=0.1),
        Stage.TEXT_PAINT: StageInfo(label="draft_text_paint", prior_s=0.3),
        Stage.PLACEMENT: StageInfo(label="draft_placement", prior_s=0.2),
        Stage.BLEND: StageInfo(label="draft_blend", prior_s=0.2),
        Stage.FINISH: StageInfo(label="draft_finish", prior_s=0.4),
    },
    unused=(
        "bg_negative_prompt",
        "bg_composition_prompt",
        "bg_composition_negative_prompt",
        "strength",
        "guidance_scale",
        "num_inference_steps",
        "negative_prompt",
        "composition_prompt",
        "composition_negative_prompt",
        "composition_strength",
        "composition_steps",
        "composition_guidance_scale",
    ),
    reads_hangul=True,
)
