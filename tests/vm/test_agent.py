"""The agent's pure parts, and that what travels in the metadata is constant, small and needs nothing but Python."""

from __future__ import annotations

import ast
import dataclasses
import json
import subprocess
import sys
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from runners import log
from runners.errors import UserError
from runners.spec import MachineSpec, ServeSpec, Spec
from runners.vm import containers, facts, logs, payload, steps, watch
from runners.vm.cloud import CloudError
from runners.vm.decide import Decision
from tests.infra.agent import Agent, Bucket

ROOT = Path(__file__).resolve().parents[2]
PINNED = "us-docker.pkg.dev/proj/elson/{}@sha256:" + "a" * 64
SPEC = Spec(machine=MachineSpec(machine_type="a3-highgpu-1g"), serve=ServeSpec(max_sequences=16)).model_dump(mode="json")


def metadata(role: str = "train", **changes: str) -> dict[str, Any]:
    attributes = {
        "elson-role": role,
        "elson-job-id": "dora-0123456789abcdef",
        "elson-group": "elson-train-01234567",
        "elson-region": "us-central1",
        "elson-spec-uri": "gs://scratch/specs/abc.json",
        "elson-images": json.dumps({stage: PINNED.format(stage) for stage in ("train", "quantize", "serve", "gateway")}),
        "elson-secret": "projects/proj/secrets/elson-api-key",
        **changes,
    }
    instance = {"name": "vm-1", "id": 42, "zone": "projects/1/zones/us-central1-c", "attributes": attributes}
    return {"project": {"projectId": "proj"}, "instance": instance}


def test_facts_come_from_the_metadata() -> None:
    found = facts.parse(metadata())
    assert (found.project, found.zone, found.instance_id, found.job_id) == ("proj", "us-central1-c", "42", "dora-0123456789abcdef")
    assert set(found.images) == {"train", "quantize"} and found.secret == ""
    assert set(facts.parse(metadata("serve")).images) == {"serve", "gateway"}


@pytest.mark.parametrize(
    ("key", "value"),
    [
        ("elson-role", "both"),
        ("elson-job-id", "../other"),
        ("elson-group", "Group"),
        ("elson-spec-uri", "https://example.org/spec.json"),
        ("elson-images", "not JSON"),
        ("elson-images", json.dumps({"train": "us-docker.pkg.dev/proj/elson/train:latest", "quantize": PINNED.format("quantize")})),
        ("elson-images", json.dumps({"train": PINNED.format("train")})),
    ],
)
def test_bad_metadata_is_refused_by_name(key: str, value: str) -> None:
    with pytest.raises(UserError) as refusal:
        facts.parse(metadata(**{key: value}))
    assert key in str(refusal.value) or "image of" in str(refusal.value)


def test_a_stage_runs_pinned_without_capabilities_and_with_the_gpus() -> None:
    command = containers.run_arguments("merge", facts.parse(metadata()), SPEC)
    assert command[-5:] == [PINNED.format("train"), "merge", "--spec", "gs://scratch/specs/abc.json", "--work", "/scratch"][-5:]
    assert PINNED.format("train") in command, "merging happens in the training image"
    for option, value in (
        ("--cap-drop", "ALL"),
        ("--security-opt", "no-new-privileges"),
        ("--user", "10001"),
        ("--device", "nvidia.com/gpu=all"),
        ("--ipc", "host"),
    ):
        assert command[command.index(option) + 1] == value
    assert "--privileged" not in command


def test_the_gateway_has_no_gpu_no_key_in_its_arguments_and_a_read_only_root() -> None:
    command = containers.run_arguments("gateway", facts.parse(metadata("serve")), SPEC)
    assert "--device" not in command and "--read-only" in command
    assert "ELSON_SITE=:8000" in command and "ELSON_MAX_IN_FLIGHT=32" in command and "ELSON_UPSTREAM=127.0.0.1:8001" in command
    with_domain = {**SPEC, "serve": {**SPEC["serve"], "domain": "llm.example.org"}}
    assert "ELSON_SITE=llm.example.org" in containers.run_arguments("gateway", facts.parse(metadata("serve")), with_domain)


