"""BiRefNet cuts out."""

from ...contract.stages import Stage, StageInfo
from ..preset import Activation, Component, Family, Run

_CUT_OUT = Run(("birefnet",), Activation(0.75))  # its square has always the same side

BIREFNET = Family(
    "birefnet",
    components=(Component("birefnet", "segmentation", "", "BiRefNet", "float16", (0.41,)),),
    runs={Stage.CUT_OUT: _CUT_OUT, Stage.TEXT_CUT_OUT: _CUT_OUT},
    infos={
        Stage.CUT_OUT: StageInfo(label="birefnet_cut_out", prior_s=2, load_s=1),
        Stage.TEXT_CUT_OUT: StageInfo(label="birefnet_text_cut_out", prior_s=2),
    },
)
