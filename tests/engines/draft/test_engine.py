"""The engine without models, operation by operation."""

import numpy as np

from ad_agent_mcp.contract.ad import CompositionMode
from ad_agent_mcp.contract.stages import Stage
from ad_agent_mcp.engines.draft.engine import DraftEngine

from ..jobs import Events


def test_a_blend_lets_the_picture_shine_through_and_does_not_light_the_letters_again():
    image = np.full((40, 80, 3), 20, np.uint8)
    image[:, 40:] = 220
    letters = np.full((40, 80, 4), (180, 90, 60, 255), np.uint8)
    report = Events().open_stage(Stage.BLEND)
    blended = DraftEngine().blend_text(image, letters, mode=CompositionMode.BLEND, seed=1, report=report)
    wanted = 0.93 * letters[..., :3] + 0.07 * image
    assert np.abs(blended - wanted).max() <= 1.5
