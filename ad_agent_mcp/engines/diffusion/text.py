# pyright: basic
"""Prompts as embeddings: all of a job together, remembered on disk by what they depend on."""

import hashlib
import logging
import os
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

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


@dataclass
class PromptEncoder:
    """Text to embeddings of one model family, through the cache.

    Attributes:
        identity: what an embedding depends on besides its text: model revision, token count.
        encode_all: (texts) -> embeddings on the device, one for each text.
        cache: where they are kept.
        tokenizer: makes the tokens of a text.
        most_tokens: how many of them are read.
        known: embeddings of the job's texts, as far as there are any.
        missing: texts of the job that are still to be encoded.
    """

    identity: str
    encode_all: Callable[[Sequence[str]], list[Embedding]]
    cache: PromptCache
    tokenizer: Any
    most_tokens: int
    known: dict[str, Embedding] = field(default_factory=dict)
    missing: list[str] = field(default_factory=list)

    def recall(self, texts: Sequence[str]) -> None:
        """Begin a job with these texts: take what is kept; the others are `missing` until `encode`."""
        self.known = {
            text: found
            for text in dict.fromkeys(texts)
            if (found := self.known.get(text) or self.cache.get(self._key(text))) is not None
        }
        self.missing = [text for text in dict.fromkeys(texts) if text not in self.known]

    def encode(self) -> None:
        """Encode what is missing, all together, and keep it."""
        if self.missing:
            for text, embedding in zip(self.missing, self.encode_all(self.missing), strict=True):
                self.known[text] = embedding
                self.cache.put(self._key(text), embedding)
            self.missing = []

    def embedding(self, text: str, device: torch.device) -> Embedding:
        """The embedding of a text of this job, on `device`."""
        self.known[text] = {name: tensor.to(device) for name, tensor in self.known[text].items()}
        return self.known[text]

    def words_read(self, text: str) -> int | None:
        """About how many words of a text are read, from its first on; None: all."""
        tokens = len(self.tokenizer(text).input_ids)
        return None if tokens <= self.most_tokens else max(1, len(text.split()) * self.most_tokens // tokens)

    def forget(self) -> None:
        """Let go of what is in memory."""
        self.known = {}

    def _key(self, text: str) -> str:
        return hashlib.sha256(f"{self.identity}\n{text}".encode()).hexdigest()


def one_by_one(**tensors: torch.Tensor) -> list[Embedding]:
    """Embeddings of several texts, a row each, as one for each text."""
    rows = zip(*(tensor.split(1) for tensor in tensors.values()), strict=True)
    return [dict(zip(tensors, row, strict=True)) for row in rows]
