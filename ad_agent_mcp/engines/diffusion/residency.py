# pyright: basic
"""Which models have their weights on the device: they come before a stage needs them and go when room is needed.

A file of weights is one buffer. Weights never change, so going is dropping the buffer, and coming back is one
copy from host memory or from the disk. `Schedule` decides what comes and goes; here it is done and counted.
Knows nothing about what models compute.
"""

import contextlib
import logging
import time
from collections.abc import Callable, Generator, Iterator, Mapping, Sequence
from typing import Literal, TypeVar

from torch import Tensor, nn

from ...contract.errors import AdAgentError, ErrorCode
from ...contract.texts import Text, say
from ...models.schedule import Part, Schedule, Stream, Use
from ..base import StageReport
from .devices import Check, Device, host_memory, is_out_of_memory
from .flat import FlatFile
from .loading import TELL_INTERVAL_S, Prefetch, Teller
from .weights import Weights, check_names, stream_layers

T = TypeVar("T")
logger = logging.getLogger(__name__)

SMALLER_SET = 0.85
"""Share of the budget that weights may fill when a stage does not need them, once memory ran out all the same."""


class Residency:
    """Owns what is on the device. For one thread; a second one, which only copies, is its own.

    Args:
        device: where models run.
        budget_bytes: for weights and what stages need beside them (`Use.workspace_bytes`) together.
        host_budget_bytes: for copies in host memory of what has to come back; the rest is read from the disk.
        policy: `auto` keeps what fits; `jit` loads before a stage, drops after it, and copies nothing to host memory.
    """

    def __init__(
        self, device: Device, *, budget_bytes: int, host_budget_bytes: int, policy: Literal["auto", "jit"] = "auto"
    ) -> None:
        self._device = device
        self._budget_bytes = budget_bytes
        self._host_budget_bytes = host_budget_bytes
        self._is_jit = policy == "jit"
        self._weights: dict[str, Weights] = {}
        self._schedule = Schedule((), (), budget_bytes=budget_bytes)
        self._next = 0
        self._wanted_host: list[str] = []
        self._fetches_ahead = not self._is_jit
        self._prefetch: Prefetch | None = None

    @property
    def resident(self) -> frozenset[str]:
        """Names of the segments on the device."""
        return frozenset(weights.name for weights in self._weights.values() if weights.is_resident)

    @property
    def resident_bytes(self) -> int:
        """Bytes of buffers on the device, those being filled included."""
        filling = [buffer.numel() for _, buffer in self._prefetch.jobs if buffer is not None] if self._prefetch else []
        return sum(weights.file.nbytes for weights in self._weights.values() if weights.is_resident) + sum(filling)

    @property
    def host_bytes(self) -> int:
        """Bytes of copies in host memory."""
        return sum(weights.file.nbytes for weights in self._weights.values() if weights.host is not None)

    def add(
        self, model: str, module: nn.Module | None, files: Mapping[str, FlatFile], *, stream: Stream | None = None
    ) -> None:
        """Make a model known, whose weights are in `files`, by the names that are theirs alone; loads nothing.

        The other arguments are as in `Weights`.

        Raises:
            ValueError: the files do not hold exactly what the module needs.
        """
        if module is not None:
            check_names(model, module, files.values())
            if stream == "layers":
                stream_layers(module, self._device.torch_device)
        self._weights |= {name: Weights(name, model, module, file, stream) for name, file in files.items()}

    def plan(self, uses: Sequence[Use]) -> None:
        """Learn the whole job before its first stage, or what is left of it."""
        self._settle(None)
        self._next = 0
        self._fetches_ahead = not self._is_jit
        self._reschedule(uses, self._budget_bytes)
        there = [weights.name for weights in self._weights.values() if weights.host is not None]
        if not self._is_jit:
            self._wanted_host = self._schedule.host_copies(self._host_budget_bytes, self.resident, there)
        for weights in self._weights.values():
            if weights.host is not None and weights.name not in self._wanted_host:
                self._drop_host(weights)
            elif weights.host is None and weights.stream and weights.name in self._wanted_host:
                weights.assign(None)

    @contextlib.contextmanager
    def use(self, stage: str, report: StageReport) -> Generator[None]:
        """Have the models of the next use called `stage` on the device for as long as the context lasts.

        Raises:
            AdAgentError: `out_of_memory`; the stage does not fit into the budget, whatever is unloaded.
            Cancelled: from `report`, while loading; what is loaded by then stays.
            ValueError: the plan has no such stage.
        """
        index = self._find(stage)
        self._settle(report)
        try:
            self._bring_in(index, report)
            if self._fetches_ahead:
                self._fetch_ahead(index)
            yield
            self._next = index + 1
        finally:
            if self._is_jit:
                self._evict_all()
                self._device.flush()

    def run(
        self,
        stage: str,
        body: Callable[[], T],
        report: StageReport,
        *,
        shrink: Callable[[], Text | None] = lambda: None,
    ) -> T:
        """`body()` inside `use`, again with less in memory whenever memory runs out.

        Args:
            stage: as for `use`.
            body: may be called several times.
            report: also gets a notice `memory_rung` for each thing given up.
            shrink: makes the stage need less, and returns a sentence that says how; None: it can do no more.

        Raises:
            AdAgentError: `out_of_memory`; nothing helped. Nothing is left on the device.
        """
        rungs = self._rungs(stage, report, shrink)
        while True:
            try:
                with self.use(stage, report):
                    return body()
            except RuntimeError as error:
                if not is_out_of_memory(error):
                    raise
                logger.warning("%s ran out of memory: %s", stage, str(error))  # a log record would hold its frames
            # Only here, after the handler, have the frames of the failed try let go of their tensors.
            self._settle(None)
            rung = next(rungs, None)
            if rung is None:
                break
            self._device.flush()
            if rung:
                report.notice("memory_rung", rung)
        self._evict_all()
        self._device.flush()
        raise AdAgentError(ErrorCode.OUT_OF_MEMORY, say("engines.out_of_memory", stage=stage))

    def unload(self) -> None:
        """Let go of everything, on the device and in host memory."""
        self._settle(None)
        self._evict_all()
        for weights in self._weights.values():
            self._drop_host(weights)
        self._device.flush()

    def reading(
        self, model: str, groups: Sequence[Sequence[str]], report: StageReport
    ) -> Generator[Mapping[str, Tensor]]:
        """A model's weights in host memory, one of `groups` of names at a time: of its host copy, or from the disk.

        Close it; each group is good until the next is asked for.

        Raises:
            Cancelled: from `report`, which is told how far reading from the disk is.
        """
        weights = next(weights for weights in self._weights.values() if weights.model == model)
        file = weights.file
        if weights.host is not None:
            for names in groups:
                yield file.views(weights.host, names)
            return
        tell, done = Teller(report, weights.name), 0
        with contextlib.closing(self._device.reading(file, groups)) as read:
            for names, here in zip(groups, read, strict=True):
                done += sum(here[name].nbytes for name in names)
                tell(done)
                yield here

    # coming and going

    def _bring_in(self, index: int, report: StageReport) -> None:
        use = self._schedule.uses[index]
        moves = self._schedule.moves(index, self.resident)
        if moves.lacking_bytes:
            lacking, budget = moves.lacking_bytes / 2**30, self._budget_bytes / 2**30
            told = say("engines.over_budget", stage=use.stage, lacking=lacking, budget=budget)
            raise AdAgentError(ErrorCode.OUT_OF_MEMORY, told)
        for name in moves.evicted:
            self._evict(self._weights[name], report)
        for weights in self._weights.values():
            if weights.model in use.models and weights.buffer is None:
                self._load(weights, report)

    def _load(self, weights: Weights, report: StageReport) -> None:
        started = time.perf_counter()
        report.model_moved(weights.name, "loading")
        buffer = None if weights.stream else self._device.allocate(weights.file.nbytes)
        self._fill(weights, buffer, Teller(report, weights.name))
        self._place(weights, buffer)
        seconds = time.perf_counter() - started
        report.model_moved(weights.name, "loaded", size_bytes=weights.file.nbytes, seconds=seconds)

    def _fill(self, weights: Weights, buffer: Tensor | None, check: Check) -> None:
        """Make the host copy, if one is wanted, and fill `buffer`; also called by the thread that fetches ahead."""
        if weights.host is None and weights.name in self._wanted_host:
            host = host_memory(weights.file.nbytes)
            weights.file.read_into(host, check=check)
            self._device.register(host)
            weights.host = host
        if buffer is not None:
            self._device.copy_in(buffer, weights.file if weights.host is None else weights.host, check)

    def _place(self, weights: Weights, buffer: Tensor | None) -> None:
        if weights.stream:
            weights.assign(weights.file.mapped() if weights.host is None else weights.host)
        elif buffer is not None:
            weights.assign(buffer)

    def _evict(self, weights: Weights, report: StageReport) -> None:
        weights.assign(None)
        report.model_moved(weights.name, "unloaded", size_bytes=weights.file.nbytes)

    def _evict_all(self) -> None:
        for weights in self._weights.values():
            if weights.is_resident:
                weights.assign(None)

    def _drop_host(self, weights: Weights) -> None:
        if weights.stream:
            weights.assign(None)
        host, weights.host = weights.host, None
        if host is not None:
            self._device.unregister(host)

    def _fetch_ahead(self, index: int) -> None:
        """Start the thread that brings what the next use with anything missing will need."""
        jobs: list[tuple[Weights, Tensor | None]] = []
        for name, fits in self._schedule.next_missing(index, self.resident):
            weights, buffer = self._weights[name], None
            if fits:
                try:
                    buffer = self._device.allocate(weights.file.nbytes)
                except RuntimeError as error:
                    if not is_out_of_memory(error):
                        raise
            if buffer is not None or (name in self._wanted_host and weights.host is None):
                jobs.append((weights, buffer))
        if jobs:
            self._prefetch = Prefetch(self._fill, jobs)
            self._prefetch.start()

    def _settle(self, report: StageReport | None) -> None:
        """Wait for the thread that fetches ahead and take over what it brought; without a `report` it has to end."""
        if (prefetch := self._prefetch) is None:
            return
        try:
            while report is not None and prefetch.is_alive():
                report.model_moved(prefetch.current, "loading")
                prefetch.join(TELL_INTERVAL_S)
        finally:
            prefetch.end()
            self._prefetch = None
            for weights, buffer in prefetch.filled:
                self._place(weights, buffer)
        for weights, buffer in prefetch.filled:
            if report is not None and buffer is not None:
                report.model_moved(weights.name, "loaded", size_bytes=weights.file.nbytes)

    # deciding

    def _find(self, stage: str) -> int:
        uses = self._schedule.uses
        order = (*range(self._next, len(uses)), *range(self._next))
        index = next((index for index in order if uses[index].stage == stage), None)
        if index is None:
            raise ValueError(f"{stage} is not in the plan")
        return index

    def _reschedule(self, uses: Sequence[Use], keep_bytes: int) -> None:
        parts = [Part(one.name, one.model, one.file.nbytes, one.stream) for one in self._weights.values()]
        self._schedule = Schedule(parts, uses, budget_bytes=self._budget_bytes, keep_bytes=keep_bytes)

    def _rungs(
        self, stage: str, report: StageReport, shrink: Callable[[], Text | None]
    ) -> Iterator[Text | Literal[""]]:
        """Give something up for each sentence; an empty one: flushing has to do."""
        yield ""
        yield ""
        self._fetches_ahead = False
        for name in sorted(self.resident - self._schedule.needed(self._find(stage))):
            self._evict(self._weights[name], report)
        yield say("engines.rung_unloaded")
        while (sentence := shrink()) is not None:
            yield sentence
        self._reschedule(self._schedule.uses, int(self._budget_bytes * SMALLER_SET))
        yield say("engines.rung_fewer")
