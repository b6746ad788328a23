"""Every way in which a training or a service on Cloud Run was thought to stay: which stop ends it, after how many billed minutes (``run_stops_table.py``)."""

from __future__ import annotations

import pytest

from tests.infra import run_stops_table
from tests.infra.run_stops_table import SCENARIOS, Ended
from tests.vm.stops import ROOT

Results = dict[str, dict[str, Ended]]


@pytest.fixture(scope="module")
def results() -> Results:
    return {scenario.name: run_stops_table.every(scenario) for scenario in SCENARIOS}


def test_every_scenario_ends_within_its_bound(results: Results) -> None:
    for scenario in SCENARIOS:
        found = results[scenario.name]["all"]
        assert found.by and found.minutes is not None, scenario.name
        assert found.minutes <= (190 if scenario.stack == "train-run" else 1470), scenario.name


def test_each_function_alone_ends_every_scenario_and_without_both_a_service_may_stay(results: Results) -> None:
    assert all(found["watchdog"].minutes is not None and found["budget"].minutes is not None for found in results.values())
    assert [name for name, found in results.items() if found["neither"].minutes is None] == ["a service asked for ever", "`min_instances: 1`, and nobody asks"]


def test_the_readme_has_these_figures(results: Results) -> None:
    text = (ROOT / "infra/README.md").read_text()
    begin = text.index(run_stops_table.BEGIN) + len(run_stops_table.BEGIN)
    written = text[begin : text.index("<!-- end -->", begin)].strip().splitlines()
    assert written == run_stops_table.table(results), "python -m tests.infra.run_stops_table writes them again"
