"""Every way in which a VM was seen to stay, in simulated time with the real decisions: which stop ends it, after how many billed minutes (``stops.py``)."""

from __future__ import annotations

import pytest

from tests.vm import stops_table
from tests.vm.scenarios import SCENARIOS
from tests.vm.stops import ROOT, STOPS, World

Results = dict[str, dict[str, World]]


@pytest.fixture(scope="session")
def results() -> Results:
    """Scenario -> "all" or one stop alone -> what happened."""
    return {s.name: {"all": World(s).run(), **{stop: World(s, (stop,)).run() for stop in STOPS}} for s in SCENARIOS}


@pytest.mark.timeout(1500)
def test_every_scenario_ends_with_the_vm_gone_within_its_bound(results: Results) -> None:
    for name, worlds in results.items():
        world = worlds["all"]
        assert world.ended_by and world.size == 0 and not any(vm.on for vm in world.vms), name
        assert world.minutes is not None and world.minutes <= world.bounds.minutes + 30, name
        assert len(world.vms) <= world.bounds.vms + 2, name


def test_the_watchdog_and_the_budget_end_every_scenario_alone(results: Results) -> None:
    for name, worlds in results.items():
        assert worlds["watchdog"].minutes is not None and worlds["budget"].minutes is not None, name


@pytest.mark.parametrize("stop", STOPS)
def test_each_stop_ends_something_alone(stop: str, results: Results) -> None:
    worlds = [found[stop] for found in results.values()]
    if stop == "platform":  # it ends each VM; that a group makes no other one after that is not known
        assert all(max(vm.number for vm in world.vms) > 1 for world in worlds)
        return
    assert sum(world.minutes is not None for world in worlds) >= len(worlds) / 2
    assert {world.ended_by for world in worlds if world.minutes is not None} == {stop}


@pytest.mark.parametrize(
    ("name", "status", "words"),
    [
        ("the job's state is not JSON in the middle", "failed", "could not be read"),
        ("the job's state has another shape at boot", "failed", "attempts is 'many'"),
        ("no capacity for five hours after a preemption", "done", ""),
        ("the gateway is dead, vLLM is fine", "failed", "attempts used up"),
        ("the gateway dies two minutes after each start", "failed", "attempts used up"),
        ("a spot VM is taken three minutes after each start", "failed", "attempts used up"),
        ("the clock jumps ten hours ahead", "deadline", "120 minutes"),
        ("the clock jumps ten hours back", "deadline", "120 minutes"),
        ("a server that nobody uses", "idle", "60 minutes"),
    ],
)
def test_the_job_says_why_it_ended(name: str, status: str, words: str, results: Results) -> None:
    job = results[name]["all"].job
    assert job["status"] == status and words in job["reason"]


def test_the_readme_has_these_figures(results: Results) -> None:
    text = (ROOT / "infra/README.md").read_text()
    written = text[text.index(stops_table.BEGIN) + len(stops_table.BEGIN) : text.index("<!-- end -->", text.index(stops_table.BEGIN))].strip().splitlines()
    assert written == stops_table.table(results), "python -m tests.vm.stops_table writes them again"
