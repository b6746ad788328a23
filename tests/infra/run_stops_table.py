"""The table of what ends a training or a service on Cloud Run in infra/README.md, by the real functions over simulated executions and services.

.venv/bin/python -m tests.infra.run_stops_table
"""

from __future__ import annotations

import base64
import importlib.util
import json
from collections.abc import Callable
from dataclasses import dataclass, field
from types import ModuleType, SimpleNamespace
from typing import Any

import pytest

from infra.plan import plan_bounds
from runners.fields import ReplicaSpec
from runners.planning import stacks
from tests.infra import executions, services
from tests.infra.executions import RunPlatform
from tests.infra.services import ServicePlatform
from tests.vm.stops import ROOT

BEGIN = "<!-- python -m tests.infra.run_stops_table -->"
STOPS = ("watchdog", "budget")
HORIZON_MINUTES = 70 * 60
BUDGET_USD, BUDGET_LAG_MINUTES = 50.0, 6 * 60
NEVER = 10.0**6


@dataclass(frozen=True)
class RunScenario:
    """A stack, and what happens to its execution or service: arguments of the stand-in."""

    name: str
    stack: str
    world: dict[str, Any] = field(default_factory=dict)


SCENARIOS = (
    RunScenario("a training that finishes", "train-run"),
    RunScenario("no card for five hours", "train-run", {"capacity": lambda _place, minute: "" if minute > 300 else "no card"}),
    RunScenario("a task is taken after 12 minutes, each time", "train-run", {"timeout_minutes": 12}),
    RunScenario("a stage crashes after 10 minutes, each time", "train-run", {"timeout_minutes": 10, "trains_minutes": NEVER, "needs_minutes": NEVER}),
    RunScenario("a task hangs and says nothing", "train-run", {"reports": False}),
    RunScenario("a stage never ends", "train-run", {"trains_minutes": NEVER, "needs_minutes": NEVER}),
    RunScenario(
        "a stage never ends, and the task does not look at its deadline",
        "train-run",
        {"trains_minutes": NEVER, "needs_minutes": NEVER, "deadline_minutes": NEVER},
    ),
    RunScenario("a service that nobody asks", "serve-l4-run"),
    RunScenario("a service asked for five minutes", "serve-l4-run", {"asked": lambda minute: minute < 5}),
    RunScenario("a service asked for ever", "serve-l4-run", {"asked": lambda _minute: True}),
    RunScenario("`min_instances: 1`, and nobody asks", "serve-l4-run", {"min_instances": 1}),
)


@dataclass(frozen=True)
class Ended:
    """What ended a scenario, after how many billed minutes; ``minutes`` is None where nothing did in 70 hours."""

    by: str
    minutes: int | None


def played(scenario: RunScenario, stops: tuple[str, ...] = STOPS) -> Ended:
    """Play a scenario with these stops beside what job and platform do by themselves."""
    stack = stacks.load(scenario.stack)
    machine = stack.spec.machine
    assert machine
    if scenario.stack == "train-run":
        bounds = {"most_tries": machine.max_attempts, "timeout_minutes": machine.max_run_minutes, "deadline_minutes": machine.deadline_minutes}
        world: Any = executions.platform(**{**bounds, **scenario.world})
    else:
        assert f'"{plan_bounds(machine, ReplicaSpec()).minutes}"' in json.dumps(services.platform().shown()), "the stand-in has this stack's bound"
        world = services.platform(**scenario.world)
    spent: list[float] = []
    usd_per_hour = stacks.planned(stack, offline=True).money.usd_per_hour
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("ELSON_RUN_REGIONS", "us-central1 us-east4")
        watchdog, budget = world.watched(patch), _budget(world, patch)
        ended_by = ""
        while world.minute < HORIZON_MINUTES and not _is_over(world):
            world.step()
            spent.append(world.billed / 60 * usd_per_hour)
            calls = len(world.calls)
            if "watchdog" in stops and world.minute % 5 == 0:
                watchdog.watch(None)
                ended_by = ended_by or ("watchdog" if _ended(world.calls[calls:]) else "")
            calls = len(world.calls)
            if "budget" in stops and world.minute % 30 == 0:
                known = spent[-1 - BUDGET_LAG_MINUTES] if len(spent) > BUDGET_LAG_MINUTES else 0.0
                budget.stop(_message(costAmount=known, budgetAmount=BUDGET_USD))
                ended_by = ended_by or ("budget" if _ended(world.calls[calls:]) else "")
    # A service of which no instance is left needs no end.
    at_rest = _is_over(world) or (isinstance(world, ServicePlatform) and not world.alive)
    return Ended(ended_by or _by_itself(world), round(world.billed) if at_rest else None)


def _is_over(world: RunPlatform | ServicePlatform) -> bool:
    return not world.alive and (isinstance(world, RunPlatform) or not world.is_there)


def _by_itself(world: RunPlatform | ServicePlatform) -> str:
    if isinstance(world, ServicePlatform):
        return "platform" if world.billed else "nothing to end"
    return "the job itself" if world.status in ("done", "deadline") else "platform"


def _ended(calls: list[str]) -> bool:
    return any(call.endswith(":cancel") or (call.startswith("DELETE ") and "/services/" in call) for call in calls)


def _budget(world: Any, patch: pytest.MonkeyPatch) -> ModuleType:
    spec = importlib.util.spec_from_file_location("stop_function", ROOT / "infra/functions/stop/main.py")
    assert spec and spec.loader
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    call: Callable[..., Any] = lambda method, url, token: world.call(method, url, token) if "run.googleapis.com" in url else {"items": {}}  # noqa: E731
    for name, value in {"_call": call, "_token": lambda: "a-token", "_say": lambda *_, **__: None}.items():
        patch.setattr(module, name, value)
    return module


def _message(**notice: Any) -> Any:
    body = {"message": {"data": base64.b64encode(json.dumps(notice).encode()).decode()}}
    return SimpleNamespace(get_json=lambda force: body)


def table(results: dict[str, dict[str, Ended]] | None = None) -> list[str]:
    """Rows of Markdown: every scenario with all stops, without the two functions, and with each of them alone; played here unless they are given."""
    rows = ["| stack | scenario | ended by | billed min | neither function | watchdog alone | budget alone |", "|---|---|---|---:|---:|---:|---:|"]
    for scenario in SCENARIOS:
        found = (results or {}).get(scenario.name) or every(scenario)
        figures = " | ".join("–" if found[key].minutes is None else str(found[key].minutes) for key in ("all", "neither", *STOPS))
        rows.append(f"| `{scenario.stack}` | {scenario.name} | {found['all'].by} | {figures} |")
    return rows


def every(scenario: RunScenario) -> dict[str, Ended]:
    """A scenario with all stops, with neither function, and with each alone."""
    return {"all": played(scenario), "neither": played(scenario, ()), **{stop: played(scenario, (stop,)) for stop in STOPS}}


def main() -> None:
    file = ROOT / "infra/README.md"
    text = file.read_text()
    begin, end = text.index(BEGIN) + len(BEGIN), text.index("<!-- end -->", text.index(BEGIN))
    file.write_text(text[:begin] + "\n".join(["", *table(), ""]) + text[end:])


if __name__ == "__main__":
    main()