def test_several_servers_are_named_in_the_metadata_and_have_attempts_of_their_own() -> None:
    one, three = (facts.parse(metadata("serve", **changes)) for changes in ({}, {"elson-replicas": "3"}))
    assert (one.replicas, three.replicas) == (1, 3)
    assert facts.limits(SPEC, "serve", three.replicas).max_attempts == 3 * facts.limits(SPEC, "serve").max_attempts
    with pytest.raises(UserError, match="elson-replicas"):
        facts.parse(metadata("serve", **{"elson-replicas": "many"}))


def test_a_server_has_no_deadline_and_a_training_has() -> None:
    assert facts.limits(SPEC, "serve").deadline_minutes is None
    assert facts.limits(SPEC, "train").deadline_minutes == 120


def test_keys_become_a_matcher_and_odd_ones_are_refused_unseen() -> None:
    assert f"({'a' * 40}|{'b' * 40})" in steps.key_matcher(["a" * 40, "b" * 40])
    for bad in ([], ["sh0rt"], ['x" *\nrespond 200 # ' + "y" * 30], ["é" * 40]):
        with pytest.raises(UserError) as refusal:
            steps.key_matcher(bad)
        assert not any(key in str(refusal.value) for key in bad)


@given(st.text(max_size=80))
def test_no_key_can_write_anything_but_itself_into_the_gateways_configuration(key: str) -> None:
    try:
        text = steps.key_matcher([key])
    except UserError:
        return
    assert text == f"@authorized header_regexp Authorization `^(?i:bearer) +({key})$`\n" and not set(key) & set('"\n\\{}()[]|.*+?^$` ')


def test_vllms_counters_are_summed_over_their_labels() -> None:
    text = """# HELP vllm:request_success_total Count
vllm:request_success_total{finished_reason="stop",model_name="m"} 3.0
vllm:request_success_total{finished_reason="length",model_name="m"} 2.0
vllm:num_requests_running{model_name="m"} 1.0
vllm:generation_tokens_total{model_name="m"} 80.0
vllm:num_requests_waiting{model_name="m"} 4.0
vllm:num_requests_waiting_by_reason{model_name="m"} 9.0
vllm:kv_cache_usage_perc{model_name="m"} 0.25
"""
    assert watch.counters(text) == {"tokens": 80.0, "answered": 5.0, "in_flight": 5.0, "waiting": 4.0, "kv_use": 0.25}


def test_progress_is_what_a_runner_logs() -> None:
    assert log.read_progress('{"severity": "INFO", "stage": "train", "message": "train", "done": 3, "total": 9, "loss": 2.1}') == {
        "message": "train",
        "done": 3,
        "total": 9,
        "loss": 2.1,
    }
    for other in ("", "Traceback", "{broken", '{"message": "no numbers"}', "[1, 2]"):
        assert log.read_progress(other) is None


def test_log_entries_keep_severity_and_fields() -> None:
    row = {"__REALTIME_TIMESTAMP": "1700000000000000", "__CURSOR": "s=1;i=2", "_SYSTEMD_UNIT": "elson-train.service", "PRIORITY": "6"}
    ours = logs.entry({**row, "MESSAGE": '{"severity": "ERROR", "message": "it broke", "step": 4}'})
    assert (ours["severity"], ours["jsonPayload"]["step"], ours["labels"]["unit"]) == ("ERROR", 4, "elson-train.service")
    assert logs.entry({**row, "MESSAGE": "plain", "PRIORITY": "3"})["severity"] == "ERROR"
    assert logs.entry({**row, "MESSAGE": [104, 105]})["textPayload"] == "hi"
    assert logs.entry({**row, "MESSAGE": "null"})["textPayload"] == "null"


def test_our_own_failures_to_send_are_not_sent() -> None:
    assert not logs.is_forwarded({"_SYSTEMD_UNIT": "elson-logs.service", "SYSLOG_IDENTIFIER": "elson"})
    assert logs.is_forwarded({"SYSLOG_IDENTIFIER": "systemd", "UNIT": "elson-train.service"})
    assert not logs.is_forwarded({"SYSLOG_IDENTIFIER": "systemd", "UNIT": "cron.service"})


