"""A server's start by the plan: the sums, what is said of each figure, and the goals where they are reached."""

from __future__ import annotations

import re
from itertools import product
from pathlib import Path

import pytest

from runners.fields import CompiledSpec
from runners.planning import stacks, starting
from runners.planning.machines import machine
from runners.planning.parts import PlannedPhase
from runners.spec import MachineSpec, ServeSpec
from runners.training.shape import QWEN2_14B, resident_bytes

WEIGHTS_GB = resident_bytes(QWEN2_14B, "awq", 128) / 1e9
RUN = MachineSpec(role="serve", machine_type="run-l4-8", provisioning_model="RUN", region="us-east4")
STOCK = MachineSpec(role="serve", machine_type="g2-standard-8", disk_gb=100)
BAKED = STOCK.model_copy(update={"image_is_baked": True})
WITH_WEIGHTS = BAKED.model_copy(update={"baked_model": "0123456789abcdef"})
SERVE = ServeSpec(model_manifest="0123456789abcdef")


def phases(wanted: MachineSpec, *, compiled: bool = True, spec: ServeSpec = SERVE) -> tuple[PlannedPhase, ...]:
    return starting.phases(spec, wanted, machine(wanted.machine_type), WEIGHTS_GB, compiled=compiled)


def seconds(wanted: MachineSpec, *, compiled: bool = True, spec: ServeSpec = SERVE) -> tuple[float, float, float]:
    found = phases(wanted, compiled=compiled, spec=spec)
    return sum(one.optimistic_s for one in found), sum(one.expected_s for one in found), sum(one.pessimistic_s for one in found)


@pytest.mark.parametrize(("wanted", "compiled", "eager"), [*product((RUN, STOCK, BAKED, WITH_WEIGHTS), (False, True), (None, True))])
def test_each_phase_is_a_range_and_says_where_it_comes_from(wanted: MachineSpec, compiled: bool, eager: bool | None) -> None:
    best = expected = worst = 0.0
    for one in phases(wanted, compiled=compiled, spec=SERVE.model_copy(update={"eager": eager})):
        assert re.search("measured|assumed|quoted", one.source), one
        assert min(one.optimistic_s, one.expected_s, one.pessimistic_s) >= 0
        best, expected, worst = best + one.optimistic_s, expected + one.expected_s, worst + one.pessimistic_s
        # Of the whole start so far: a program that starts faster waits longer for the same weights.
        assert best <= expected <= worst, one


@pytest.mark.parametrize("wanted", [RUN, STOCK, BAKED, WITH_WEIGHTS])
def test_what_is_published_saves_what_the_plan_says(wanted: MachineSpec) -> None:
    with_it, without = seconds(wanted), seconds(wanted, compiled=False)
    assert all(less < more for less, more in zip(with_it, without, strict=True))
    if not wanted.baked_model:
        assert without[1] - with_it[1] == pytest.approx(starting.compiled_saves_s(SERVE))
    assert starting.compiled_saves_s(SERVE.model_copy(update={"compiled": CompiledSpec(id="compiled-1", manifest="x")})) == 0.0


def test_a_start_on_cloud_run_keeps_its_goal_with_published_code() -> None:
    wanted = stacks.load("serve-l4-run").spec
    assert wanted.machine and starting.goal_s(wanted.machine) == 60
    assert seconds(wanted.machine, spec=wanted.serve)[1] <= 60 < seconds(wanted.machine, compiled=False, spec=wanted.serve)[1]


def test_a_baked_vm_does_not_keep_its_goal_and_a_stock_one_has_none() -> None:
    """Boot and reading the image from a network disk are 61 s of it. When a figure changes this, the page on images has to say so."""
    best, expected, _ = seconds(BAKED)
    assert best < starting.GOAL_BAKED_S < expected
    assert starting.goal_s(BAKED) == 75 and starting.goal_s(STOCK) is None
    assert expected < seconds(STOCK)[1] / 5


def test_weights_on_the_boot_disk_are_slower_than_the_bucket_unless_the_disk_is_very_large() -> None:
    host = machine("g2-standard-8")
    assert seconds(WITH_WEIGHTS)[1] > seconds(BAKED)[1] + 30
    disk_s, bucket_s = starting.baked_weights_s(WITH_WEIGHTS, host, WEIGHTS_GB)
    assert disk_s == pytest.approx(WEIGHTS_GB * 1e9 / (168 * 2**20), rel=0.01), "140 + 0.28 x 100 MiB/s"
    assert bucket_s < disk_s / 5
    large = WITH_WEIGHTS.model_copy(update={"disk_gb": 2000})
    assert seconds(large)[1] == pytest.approx(seconds(large.model_copy(update={"baked_model": None}))[1]), "both are here before the program is"


def test_weights_of_another_model_on_the_boot_disk_change_nothing() -> None:
    assert phases(WITH_WEIGHTS.model_copy(update={"baked_model": "f" * 16})) == phases(BAKED)


PAGE = Path(__file__).resolve().parents[2] / "images" / "README.md"
ROWS = (
    ("Cloud Run, 8 cores", RUN, False),
    ("the same, code published", RUN, True),
    ("VM, stock image", STOCK, False),
    ("the same, code published", STOCK, True),
    ("VM, baked image", BAKED, False),
    ("the same, code published", BAKED, True),
    ("the same, weights baked too", WITH_WEIGHTS, True),
)


def row(name: str, wanted: MachineSpec, compiled: bool) -> str:
    best, expected, worst = seconds(wanted, compiled=compiled)
    took = {one.name: one.expected_s for one in phases(wanted, compiled=compiled)}
    inside = ("program", "weights", "compile", "graphs", "warm up", "first completion")
    first = sum(second for phase, second in took.items() if phase not in (*inside, "image read", "image streamed"))
    image = took.get("image read", took.get("image streamed", 0.0))
    cells = (first, image, *(took[phase] for phase in inside))
    return f"| {name} | **{expected:.0f}** ({best:.0f} to {worst:.0f}) | {' | '.join(f'{cell:.0f}' for cell in cells)} |"


@pytest.mark.parametrize(("name", "wanted", "compiled"), ROWS)
def test_the_page_has_the_plans_figures(name: str, wanted: MachineSpec, compiled: bool) -> None:
    assert row(name, wanted, compiled) in PAGE.read_text(), row(name, wanted, compiled)
