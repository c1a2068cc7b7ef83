"""What is wrong with the folders that settings name: nothing stops for them, so it has to be said."""

import os
from pathlib import Path

from ..config import ENV_PREFIX, Settings
from ..contract.texts import Text, say


def folder_warnings(settings: Settings) -> list[Text]:
    """A sentence for each named folder that pictures or fonts cannot come from, or ads cannot go to."""
    told: list[Text] = []
    for name, folders in (("IMAGE_ROOTS", settings.image_roots), ("FONT_DIRS", settings.font_dirs)):
        for folder in folders:
            if not folder.is_dir():
                told.append(say("jobs.folder_missing", setting=f"{ENV_PREFIX}{name}", folder=folder))
            elif not os.access(folder, os.R_OK | os.X_OK):
                told.append(say("jobs.folder_unreadable", setting=f"{ENV_PREFIX}{name}", folder=folder))
    if settings.output_dir is not None and not _is_writable(settings.output_dir):
        told.append(say("jobs.output_unwritable", folder=settings.output_dir))
    return told


def _is_writable(folder: Path) -> bool:
    """Whether files can be made in `folder`, or `folder` itself where it is not there yet."""
    there = next(path for path in (folder, *folder.parents) if os.path.lexists(path))
    return there.is_dir() and os.access(there, os.W_OK | os.X_OK)
