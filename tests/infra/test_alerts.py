"""The alerts' filters match what the VM's agent really writes."""

from __future__ import annotations

import json
import re
from collections.abc import Callable
from dataclasses import replace
from datetime import datetime
from pathlib import Path
from typing import Any

import pytest
from agent import START, Agent, Bucket
from conftest import ROOT

from infra.components.alerts import EVENTS
from infra.components.dashboard import content
from runners import log
from runners.vm import decide, logs, state
from runners.vm.cloud import CloudError
from runners.vm.decide import Decision, Job, Limits
from runners.vm.facts import Facts

AGENT = {"preempted", "failed", "deadline"}


def written(capsys: pytest.CaptureFixture[str]) -> dict[str, object]:
    row = {"MESSAGE": capsys.readouterr().err.strip(), "__REALTIME_TIMESTAMP": "1700000000000000", "__CURSOR": "c", "_SYSTEMD_UNIT": "elson-train.service"}
    payload = logs.entry(row)["jsonPayload"]
    assert isinstance(payload, dict)
    return payload


def matches(condition: str, payload: dict[str, object]) -> bool:
    """Cloud Logging's ``=`` (the whole field) and ``:`` (a part of it)."""
    found = re.fullmatch(r'jsonPayload\.(\w+)([=:])"(.*)"', condition)
    assert found is not None
    field, operator, text = found.groups()
    value = str(payload.get(field, ""))
    return value == text if operator == "=" else text in value


DECISIONS: dict[str, Callable[[Job, Limits, datetime], Decision]] = {
    "preempted": lambda job, limits, now: decide.after_stage(job, "train", 143, "preempted", limits, now),
    "failed": lambda job, limits, now: decide.after_stage(job, "train", 1, "", limits, now),
    "deadline": lambda job, limits, now: decide.at_deadline(replace(job, earlier_s=7200), limits, now),
    "done": lambda job, limits, now: decide.after_stage(job, "quantize", 0, "", limits, now),
    "retrying": lambda job, limits, now: decide.after_stage(job, "train", 139, "", limits, now),
}


@pytest.mark.parametrize("status", DECISIONS)
def test_an_alert_for_each_bad_end_and_none_for_the_others(status: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: Any) -> None:
    """What the agent writes when it really decides so, as Cloud Logging gets it."""
    agent = Agent(Bucket(), tmp_path, monkeypatch)
    agent.put(json.dumps(Job("job-1", "train", status="running", stage="train", attempts=1).to_json()))
    agent.context.settle(lambda job: DECISIONS[status](job, agent.context.limits, START))
    assert agent.state["status"] == status
    payload = written(capsys)
    assert {name for name, (_, condition, _) in EVENTS.items() if matches(condition, payload)} == ({status} & AGENT)


def test_a_state_that_nobody_can_read_is_a_failure_that_is_told(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: Any) -> None:
    agent = Agent(Bucket(), tmp_path, monkeypatch)
    agent.put("{not JSON")
    assert agent.context.settle(lambda job: Decision("work", job)).action == "stop"
    payload = written(capsys)
    assert [name for name, (_, condition, _) in EVENTS.items() if matches(condition, payload)] == ["failed"]
    assert "could not be read" in agent.state["reason"] and agent.state["status"] == "failed"


def test_a_vm_that_cannot_be_stopped(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: Any) -> None:
    agent, off = Agent(Bucket(), tmp_path, monkeypatch), list[list[str]]()
    monkeypatch.setattr(state, "_ENDED", tmp_path / "ended")
    monkeypatch.setattr(state, "_INTERRUPTION", tmp_path / "interruption")
    monkeypatch.setattr(state.time, "sleep", lambda _: None)
    monkeypatch.setattr(state.subprocess, "run", lambda command, **_: off.append(command))
    monkeypatch.setattr(agent.context.cloud, "delete_instance", refused)
    monkeypatch.setattr(agent.context.cloud, "empty_group", refused)
    state.end(agent.context, agent.context.facts)
    rows = [json.loads(line) for line in capsys.readouterr().err.splitlines()]
    assert [name for name, (_, condition, _) in EVENTS.items() if any(matches(condition, row) for row in rows)] == ["unstoppable"]
    assert off[-1] == ["systemctl", "poweroff"] and sum("could not end" in row["message"] for row in rows) == 10, "refusals are believed after five rounds"


def refused(_facts: Facts) -> None:
    raise CloudError(403, "no permission")


def test_a_training_on_cloud_run_is_told_where_its_containers_write(runs: Callable[..., Any], capsys: pytest.CaptureFixture[str]) -> None:
    """Cloud Run keeps what a container writes to stderr under a name of its own, JSON as fields."""
    log.event("decided", action="stop", status="failed")
    assert json.loads(capsys.readouterr().err)["status"] == "failed"
    for name in AGENT:
        selected = runs("foundation").only("Metric", f"count-{name}").inputs["filter"]
        assert re.findall(r'"projects/a-project/logs/([^"]+)"', selected) == ["elson", "run.googleapis.com%2Fstderr"]
        assert runs("foundation").only("AlertPolicy", f"alert-{name}").inputs["conditions"][0]["conditionMatchedLog"]["filter"] == selected


def test_what_the_watchdog_does_is_told() -> None:
    (condition,) = (condition for name, (_, condition, _) in EVENTS.items() if name == "watchdog")
    source = (ROOT / "infra/functions/watchdog/main.py").read_text()
    assert matches(condition, {"message": "watchdog: group resized to 0"}) and '"watchdog: group resized to 0"' in source


def test_the_dashboard_shows_every_event() -> None:
    text = json.dumps(content("p"))
    assert all(f"elson/{name}" in text for name in EVENTS)
    assert "projects/p/logs/elson" in text
