import contextlib
import functools
import math
import threading
from contextlib import closing
from pathlib import Path

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import nn

from ad_agent_mcp.contract.errors import AdAgentError, Cancelled, ErrorCode
from ad_agent_mcp.engines.diffusion.devices import Device
from ad_agent_mcp.engines.diffusion.flat import FlatFile, write_flat
from ad_agent_mcp.engines.diffusion.loading import Teller
from ad_agent_mcp.engines.diffusion.residency import Residency
from ad_agent_mcp.models.schedule import Part, Schedule, Use

from .simulated import Recorder, SimulatedDevice, outcome

UNIT = 256
FOREVER = 1 << 40


@pytest.fixture(autouse=True)
def _tells_everything(monkeypatch):
    monkeypatch.setattr(Teller, "interval_s", 0)


@pytest.fixture(scope="module")
def folder(tmp_path_factory) -> Path:
    return tmp_path_factory.mktemp("weights")


@functools.cache
def unit_file(folder: Path, name: str, units: int) -> FlatFile:
    """A parameter `name` of `units` x 256 bytes, with values of its own."""
    path = folder / f"{name}-{units}.safetensors"
    value = float(sum(name.encode()))
    write_flat(path, [(name, torch.float32, (64 * units,), lambda: torch.full((64 * units,), value))])
    return FlatFile.open(path)


class World:
    """Models by name with the sizes of their segments in units, on a simulated device."""

    def __init__(self, folder, models: dict[str, list[int]], *, budget=1000, host=0, policy="auto", streamed=()):
        self.device = SimulatedDevice()
        self.residency = Residency(
            self.device, budget_bytes=budget * UNIT, host_budget_bytes=host * UNIT, policy=policy
        )
        self.modules: dict[str, nn.Module] = {}
        self.parts: list[Part] = []
        for model, sizes in models.items():
            module = self.modules[model] = nn.Module()
            files = {}
            for letter, units in zip("pqrs", sizes, strict=False):
                name = f"{model}{letter}"
                module.register_parameter(name, nn.Parameter(torch.empty(64 * units, device="meta")))
                files[name] = unit_file(folder, name, units)
                stream = "layers" if model in streamed else None
                self.parts.append(Part(name, model, units * UNIT, stream))
            self.residency.add(model, module, files, stream=stream)

    def is_there(self, model: str) -> bool:
        """Whether all weights of `model` can be used; wrong values are a failure."""
        tensors = dict(self.modules[model].named_parameters())
        for name, tensor in tensors.items():
            assert tensor.is_meta or bool((tensor == float(sum(name.encode()))).all())
        return not any(tensor.is_meta for tensor in tensors.values())

    def check_books(self, host: int = 1000) -> None:
        assert self.residency.resident_bytes == self.device.used
        assert self.residency.host_bytes == sum(self.device.registered.values()) <= host * UNIT

    def use(self, stage: str, report: Recorder | None = None) -> Recorder:
        report = report or Recorder()
        with self.residency.use(stage, report):
            pass
        return report

    def quiet(self) -> None:
        """Let what is fetched ahead end."""
        self.residency._settle(Recorder())


def uses(*stages: tuple[str, int]) -> list[Use]:
    """From ("ab", 3): a stage that runs models a and b beside 3 units of workspace."""
    return [Use(f"{i}:{models}", tuple(models), units * UNIT) for i, (models, units) in enumerate(stages)]


# the properties

MODELS = "abcde"
layouts = st.fixed_dictionaries({name: st.lists(st.integers(1, 5), min_size=1, max_size=2) for name in MODELS})
plans = st.lists(
    st.tuples(
        st.sets(st.sampled_from(MODELS), min_size=1, max_size=3).map(lambda s: "".join(sorted(s))), st.integers(0, 6)
    ),
    min_size=2,
    max_size=6,
)


def next_use(plan: list[Use], index: int, model: str) -> float:
    later = (*plan[index + 1 :], *plan[: index + 1])
    return next((step for step, use in enumerate(later) if model in use.models), math.inf)


