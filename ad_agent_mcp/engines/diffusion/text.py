# pyright: basic
"""Prompts as embeddings: all of a job together, remembered on disk by what they depend on."""

import hashlib
import logging
import os
from collections.abc import Callable, Sequence
from pathlib import Path

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file, save

from ...files import write_atomically

logger = logging.getLogger(__name__)

Embedding = dict[str, torch.Tensor]
"""What a family's model reads of one text, tensors of one row each."""

REMEMBERED = 200


class PromptCache:
    """Embeddings on disk, one safetensors file each; the least recently used go first."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder

    def get(self, key: str) -> Embedding | None:
        """What was kept under `key`, on the CPU."""
        path = self._path(key)
        try:
            found = load_file(path)
            os.utime(path)
        except FileNotFoundError:
            return None
        except (OSError, SafetensorError) as error:
            logger.warning("an embedding was damaged and is made again: %s", error)
            return None
        return found

    def put(self, key: str, embedding: Embedding) -> None:
        """Keep an embedding; a full disk only costs time later."""
        try:
            self._folder.mkdir(parents=True, exist_ok=True)
            data = save({name: tensor.cpu().contiguous() for name, tensor in embedding.items()})
            write_atomically(self._path(key), data, durable=False)
            kept = sorted(self._folder.glob("*.safetensors"), key=lambda path: path.stat().st_mtime)
            for path in kept[:-REMEMBERED]:
                path.unlink(missing_ok=True)
        except OSError as error:
            logger.warning("an embedding was not kept: %s", error)

    def _path(self, key: str) -> Path:
        return self._folder / f"{key}.safetensors"


class PromptEncoder:
    """Text to embeddings of one model family, through the cache.

    Args:
        identity: what an embedding depends on besides its text: model revision, token count.
        encode: (texts) -> embeddings on the device, one for each text.
        tokens: how many tokens a text is.
        most_tokens: how many of them are read.
        cache: where they are kept.

    Attributes:
        missing: texts of the job that are still to be encoded.
    """

    def __init__(
        self,
        identity: str,
        encode: Callable[[Sequence[str]], list[Embedding]],
        cache: PromptCache,
        *,
        tokens: Callable[[str], int],
        most_tokens: int,
    ) -> None:
        self._identity = identity
        self._encode = encode
        self._cache = cache
        self._tokens = tokens
        self._most_tokens = most_tokens
        self._known: dict[str, Embedding] = {}
        self.missing: list[str] = []

    def recall(self, texts: Sequence[str]) -> None:
        """Begin a job with these texts: take what is kept; the others are `missing` until `encode`."""
        self._known = {
            text: found
            for text in dict.fromkeys(texts)
            if (found := self._known.get(text) or self._cache.get(self._key(text))) is not None
        }
        self.missing = [text for text in dict.fromkeys(texts) if text not in self._known]

    def encode(self) -> None:
        """Encode what is missing, all together, and keep it."""
        if self.missing:
            for text, embedding in zip(self.missing, self._encode(self.missing), strict=True):
                self._known[text] = embedding
                self._cache.put(self._key(text), embedding)
            self.missing = []

    def embedding(self, text: str, device: torch.device) -> Embedding:
        """The embedding of a text of this job, on `device`."""
        self._known[text] = {name: tensor.to(device) for name, tensor in self._known[text].items()}
        return self._known[text]

    def words_read(self, text: str) -> int | None:
        """About how many words of a text are read, from its first on; None: all."""
        tokens = self._tokens(text)
        return None if tokens <= self._most_tokens else max(1, len(text.split()) * self._most_tokens // tokens)

    def forget(self) -> None:
        """Let go of what is in memory."""
        self._known = {}

    def _key(self, text: str) -> str:
        return hashlib.sha256(f"{self._identity}\n{text}".encode()).hexdigest()


def one_by_one(**tensors: torch.Tensor) -> list[Embedding]:
    """Embeddings of several texts, a row each, as one for each text."""
    rows = zip(*(tensor.split(1) for tensor in tensors.values()), strict=True)
    return [dict(zip(tensors, row, strict=True)) for row in rows]