def test_the_metadata_is_constant_and_small() -> None:
    first, second = payload.metadata(), payload.metadata()
    assert first == second and set(first) == {"startup-script", "elson-units"}
    assert all(len(value.encode()) < 256 * 1024 for value in first.values())
    assert sum(len(value.encode()) for value in first.values()) < 300 * 1024
    paths = set(payload.files())
    assert "/etc/systemd/system/elson-check.service" in paths and "/opt/elson/runners/vm/decide.py" in paths and "/opt/elson/prepare.sh" in paths


def test_the_agent_needs_only_the_standard_library() -> None:
    known = sys.stdlib_module_names | {"runners"}
    for path, text in payload.files().items():
        if path.endswith(".py"):
            for node in ast.walk(ast.parse(text)):
                names = (
                    [alias.name for alias in node.names] if isinstance(node, ast.Import) else [node.module or ""] if isinstance(node, ast.ImportFrom) else []
                )
                if path.endswith(("log.py", "layout.py", "outside.py")):
                    continue  # their imports of others are inside functions a VM does not reach, as the next test shows
                assert {name.split(".")[0] for name in names} <= known, path


def test_the_unpacked_agent_starts_with_nothing_else_there(tmp_path: Path) -> None:
    for path, text in payload.files().items():
        if path.startswith("/opt/elson/"):
            file = tmp_path / path.removeprefix("/opt/elson/")
            file.parent.mkdir(parents=True, exist_ok=True)
            file.write_text(text)
    # -S leaves out every installed package; -E every variable that could bring one back.
    done = subprocess.run([sys.executable, "-S", "-E", "-m", "runners.vm", "--help"], cwd=tmp_path, capture_output=True, text=True, check=False)
    assert done.returncode == 0 and "check" in done.stdout, done.stderr


def test_a_state_says_when_it_was_written_though_a_stage_says_nothing_and_an_end_keeps_its_time(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """By it a machine of another kind knows that this one is at work, and `elson retry` where Compute cannot be asked."""
    agent = Agent(Bucket(), tmp_path, monkeypatch)
    begin = agent.context.settle(lambda job: steps._at_boot(agent.context, job))
    assert begin.action == "work"
    times = []
    for _ in range(3):
        agent.alive_s, agent.wall_s = agent.alive_s + 600, agent.wall_s + 600
        agent.context.settle(lambda job: Decision("leave", job))
        times.append(agent.state["updated_at"])
    assert times == sorted(set(times)) and len(times) == 3
    agent.context.settle(lambda job: Decision("stop", dataclasses.replace(job, status="done")))
    ended = agent.state["updated_at"]
    agent.alive_s, agent.wall_s = agent.alive_s + 600, agent.wall_s + 600
    agent.context.settle(lambda job: Decision("stop", job))
    assert agent.state["updated_at"] == ended


@pytest.mark.parametrize(("stage", "pulled"), [("train", ["quantize"]), ("merge", ["quantize"]), ("quantize", [])])
@pytest.mark.parametrize("fault", ["", "docker login", "docker pull", "token"])
def test_later_images_are_pulled_ahead_and_nothing_depends_on_it(stage: str, pulled: list[str], fault: str, monkeypatch: pytest.MonkeyPatch) -> None:
    asked: list[str] = []

    def token() -> str:
        if fault == "token":
            raise CloudError(503, "the metadata server is away")
        return "t"

    def run(command: list[str], **_: Any) -> subprocess.CompletedProcess[str]:
        text = " ".join(command)
        asked.append(command[-1] if text.startswith("docker pull") else "")
        return subprocess.CompletedProcess(command, int(bool(fault) and text.startswith(fault)), "", "no")

    monkeypatch.setattr(steps.subprocess, "run", run)
    found = dataclasses.replace(facts.parse(metadata()), images={name: PINNED.format(name) for name in ("train", "quantize")})
    steps._pull_ahead(SimpleNamespace(facts=found, cloud=SimpleNamespace(token=token)), stage)  # type: ignore[arg-type]
    assert [image for image in asked if image] == ([PINNED.format(name) for name in pulled] if fault in ("", "docker pull") else [])
