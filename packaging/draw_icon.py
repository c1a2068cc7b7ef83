"""Draws `mcpb/icon.png`: the first syllable of the Korean word for advertisement, painted by the draft engine.

Run it with: python packaging/draw_icon.py
"""

from pathlib import Path

import cv2
import numpy as np
from PIL import Image, ImageDraw, ImageFont

from ad_agent_mcp.engines.draft.lettering import paint_letters
from ad_agent_mcp.imaging.picture import alpha_over

HERE = Path(__file__).resolve().parent
FONT = HERE.parent / "fonts" / "BMJua" / "BMJUA_ttf.ttf"
SIZE = 512
CORNER = 112
TOP, FOOT = (24, 92, 108), (9, 40, 58)


def main() -> None:
    """Write the icon: 512 px, transparent outside its rounded square."""
    share = np.linspace(0, 1, SIZE, dtype=np.float32)[:, None, None]
    ground = np.broadcast_to(np.float32(TOP) * (1 - share) + np.float32(FOOT) * share, (SIZE, SIZE, 3))
    glyphs = Image.new("L", (SIZE, SIZE))
    font = ImageFont.truetype(str(FONT), 440)
    ImageDraw.Draw(glyphs).text((SIZE / 2, SIZE / 2), "광", 255, font, anchor="mm")
    mask = np.asarray(glyphs, np.float32) / 255
    letters = paint_letters(mask, "gold foil balloon", seed=7)
    picture = alpha_over(ground.round().astype(np.uint8), letters)
    plate = Image.new("L", (SIZE * 4, SIZE * 4))
    ImageDraw.Draw(plate).rounded_rectangle((0, 0, SIZE * 4 - 1, SIZE * 4 - 1), CORNER * 4, 255)
    alpha = cv2.resize(np.asarray(plate), (SIZE, SIZE), interpolation=cv2.INTER_AREA)
    Image.fromarray(np.dstack([picture, alpha])).save(HERE / "mcpb" / "icon.png", optimize=True)


if __name__ == "__main__":
    main()
