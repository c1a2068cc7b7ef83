"""Every setting, read once from the environment (`AD_AGENT_*`), validated, frozen and passed down.

Nobody else reads the environment. The worker gets its settings as the environment that
`Settings.to_environment` makes.
"""

import os
from collections.abc import Callable, Mapping
from contextlib import suppress
from enum import StrEnum
from functools import cached_property
from pathlib import Path
from typing import Annotated, Literal, Self

import platformdirs
from pydantic import AfterValidator, BeforeValidator, Field, SecretStr, StringConstraints, model_validator
from pydantic_settings import BaseSettings, NoDecode, SettingsConfigDict

from .contract.texts import Language, TextError, say

ENV_PREFIX = "AD_AGENT_"


class EngineChoice(StrEnum):
    """Which engine to use."""

    AUTO = "auto"
    DRAFT = "draft"
    DIFFUSION = "diffusion"


def _split_at(separator: str) -> BeforeValidator:
    """Reads a list from one text; a list stays as it is."""
    return BeforeValidator(
        lambda value: [part for part in value.split(separator) if part.strip()] if isinstance(value, str) else value
    )


def own_folder(find: Callable[[], Path]) -> Path | None:
    """A folder of the user's, as `find` tells it, or None where the user has no home."""
    with suppress(RuntimeError):
        if (folder := find()).is_absolute():
            return folder
    return None


def _own_data_folder() -> Path:
    folder = own_folder(lambda: platformdirs.user_data_path("ad-agent-mcp", appauthor=False))
    if folder is None:
        raise TextError(say("settings.no_home"))
    return folder


def _made_absolute(path: Path) -> Path:
    try:
        return path.expanduser().absolute()
    except RuntimeError:
        raise TextError(say("settings.no_such_home", path=path)) from None


AbsolutePath = Annotated[Path, AfterValidator(_made_absolute)]
PathList = Annotated[tuple[AbsolutePath, ...], NoDecode, _split_at(os.pathsep)]
NameList = Annotated[tuple[Annotated[str, StringConstraints(strip_whitespace=True)], ...], NoDecode, _split_at(",")]


