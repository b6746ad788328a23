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

from infra.components.alerts import EVENTS, sources
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


def matches(condition: str, payload: dict[str, object], **entry: object) -> bool:
    """Cloud Logging's AND and OR of comparisons: ``=`` (the whole field), ``:`` (a part of it), ``=~`` (a pattern). ``entry``: what is no payload."""
    fields = {**entry, **{f"jsonPayload.{key}": value for key, value in payload.items()}}

    def compared(found: re.Match[str]) -> str:
        field, operator, text = found.groups()
        value = str(fields.get(field, ""))
        return str(value == text if operator == "=" else text in value if operator == ":" else bool(re.search(text, value)))

    formula = re.sub(r'([\w.]+)(=~|=|:)"([^"]*)"', compared, condition).replace("AND", "and").replace("OR", "or")
    assert re.fullmatch(r"(?:True|False|and|or|[() ])+", formula), formula
    return bool(eval(formula))


def selects(name: str, payload: dict[str, object], log_name: str, kind: str = "", **labels: str) -> bool:
    entry = {"logName": f"projects/a-project/logs/{log_name}", "resource.type": kind, **{f"resource.labels.{key}": value for key, value in labels.items()}}
    return matches(f"{sources('a-project', name)} AND {EVENTS[name][1]}", payload, **entry)


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
    written = json.loads(capsys.readouterr().err)
    stderr, job = "run.googleapis.com%2Fstderr", "cloud_run_job"
    assert selects("failed", written, stderr, job, job_name="elson-train-01234567") and selects("failed", written, stderr, job, job_name="elson-quantize-0")
    assert selects("failed", written, "elson", "gce_instance"), "a VM's"
    assert not selects("failed", written, stderr, job, job_name="nightly-report"), "another job of the project that has a status"
    assert not selects("failed", written, stderr, "cloud_run_revision", service_name="elson-train-01234567")
    assert not selects("failed", written, "another", "gce_instance")
    for name in EVENTS:
        selected = runs("foundation").only("Metric", f"count-{name}").inputs["filter"]
        assert selected == f"{sources('a-project', name)} AND {EVENTS[name][1]}"
        assert runs("foundation").only("AlertPolicy", f"alert-{name}").inputs["conditions"][0]["conditionMatchedLog"]["filter"] == selected


@pytest.mark.parametrize(
    ("function", "message"),
    [
        ("watchdog", "watchdog: group resized to 0"),
        ("watchdog", "watchdog: execution cancelled"),
        ("watchdog", "watchdog: service deleted"),
        ("stop", "budget used up: group resized to 0"),
        ("stop", "budget used up: execution cancelled"),
        ("stop", "budget used up: service deleted"),
    ],
)
def test_what_is_stopped_from_outside_is_told(function: str, message: str) -> None:
    assert f'"{message}"' in (ROOT / f"infra/functions/{function}/main.py").read_text()
    stdout = "run.googleapis.com%2Fstdout"
    assert selects("watchdog", {"message": message}, stdout, "cloud_run_revision", service_name=f"elson-{function}")
    assert not selects("watchdog", {"message": message}, stdout, "cloud_run_revision", service_name="another")
    assert not selects("watchdog", {"message": "watchdog: another place is asked"}, stdout, "cloud_run_revision", service_name="elson-watchdog")


def test_the_dashboard_shows_every_event() -> None:
    text = json.dumps(content("p"))
    assert all(f"elson/{name}" in text for name in EVENTS)
    assert "projects/p/logs/elson" in text
