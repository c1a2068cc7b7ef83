"""What is wrong with the folders that settings name: nothing stops for them, so it has to be said."""

import os
from pathlib import Path

from ..config import ENV_PREFIX, Settings

_FULL_PATH = (
    "Make it, or correct the setting; a path that does not begin at the top counts from where the server starts."
)


def folder_warnings(settings: Settings) -> list[str]:
    """A sentence for each named folder that pictures or fonts cannot come from, or ads cannot go to."""
    told: list[str] = []
    for name, folders in (("IMAGE_ROOTS", settings.image_roots), ("FONT_DIRS", settings.font_dirs)):
        for folder in folders:
            if not folder.is_dir():
                told.append(f"{ENV_PREFIX}{name}: {folder} is no folder. {_FULL_PATH}")
            elif not os.access(folder, os.R_OK | os.X_OK):
                told.append(f"{ENV_PREFIX}{name}: {folder} may not be read by this user. Allow it, or name another.")
    if settings.output_dir is not None and not _is_writable(settings.output_dir):
        told.append(
            f"{ENV_PREFIX}OUTPUT_DIR: ads cannot be copied to {settings.output_dir}: it is no folder that this user "
            "may write, or the disk is read-only. Allow it, or name another."
        )
    return told


def _is_writable(folder: Path) -> bool:
    """Whether files can be made in `folder`, or `folder` itself where it is not there yet."""
    there = next(path for path in (folder, *folder.parents) if os.path.lexists(path))
    return there.is_dir() and os.access(there, os.W_OK | os.X_OK)
