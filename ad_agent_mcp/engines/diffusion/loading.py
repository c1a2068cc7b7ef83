# pyright: basic
"""How weights come: what is told of it, and the thread that brings them beside a running stage.

Knows nothing about what comes when.
"""

import logging
import threading
import time
from collections.abc import Callable

from torch import Tensor

from ..base import StageReport
from .devices import Check
from .weights import Weights

logger = logging.getLogger(__name__)

TELL_INTERVAL_S = 0.1
"""How often loading tells how far it is, and so learns that it is to stop."""


class Teller:
    """Tells how far loading is, not too often; `Cancelled` comes out of it."""

    interval_s = TELL_INTERVAL_S

    def __init__(self, report: StageReport, name: str) -> None:
        self._report = report
        self._name = name
        self._most = 0
        self._told = time.perf_counter()

    def __call__(self, done: int) -> None:
        self._most = max(self._most, done)  # a host copy goes through the bytes twice
        if time.perf_counter() - self._told >= self.interval_s:
            self._told = time.perf_counter()
            self._report.model_moved(self._name, "loading", size_bytes=self._most)


class _Ended(Exception):  # noqa: N818  # nothing went wrong
    """Raised inside a prefetch that is to end."""


class Prefetch(threading.Thread):
    """Fills buffers beside a running stage. What goes wrong is forgotten: the stage that needs them will meet it."""

    def __init__(
        self, fill: Callable[[Weights, Tensor | None, Check], None], jobs: list[tuple[Weights, Tensor | None]]
    ) -> None:
        super().__init__(name="prefetch", daemon=True)
        self.jobs = jobs
        self.filled: list[tuple[Weights, Tensor | None]] = []
        self.current = jobs[0][0].name
        self._fill = fill
        self._is_ending = threading.Event()

    def run(self) -> None:
        """Thread body."""
        try:
            for weights, buffer in self.jobs:
                self.current = weights.name
                self._fill(weights, buffer, self._check)
                self.filled.append((weights, buffer))
        except (RuntimeError, OSError, _Ended) as error:
            logger.info("%s was not fetched ahead: %s", self.current, repr(error))

    def end(self) -> None:
        """Stop it, and wait until nothing is under way any more."""
        self._is_ending.set()
        self.join()

    def _check(self, _: int) -> None:
        if self._is_ending.is_set():
            raise _Ended
