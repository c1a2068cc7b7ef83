"""The base of every value that is stored or crosses a process. Knows nothing of what is in it."""

from pydantic import BaseModel, ConfigDict


class Record(BaseModel):
    """Base of what travels or is stored: never changed, and nothing in it that the other side would not know."""

    model_config = ConfigDict(frozen=True, extra="forbid")
