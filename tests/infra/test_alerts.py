"""The alerts' filters match what the VM's agent really writes."""

from __future__ import annotations

import json
import re

import pytest

from infra.components.alerts import EVENTS
from infra.components.dashboard import content
from runners import log
from runners.vm import logs

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


@pytest.mark.parametrize("status", ["preempted", "failed", "deadline", "done", "ready", "idle", "starting"])
def test_an_alert_for_each_bad_end_and_none_for_the_others(status: str, capsys: pytest.CaptureFixture[str]) -> None:
    log.event("decided", action="stop", status=status, reason="because", attempts=1)
    payload = written(capsys)
    assert {name for name, (_, condition, _) in EVENTS.items() if matches(condition, payload)} == ({status} & AGENT)


def test_a_vm_that_cannot_be_stopped(capsys: pytest.CaptureFixture[str]) -> None:
    log.error("could not end this VM", how="delete_instance", attempt=1, problem="403")
    payload = written(capsys)
    assert [name for name, (_, condition, _) in EVENTS.items() if matches(condition, payload)] == ["unstoppable"]


def test_the_agent_says_these_words() -> None:
    from pathlib import Path

    source = (Path(logs.__file__).parent / "state.py").read_text()
    assert 'log.event("decided", ' in source
    assert "status=decision.job.status" in source
    assert '"could not end this VM"' in source


def test_the_dashboard_shows_every_event() -> None:
    text = json.dumps(content("p"))
    assert all(f"elson/{name}" in text for name in EVENTS)
    assert "projects/p/logs/elson" in text