class Settings(BaseSettings):
    """The settings of one process."""

    model_config = SettingsConfigDict(env_prefix=ENV_PREFIX, frozen=True, extra="forbid", env_ignore_empty=True)

    data_dir: AbsolutePath = Field(
        default_factory=_own_data_folder,
        description="Jobs, uploaded pictures, statistics",
    )
    output_dir: AbsolutePath | None = Field(
        default=None, description="Folder that gets a copy of every finished ad, as `ad-JOB-ID.png`"
    )

    engine: EngineChoice = Field(default=EngineChoice.AUTO, description="What makes the pictures")
    preset: str = Field(default="exact", description="Model preset of the diffusion engine")
    residency: Literal["auto", "jit"] = Field(
        default="auto", description="`auto`: keep models loaded where they fit; `jit`: load them for each stage"
    )

    flux_model: str | None = Field(default=None, description="Hub id or local folder; unset: the preset's")
    sdxl_model: str | None = Field(default=None, description="Hub id or local folder; unset: the preset's")
    controlnet_model: str | None = Field(default=None, description="Hub id or local folder; unset: the preset's")
    segmentation_model: str | None = Field(default=None, description="Hub id or local folder; unset: the preset's")
    models_dir: AbsolutePath | None = Field(default=None, description="Where models are kept; unset: the user's cache")
    offline: bool = Field(default=False, description="Touch no network")

    vram_budget_gb: float | None = Field(
        default=None, gt=0, description="GPU memory to use; unset: what NVML says is free"
    )
    host_budget_gb: float | None = Field(default=None, gt=0, description="Host memory for models; unset: from free RAM")
    require_gpu: bool = Field(default=False, description="Refuse to start without a fitting GPU")

    queue_size: int = Field(default=0, ge=0, le=1000, description="Jobs that may wait; 0: a second job is refused")
    workers: int = Field(default=1, ge=1, le=1, description="Worker processes; 1 is the only value")
    stall_timeout_s: float = Field(
        default=300, gt=0, description="Seconds of silence after which a running worker counts as hung"
    )
    stop_grace_s: float = Field(default=5, ge=0, description="Seconds that `stop` waits before it forces")
    resume_max_age_s: float = Field(
        default=3600,
        ge=0,
        description="Age in seconds up to which a job that its server's death cut off goes on by itself",
    )
    preload: bool = Field(default=False, description="Load models at start instead of at the first job")
    idle_unload_s: float | None = Field(
        default=None,
        gt=0,
        description="Seconds after which idle models are unloaded; unset: 600 on stdio, never over HTTP",
    )

    image_roots: PathList = Field(default=(), description="Folders pictures may be read from, separated like PATH")
    font_dirs: PathList = Field(default=(), description="Further font folders, separated like PATH")
    max_image_bytes: int = Field(default=20 << 20, ge=1024, description="Largest picture file, in bytes (20 MiB)")
    max_image_pixels: int = Field(default=40_000_000, ge=65_536, description="Most pixels of a picture")
    max_image_side: int = Field(default=12_000, ge=256, description="Longest side of a picture in pixels")

    keep_jobs: int = Field(default=200, ge=1, description="Finished jobs to keep")
    keep_days: float = Field(
        default=30,
        gt=0,
        description="Days to keep finished jobs; the newest 20 stay, and one clean-up lets go of a tenth at most",
    )
    keep_gb: float = Field(default=10, gt=0, description="Disk space for finished jobs, in GB")

    token: SecretStr | None = Field(default=None, description="Bearer token of the HTTP server, 16 characters or more")
    token_file: AbsolutePath | None = Field(default=None, description="File that holds the bearer token")
    allowed_hosts: NameList = Field(
        default=(), description="`name:port` by which clients call the HTTP server, besides loopback"
    )
    allowed_origins: NameList = Field(
        default=(), description="Origins of web pages that may use the HTTP server, besides loopback"
    )
    dev: bool = Field(default=False, description="Serve the dashboard")
    lang: Language | None = Field(
        default=None,
        description="Language of messages, `en` or `ko`; unset: English for agents, at a shell that of the locale, on "
        "the page that of the browser",
    )
    log_level: Literal["DEBUG", "INFO", "WARNING", "ERROR"] = Field(
        default="INFO", description="Least severe log level shown"
    )
    log_format: Literal["text", "json"] = Field(default="text", description="`text`, or `json`: one object a line")

    @model_validator(mode="after")
    def _one_token(self) -> Self:
        if self.token is not None and self.token_file is not None:
            raise TextError(say("settings.two_tokens"))
        if self.token is not None and len(self.token.get_secret_value().strip()) < 16:
            raise TextError(say("settings.short_token"))
        return self

    @property
    def device_lock(self) -> Path:
        """What a server holds while it uses the GPU."""
        return self.data_dir / "locks" / "device-0.lock"

    @property
    def max_message_bytes(self) -> int:
        """The largest message that a client may send: two pictures in base64, and their arguments."""
        return self.max_image_bytes * 3 + (1 << 20)

    @cached_property
    def bearer_token(self) -> str | None:
        """The HTTP token, from either setting.

        Raises:
            ValueError: the token file is unreadable or its token is too short.
        """
        if self.token is not None:
            return self.token.get_secret_value().strip()
        if self.token_file is None:
            return None
        try:
            token = self.token_file.read_text("utf-8").strip()
        except OSError as error:
            raise TextError(say("settings.unreadable_token", reason=error)) from error
        if len(token) < 16:
            raise TextError(say("settings.short_token_in_file"))
        return token

    def to_environment(self) -> dict[str, str]:
        """These settings as environment variables for the worker process, without those of HTTP."""
        no_business = {"token", "token_file", "allowed_hosts", "allowed_origins"}
        told = self.model_dump(mode="json", exclude=no_business, exclude_none=True)
        for name in ("image_roots", "font_dirs"):
            told[name] = os.pathsep.join(told[name])
        return {f"{ENV_PREFIX}{name.upper()}": str(value) for name, value in told.items()}


def shell_language(environment: Mapping[str, str] = os.environ) -> Language:
    """The language of a shell: as is set, else Korean where POSIX's rules say so, else English."""
    locale = next(filter(None, map(environment.get, (f"{ENV_PREFIX}LANG", "LC_ALL", "LC_MESSAGES", "LANG"))), "")
    return "ko" if locale.startswith("ko") else "en"


def misspelt_variables(environment: Mapping[str, str]) -> list[str]:
    """Variables that look like settings and are none."""
    known = {f"{ENV_PREFIX}{name.upper()}" for name in Settings.model_fields}
    return sorted(name for name in environment if name.startswith(ENV_PREFIX) and name not in known)
