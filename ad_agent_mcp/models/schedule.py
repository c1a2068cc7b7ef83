"""Which weights are on the device when: arithmetic on sizes and on the order in which a job uses its models.

Pure; residency does what it says, and a plan before the start can ask it the same.
"""

from collections.abc import Iterable, Sequence
from typing import Literal, NamedTuple

Stream = Literal["layers", "tensors"]
"""How weights that are never resident are read: by each layer as it runs, or tensor by tensor."""


class Use(NamedTuple):
    """One stage of a job: the models it runs, and what it needs on the device beside their weights."""

    stage: str
    models: tuple[str, ...]
    workspace_bytes: int


class Part(NamedTuple):
    """Weights of a model that come and go together."""

    name: str
    model: str
    size_bytes: int
    stream: Stream | None = None


class Moves(NamedTuple):
    """What has to happen before a use; `lacking_bytes` above 0 says that it does not fit whatever is done."""

    evicted: tuple[str, ...]
    loaded: tuple[str, ...]
    lacking_bytes: int


class Step(NamedTuple):
    """One use as `Schedule.simulate` saw it; `peak_bytes` has weights, those fetched ahead, and workspace."""

    use: Use
    moves: Moves
    ahead: tuple[str, ...]
    peak_bytes: int


class Schedule:
    """The uses of one job, over and over, because jobs repeat.

    Args:
        parts: everything that may have to be on the device.
        uses: the stages in their order.
        budget_bytes: never exceeded by weights and workspace.
        keep_bytes: what a use may leave occupied by parts that it does not need itself; None: the budget.
    """

    def __init__(
        self, parts: Iterable[Part], uses: Sequence[Use], *, budget_bytes: int, keep_bytes: int | None = None
    ) -> None:
        self.parts = {part.name: part for part in parts}
        self.uses = tuple(uses)
        self.budget_bytes = budget_bytes
        self.keep_bytes = budget_bytes if keep_bytes is None else keep_bytes

    def needed(self, index: int) -> frozenset[str]:
        """The parts that use `index` needs on the device."""
        return frozenset(part.name for part in self._parts_of(index) if part.stream is None)

    def streamed(self, index: int) -> frozenset[str]:
        """The parts that use `index` only reads."""
        return frozenset(part.name for part in self._parts_of(index) if part.stream is not None)

    def distance(self, name: str, index: int) -> int:
        """How many uses after `index` the part is needed again; more than there are uses: never."""
        count = len(self.uses)
        after = (step for step in range(1, count + 1) if name in self.needed((index + step) % count))
        return next(after, count + 1)

    def size(self, names: Iterable[str]) -> int:
        """Bytes of these parts."""
        return sum(self.parts[name].size_bytes for name in names)

    def moves(self, index: int, resident: frozenset[str]) -> Moves:
        """What to evict, in this order, and to load, so that use `index` can run.

        What is needed furthest in the future goes first; of those needed equally late, the smallest that is enough.
        """
        needed = self.needed(index)
        loaded = tuple(name for name in self.parts if name in needed - resident)
        least = self.size(needed) + self.uses[index].workspace_bytes
        excess = self.size(resident - needed) + least - max(self.keep_bytes, least)
        idle = {name: self.distance(name, index) for name in resident - needed}
        evicted: list[str] = []
        while excess > 0:
            furthest = max(idle.values())
            equal = sorted((self.parts[name].size_bytes, name) for name in idle if idle[name] == furthest)
            size, name = next((choice for choice in equal if choice[0] >= excess), equal[-1])
            del idle[name]
            evicted.append(name)
            excess -= size
        return Moves(tuple(evicted), loaded, max(0, least - self.budget_bytes))

    def next_missing(self, index: int, resident: frozenset[str]) -> list[tuple[str, bool]]:
        """What the first later use with missing parts lacks; True: it fits beside `index` and the uses between."""
        count = len(self.uses)
        room = self.keep_bytes - self.size(resident) - self.uses[index].workspace_bytes
        for step in range(1, count):
            use = (index + step) % count
            missing = [name for name in self.parts if name in self.needed(use) - resident]
            if missing:
                result: list[tuple[str, bool]] = []
                for name in missing:
                    fits = self.parts[name].size_bytes <= room
                    room -= self.parts[name].size_bytes * fits
                    result.append((name, fits))
                return result
            room = min(room, self.keep_bytes - self.size(resident) - self.uses[use].workspace_bytes)
        return []

    def host_copies(
        self, budget_bytes: int, resident: frozenset[str] = frozenset(), there: Iterable[str] = ()
    ) -> list[str]:
        """What should have a copy in host memory, as far as the budget goes.

        First what layers read, then what has to come back, then what else is read, then copies that are `there`.
        """
        used = {part.name: part for index in range(len(self.uses)) for part in self._parts_of(index)}
        gone = {name for step in self.simulate(resident) for name in step.moves.evicted}
        back = sorted((part for part in used.values() if part.name in gone), key=lambda part: -part.size_bytes)
        layers, tensors = ([part for part in used.values() if part.stream == how] for how in ("layers", "tensors"))
        chosen: list[str] = []
        for name in dict.fromkeys((*(part.name for part in (*layers, *back, *tensors)), *there)):
            if self.size(chosen) + self.parts[name].size_bytes <= budget_bytes:
                chosen.append(name)
        return chosen

    def simulate(self, resident: frozenset[str] = frozenset(), *, rounds: int = 2, is_jit: bool = False) -> list[Step]:
        """The steps of `rounds` equal jobs in a row, beginning with what is `resident`; the last round is steady."""
        steps: list[Step] = []
        for _ in range(rounds):
            for index, use in enumerate(self.uses):
                moves = self.moves(index, resident)
                resident = resident - set(moves.evicted) | set(moves.loaded)
                missing = [] if is_jit else self.next_missing(index, resident)
                ahead = tuple(name for name, fits in missing if fits)
                resident |= set(ahead)
                steps.append(Step(use, moves, ahead, self.size(resident) + use.workspace_bytes))
                if is_jit:
                    resident = frozenset()
        return steps

    def _parts_of(self, index: int) -> list[Part]:
        return [part for part in self.parts.values() if part.model in self.uses[index].models]