@settings(max_examples=100, deadline=None)
@given(
    layout=layouts,
    stages=plans,
    slack=st.integers(0, 12),
    host=st.integers(0, 25),
    streamed=st.sets(st.sampled_from(MODELS), max_size=1),
    policy=st.sampled_from(["auto", "auto", "jit"]),
)
def test_whatever_the_plan_everything_needed_is_there_within_the_budget(
    folder, layout, stages, slack, host, streamed, policy
):
    plan = uses(*stages)
    size = {name: 0 if name in streamed else sum(units) for name, units in layout.items()}
    budget = max(sum(size[model] for model in use.models) + use.workspace_bytes // UNIT for use in plan) + slack
    world = World(folder, layout, budget=budget, host=host, policy=policy, streamed=streamed)
    device, residency = world.device, world.residency
    schedule = Schedule(world.parts, plan, budget_bytes=budget * UNIT)
    predicted = schedule.simulate(rounds=2, is_jit=policy == "jit")
    moved = 0
    for number, step in enumerate(predicted):
        index = number % len(plan)
        if index == 0:
            world.quiet()
            residency.plan(plan)
        world.quiet()
        before, report, device.peak = residency.resident, Recorder(), 0
        with residency.use(step.use.stage, report):
            assert all(world.is_there(model) for model in step.use.models)
            assert residency.resident_bytes + step.use.workspace_bytes == step.peak_bytes <= budget * UNIT
        evicted = report.names("unloaded")
        assert evicted == list(step.moves.evicted)
        for position, name in enumerate(evicted):
            assert name[0] not in step.use.models
            kept = {one[0] for one in before - set(evicted[: position + 1])} - set(step.use.models)
            assert all(next_use(plan, index, name[0]) >= next_use(plan, index, one) for one in kept)
        world.quiet()
        assert device.peak + step.use.workspace_bytes <= budget * UNIT
        moved += schedule.size((*step.moves.loaded, *step.ahead))
        assert device.copied == moved
        world.check_books(host)
        if policy == "jit":
            assert device.used == 0
            assert residency.host_bytes == 0
    residency.unload()
    assert (residency.resident, device.used, residency.host_bytes) == (frozenset(), 0, 0)
    assert all(tensor.is_meta for module in world.modules.values() for tensor in module.parameters())


@settings(max_examples=25, deadline=None)
@given(layout=layouts, stages=plans, slack=st.integers(0, 12))
def test_fetching_ahead_changes_neither_what_is_there_nor_what_is_moved_in_vain(folder, layout, stages, slack):
    plan = uses(*stages)
    budget = max(sum(sum(layout[model]) for model in use.models) + use.workspace_bytes // UNIT for use in plan) + slack
    evicted_bytes = []
    for is_ahead in (True, False):
        world = World(folder, layout, budget=budget)
        world.residency.plan(plan)
        world.residency._fetches_ahead = is_ahead
        for use in plan * 2:
            with world.residency.use(use.stage, Recorder()):
                assert all(world.is_there(model) for model in use.models)
        world.quiet()
        evicted_bytes.append(world.device.copied - world.residency.resident_bytes)
    assert evicted_bytes[0] == evicted_bytes[1]


# deciding


def test_the_smallest_segment_that_is_enough_goes_of_those_needed_equally_late(folder):
    world = World(folder, {"a": [1, 5], "b": [11], "c": [4]}, budget=20)
    world.residency.plan(uses(("ab", 0), ("c", 2)))
    world.use("0:ab")
    assert world.use("1:c").names("unloaded") == ["aq"]


def test_what_the_plan_never_needs_goes_first(folder):
    world = World(folder, {"a": [4], "b": [4], "c": [4]}, budget=8)
    world.residency.plan(uses(("a", 0), ("b", 0)))
    world.use("0:a")
    world.use("1:b")
    world.residency.plan(uses(("c", 0), ("b", 0)))
    assert world.use("0:c").names("unloaded") == ["ap"]


def test_nothing_moves_when_all_fits_and_the_job_repeats(folder):
    world = World(folder, {"a": [4], "b": [4]}, budget=12)
    for _ in range(3):
        world.residency.plan(uses(("a", 4), ("b", 2)))
        world.use("0:a")
        world.use("1:b")
    assert world.device.copies == 2
    assert world.residency.host_bytes == 0


def test_host_memory_holds_what_will_come_back_and_what_is_streamed(folder):
    world = World(folder, {"a": [4], "b": [4], "c": [1], "t": [6]}, budget=6, host=14, streamed={"t"})
    world.residency.plan(uses(("t", 2), ("ac", 0), ("bc", 0)))
    for _ in range(2):
        for stage in ("0:t", "1:ac", "2:bc"):
            world.use(stage)
    assert world.residency.host_bytes == 14 * UNIT
    assert world.is_there("t")


def test_a_streamed_model_beyond_the_host_budget_is_read_from_its_file(folder):
    world = World(folder, {"t": [6]}, host=5, streamed={"t"})
    world.residency.plan(uses(("t", 2)))
    world.use("0:t")
    assert world.is_there("t")
    assert (world.residency.host_bytes, world.residency.resident_bytes) == (0, 0)


def test_stages_of_a_resumed_job_may_begin_in_the_middle_and_repeat(folder):
    world = World(folder, {"a": [1], "b": [1]}, budget=1)
    world.residency.plan([Use("x", ("a",), 0), Use("y", ("b",), 0), Use("x", ("b",), 0)])
    world.use("y")
    assert world.use("x").names("loaded") == []  # the second x, which runs b too
    assert world.use("x").names("loaded") == ["ap"]


def test_a_stage_that_can_never_fit_is_refused_before_anything_moves(folder):
    world = World(folder, {"a": [4], "b": [3]}, budget=6)
    world.residency.plan(uses(("b", 0), ("a", 3)))
    world.use("0:b")
    error = outcome(lambda: world.use("1:a"))
    assert isinstance(error, AdAgentError)
    assert error.info.code is ErrorCode.OUT_OF_MEMORY
    assert world.residency.resident == {"bp"}


def test_a_stage_that_was_not_planned_is_an_error(folder):
    with pytest.raises(ValueError, match="not in the plan"):
        World(folder, {"a": [1]}).use("none")


# fetching ahead


def gated(folder) -> tuple[World, threading.Event]:
    """While stage `0:a` runs, b is fetched ahead and waits at the gate."""
    world, gate = World(folder, {"a": [4], "b": [4]}, budget=10), threading.Event()
    world.device.gates[2] = gate
    world.residency.plan(uses(("a", 2), ("b", 2)))
    return world, gate


def test_the_next_model_is_fetched_beside_the_running_stage(folder):
    world, gate = gated(folder)
    with world.residency.use("0:a", Recorder()):
        assert world.device.is_waiting.wait(10)
        assert world.residency.resident_bytes == world.device.used == 8 * UNIT
        assert world.residency.resident == {"ap"}
        assert not world.is_there("b")
        gate.set()
    report = world.use("1:b")
    assert report.names("loaded") == ["bp"]
    assert world.is_there("b")
    assert world.device.copies == 2


def test_what_does_not_fit_yet_is_at_least_copied_to_host_memory(folder):
    world = World(folder, {"a": [4], "b": [4]}, budget=7, host=8)
    world.residency.plan(uses(("a", 2), ("b", 2)))
    world.use("0:a")
    world.quiet()
    assert world.residency.host_bytes == 8 * UNIT
    assert world.residency.resident == {"ap"}


def test_nothing_is_fetched_ahead_that_a_stage_between_would_push_out(folder):
    world = World(folder, {"a": [4], "b": [4]}, budget=10)
    world.residency.plan(uses(("a", 0), ("a", 5), ("b", 0)))
    world.use("0:a")
    world.quiet()
    assert world.residency.resident == {"ap"}


@pytest.mark.parametrize("error", [RuntimeError("CUDA error"), OSError("gone")])
def test_a_failure_ahead_is_met_by_the_stage_that_needs_it(folder, error):
    world = World(folder, {"a": [4], "b": [4]}, budget=10)
    world.device.copy_error = {2: error, 3: error}
    world.residency.plan(uses(("a", 2), ("b", 2)))
    world.use("0:a")
    assert repr(outcome(lambda: world.use("1:b"))) == repr(error)
    world.check_books()
    world.use("1:b")
    assert world.is_there("b")


def test_a_job_cancelled_while_it_waits_for_what_is_fetched_ahead_ends_that(folder):
    world, gate = gated(folder)
    world.use("0:a")
    report = Recorder(cancel_at=1, before_cancel=gate.set)
    assert isinstance(outcome(lambda: world.use("1:b", report)), Cancelled)
    assert report.moves == [("bp", "loading", 0)]
    world.check_books()
    world.use("1:b")
    assert world.is_there("b")


def test_unloading_does_not_wait_for_a_fetch_to_finish(folder):
    world, gate = gated(folder)
    world.use("0:a")
    prefetch = world.residency._prefetch
    assert world.device.is_waiting.wait(10)
    world.device.gates[2] = prefetch._is_ending
    del prefetch
    gate.set()
    world.residency.unload()
    assert world.device.chunks < 8
    assert world.device.used == 0


# running out of memory

TIGHT = {"a": [3, 2], "b": [4], "c": [2], "t": [3]}
TIGHT_PLAN = uses(("t", 1), ("ac", 2), ("b", 3), ("a", 1))


def tight(folder) -> World:
    world = World(folder, TIGHT, budget=10, host=8, streamed={"t"})
    world.residency.plan(TIGHT_PLAN)
    return world


def run_job(world: World, report: Recorder | None = None, shrink=lambda: None) -> list[int]:
    """Every stage needs its workspace from the device and computes with its models."""
    results = []
    for use in TIGHT_PLAN:

        def body(use=use) -> int:
            workspace = world.device.allocate(max(1, use.workspace_bytes))
            assert all(world.is_there(model) for model in use.models)
            return workspace.numel()

        results.append(world.residency.run(use.stage, body, report or Recorder(), shrink=shrink))
    return results


def allocations_of_a_job(folder) -> int:
    world = tight(folder)
    run_job(world)
    world.quiet()
    return world.device.allocations


def test_memory_that_runs_out_once_at_any_allocation_fails_no_job(folder):
    expected = run_job(tight(folder))
    for number in range(1, allocations_of_a_job(folder) + 1):
        world = tight(folder)
        world.device.fails = lambda count, number=number: count == number
        assert run_job(world) == expected
        world.quiet()
        world.check_books(8)


@pytest.mark.parametrize("times", [2, 3, 5])
def test_memory_that_runs_out_again_and_again_is_told_rung_by_rung_or_fails_cleanly(folder, times):
    for number in range(1, allocations_of_a_job(folder) + 1):
        world, report = tight(folder), Recorder()
        world.device.fails = lambda count, number=number: number <= count < number + times
        error = outcome(lambda world=world, report=report: run_job(world, report))
        if error is None:
            assert len(report.notices) <= times
        else:
            assert isinstance(error, AdAgentError)
            assert error.info.code is ErrorCode.OUT_OF_MEMORY
            assert (world.device.used, world.residency.resident) == (0, frozenset())
        world.device.fails = lambda count: False
        world.residency.plan(TIGHT_PLAN)
        run_job(world)
        world.quiet()
        world.check_books(8)


def test_memory_that_never_suffices_ends_at_baseline_and_everything_works_after(folder):
    for number in range(1, allocations_of_a_job(folder) + 1):
        world = tight(folder)
        world.device.fails = lambda count, number=number: count >= number
        error = outcome(lambda world=world: run_job(world))
        if number == allocations_of_a_job(folder) and error is None:
            continue  # the last may be one ahead of the end
        assert isinstance(error, AdAgentError)
        assert error.info.code is ErrorCode.OUT_OF_MEMORY
        assert error.__context__ is None
        assert (world.device.used, world.residency.resident) == (0, frozenset())
        world.device.fails = lambda count: False
        world.residency.plan(TIGHT_PLAN)
        run_job(world)


def test_the_rungs_come_in_order_after_two_flushes(folder):
    world, report = World(folder, {"a": [4], "b": [4]}, budget=10), Recorder()
    world.residency.plan(uses(("b", 0), ("a", 2)))
    world.use("0:b")
    tiles = [512, 256]
    tries: list[tuple[int, list[int], frozenset[str]]] = []

    def smaller() -> str | None:
        return f"tiles of {tiles.pop(0)}" if tiles else None

    def body() -> None:
        tries.append((world.device.flushes, list(tiles), world.residency.resident))
        raise torch.OutOfMemoryError("activations")

    error = outcome(lambda: world.residency.run("1:a", body, report, shrink=smaller))
    assert isinstance(error, AdAgentError)
    both, one = frozenset({"ap", "bp"}), frozenset({"ap"})
    assert tries == [
        (0, [512, 256], both),
        (1, [512, 256], both),
        (2, [512, 256], both),
        (3, [512, 256], one),
        (4, [256], one),
        (5, [], one),
        (6, [], one),
    ]
    assert report.notices[1:3] == ["tiles of 512", "tiles of 256"]
    assert len(report.notices) == 4


def test_a_smaller_set_holds_until_the_next_plan(folder):
    world = World(folder, {"a": [10], "b": [9]}, budget=20)
    plan = uses(("a", 0), ("b", 0))
    world.residency.plan(plan)
    failures = [torch.OutOfMemoryError("activations")] * 4

    def body() -> None:
        if failures:
            raise failures.pop()

    world.residency.run("0:a", body, Recorder())
    assert world.use("1:b").names("unloaded") == ["ap"]
    world.residency.plan(plan)
    assert world.use("0:a").names("unloaded") == []


def test_nothing_of_a_failed_try_is_held_when_the_next_begins(folder):
    world = tight(folder)
    used: list[int] = []

    def body() -> None:
        used.append(world.device.used - world.residency.resident_bytes)
        activations = world.device.allocate(7 * UNIT)
        raise torch.OutOfMemoryError(f"after {activations.numel()}")

    outcome(lambda: world.residency.run("0:t", body, Recorder()))
    assert used == [0] * 5
    assert world.device.used == 0


def test_an_error_that_breaks_the_process_is_not_taken_for_lack_of_memory(folder):
    world, report = tight(folder), Recorder()
    sticky = torch.AcceleratorError("CUDA error: an illegal memory access was encountered")
    tries = []

    def body() -> None:
        tries.append(1)
        raise sticky

    assert outcome(lambda: world.residency.run("0:t", body, report)) is sticky
    assert (len(tries), report.notices) == (1, [])


# being cancelled


def test_a_job_cancelled_at_any_message_leaves_true_books_and_can_run_again(folder):
    report = Recorder()
    run_job(tight(folder), report)
    for number in range(1, len(report.moves) + 1):
        world = tight(folder)
        error = outcome(lambda world=world, number=number: run_job(world, Recorder(cancel_at=number)))
        assert error is None or isinstance(error, Cancelled)
        world.quiet()
        world.check_books(8)
        world.residency.plan(TIGHT_PLAN)
        run_job(world)
        world.residency.unload()
        world.check_books(0)


def test_loading_tells_how_far_it_is_and_what_it_took(folder):
    world = World(folder, {"a": [3]})
    world.residency.plan(uses(("a", 0)))
    assert world.use("0:a").moves == [
        ("ap", "loading", 0),
        *(("ap", "loading", done * UNIT) for done in (1, 2, 3)),
        ("ap", "loaded", 3 * UNIT),
    ]


@pytest.mark.parametrize("failing", [1, 2, 3])
def test_a_copy_that_fails_leaves_no_buffer(folder, failing):
    world = World(folder, {"a": [3, 2], "b": [2]}, budget=6)
    world.residency.plan(uses(("a", 0), ("b", 0)))
    world.device.copy_error = {failing: RuntimeError("CUDA error")}
    for stage in ("0:a", "1:b"):
        outcome(lambda stage=stage: world.use(stage))
        world.quiet()
        world.check_books()


# real modules


class Net(nn.Module):
    """Tied weights, statistics, a table that no file holds, and weights in 8 bits."""

    def __init__(self) -> None:
        super().__init__()
        self.embed = nn.Embedding(11, 8)
        self.norm = nn.BatchNorm1d(8)
        self.eight = nn.Parameter(torch.empty(8, 8, dtype=torch.float8_e4m3fn), requires_grad=False)
        self.linear = nn.Linear(8, 8)
        self.head = nn.Linear(8, 11, bias=False)
        self.head.weight = self.embed.weight
        self.register_buffer("positions", torch.arange(4.0), persistent=False)

    def forward(self, tokens):
        hidden = self.norm(self.embed(tokens) + self.positions[:, None])
        return self.head(self.linear(hidden @ self.eight.float()))


def real_net(folder: Path, *, split: bool = True) -> tuple[Net, dict[str, FlatFile], Net]:
    """A net with weights, its files, and its shell."""
    torch.manual_seed(3)
    net = Net().eval()
    net.eight.data = torch.randn(8, 8).to(torch.float8_e4m3fn)
    net.norm.running_mean.copy_(torch.randn(8))
    net.norm.running_var.copy_(torch.rand(8) + 0.5)
    tensors = {name: tensor for name, tensor in net.state_dict().items() if name != "head.weight"}
    names = sorted(tensors)
    halves = [names[: len(names) // 2], names[len(names) // 2 :]] if split else [names]
    files = {}
    for letter, half in zip("ab", halves, strict=False):
        path = folder / f"net-{letter}-{split}.safetensors"
        write_flat(path, [(n, tensors[n].dtype, tuple(tensors[n].shape), lambda n=n: tensors[n]) for n in half])
        files[f"net/{letter}"] = FlatFile.open(path)
    with torch.device("meta"):
        shell = Net().eval()
    shell.positions = torch.arange(4.0)
    return net, files, shell


@pytest.mark.parametrize("host", [0, FOREVER])
def test_a_module_computes_the_same_when_its_weights_come_back(tmp_path, host):
    net, files, shell = real_net(tmp_path)
    tokens = torch.tensor([1, 5, 5, 10])
    positions = shell.positions
    residency = Residency(Device(), budget_bytes=FOREVER, host_budget_bytes=host, policy="auto")
    residency.add("net", shell, files)
    residency.plan([Use("run", ("net",), 0)])
    with torch.inference_mode():
        expected = net(tokens)
        for _ in range(3):
            with residency.use("run", Recorder()):
                assert torch.equal(shell(tokens), expected)
                assert shell.head.weight is shell.embed.weight
                assert shell.eight.dtype is torch.float8_e4m3fn
                assert not any(p.requires_grad for p in shell.parameters())
            residency.unload()
            assert all(tensor.is_meta for tensor in shell.state_dict().values())
            assert shell.positions is positions
            assert shell.head.weight is shell.embed.weight


def test_a_streamed_module_shows_each_layer_its_weights_only_while_it_runs(tmp_path):
    net, files, shell = real_net(tmp_path)

    class Elsewhere(Device):
        torch_device = torch.device("meta")

    residency = Residency(Elsewhere(), budget_bytes=0, host_budget_bytes=FOREVER)
    residency.add("net", shell, files, stream="layers")
    residency.plan([Use("run", ("net",), 0)])
    devices = []
    shell.linear.register_forward_pre_hook(lambda layer, *_: devices.append(layer.weight.device.type))
    with residency.use("run", Recorder()):
        shell.linear(torch.empty(2, 8, device="meta"))
        with contextlib.suppress(RuntimeError):
            shell.linear(torch.empty(2, 9, device="meta"))
        assert torch.equal(shell.linear.weight, net.linear.weight)
    assert devices == ["meta", "meta"]
    assert residency.resident_bytes == 0


def test_weights_without_a_module_are_read_on_the_host(tmp_path):
    net, files, _ = real_net(tmp_path, split=False)
    for host in (0, FOREVER):
        residency = Residency(SimulatedDevice(), budget_bytes=0, host_budget_bytes=host)
        residency.add("table", None, files, stream="tensors")
        residency.plan([Use("table", ("table",), 0)])
        groups = [["linear.weight"], ["linear.bias"]]
        with residency.use("table", Recorder()), closing(residency.reading("table", groups, Recorder())) as read:
            assert torch.equal(next(read)["linear.weight"], net.linear.weight)
            assert torch.equal(next(read)["linear.bias"], net.linear.bias)
        assert bool(residency.host_bytes) is bool(host)
        residency.unload()
        assert residency.host_bytes == 0


def test_reading_from_the_disk_tells_how_far_it_is_and_stops_when_it_is_to(tmp_path, monkeypatch):
    monkeypatch.setattr(Teller, "interval_s", 0)
    _, files, _ = real_net(tmp_path, split=False)
    residency = Residency(SimulatedDevice(), budget_bytes=0, host_budget_bytes=0)
    residency.add("table", None, files, stream="tensors")
    residency.plan([Use("table", ("table",), 0)])
    report = Recorder(cancel_at=2)
    ((name, file),) = files.items()
    sizes = [file.tensors[tensor].end - file.tensors[tensor].begin for tensor in ("linear.weight", "linear.bias")]
    with (
        residency.use("table", Recorder()),
        closing(residency.reading("table", [["linear.weight"], ["linear.bias"]], report)) as read,
    ):
        next(read)
        with pytest.raises(Cancelled):
            next(read)
    assert report.moves == [(name, "loading", sizes[0]), (name, "loading", sum(sizes))]


def test_files_that_are_not_those_of_the_model_are_refused_by_name(tmp_path):
    residency = Residency(Device(), budget_bytes=FOREVER, host_budget_bytes=0)
    _, files, shell = real_net(tmp_path)
    with pytest.raises(ValueError, match=r"norm\.weight is missing"):
        residency.add("net", shell, {"net/a": files["net/a"]})
    with pytest.raises(ValueError, match=r"linear\.bias is unknown"):
        residency.add("other", nn.Linear(8, 8, device="meta"), files)
    shell.norm = nn.BatchNorm1d(9, device="meta")
    with pytest.raises(ValueError, match="has shape"):
        residency.add("net", shell, files)
