"""VMs whose containers run the project's real runners, on the tiny model: training that is preempted and resumes; a server behind its gateway."""

from __future__ import annotations

import json
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest

from runners.spec import MachineSpec
from tests.vm.simulation import seed
from tests.vm.simulation.world import World

Start = Callable[..., World]
MACHINE = MachineSpec(machine_type="a3-highgpu-1g", max_attempts=3)


@pytest.fixture
def seeded(cloud: World) -> World:
    """A world whose buckets hold a base model and a dataset."""
    cloud.fill(seed.files())
    return cloud


@pytest.mark.timeout(600)
def test_training_is_preempted_resumes_on_another_vm_and_is_published(start: Start, seeded: World) -> None:
    tiny = seed.resolved(MACHINE)
    training = tiny.train.model_copy(update={"epochs": 40, "early_stop_evaluations": 100})
    spec = tiny.model_copy(update={"train": training, "merge": tiny.merge.model_copy(update={"publish": False})})
    world = start(spec)

    def checkpoints() -> list[Path]:
        return list(world.object("gs://scratch/checkpoints").rglob("manifest.json"))

    world.wait(checkpoints, 180, "a checkpoint in the bucket")
    world.preempt(notice_s=12)
    assert checkpoints(), "the newest checkpoint reached the bucket before the VM went"
    world.wait_until_ended(400)
    job = world.job()
    assert (job["status"], job["attempts"], world.boots) == ("done", 2, 2)
    said = world.logs()
    assert "a checkpoint is written" in said and "going on from a checkpoint" in said
    published = [json.loads(file.read_text()) for file in world.object("gs://models/registry").glob("*.json")]
    assert {entry["kind"] for entry in published if entry["status"] == "ready"} == {"base", "dataset", "dora", "qdora"}
    record = json.loads(next(world.object("gs://models").glob("tiny-dora-*/record.json")).read_text())
    assert record["code"]["commit"] == "simulated" and 1 <= record["metrics"]["resumed_from_step"] < 200


@pytest.mark.timeout(600)
def test_a_server_becomes_ready_answers_refuses_and_idles_out(start: Start, seeded: World) -> None:
    tiny = seed.resolved(MACHINE)
    spec = tiny.model_copy(update={"serve": tiny.serve.model_copy(update={"model": tiny.base_model.name, "port": 8000, "idle_minutes": 1, "max_sequences": 2})})
    world = start(spec, role="serve", job="serve-1", **{"elson-group": "serve-group"})
    world.wait(lambda: health(world) == 503, 60, "the gateway to answer")
    assert world.job()["status"] == "starting", "the gateway is up long before the model is"
    world.wait(lambda: health(world) == 200, 300, "the server to be ready")
    world.wait(lambda: world.job()["status"] == "ready", 60, "the job to say so too")
    assert world.job()["attempts"] == 1, "forgotten only after it has been ready for some minutes"

    key = {"Authorization": f"Bearer {world.apis.secret}"}
    asked = {"model": "elson", "messages": [{"role": "user", "content": "What is a bond?"}], "max_tokens": 8}
    status, headers, body = post(world, "/v1/chat/completions", asked, key)
    assert status == 200 and json.loads(body)["choices"][0]["finish_reason"], body
    assert headers["x-content-type-options"] == "nosniff" and headers["cache-control"] == "no-store" and "server" not in headers
    status, headers, body = post(world, "/v1/chat/completions", {**asked, "stream": True}, key)
    assert headers["content-type"].startswith("text/event-stream") and body.rstrip().endswith(b"data: [DONE]")
    status, _, body = world.request("GET", "/v1/models", headers=key)
    assert status == 200 and json.loads(body)["data"][0]["id"] == "elson"

    refuses_strangers(world, asked)
    publishes_nothing_else(world, asked, key)
    keeps_its_limits(world, asked, key)
    keeps_its_secrets(world)

    used = world.wait(
        lambda: (world.guest_attribute("serving") or {}).get("answered", 0) >= 6 and world.guest_attribute("serving"), 30, "the use to be counted"
    )
    assert used["ready"], "answers are counted, probes are not"
    world.wait_until_ended(120)
    assert world.job()["status"] == "idle" and world.apis.deleted == ["vm-1"]


def health(world: World) -> int:
    try:
        return world.request("GET", "/health", timeout_s=5)[0]
    except OSError:
        return 0


def post(world: World, path: str, body: Any, headers: dict[str, str]) -> tuple[int, dict[str, str], bytes]:
    return world.request("POST", path, json.dumps(body).encode(), {"Content-Type": "application/json", **headers})


def refuses_strangers(world: World, asked: Any) -> None:
    wrong = (
        {},
        {"Authorization": "Bearer wrong"},
        {"Authorization": world.apis.secret},
        {"X-API-Key": world.apis.secret},
    )
    for headers in wrong:
        status, answered, body = post(world, "/v1/chat/completions", asked, headers)
        assert status == 401 and answered["www-authenticate"] == "Bearer", (headers, body)
        assert world.request("GET", "/v1/models", headers=headers)[0] == 401


def publishes_nothing_else(world: World, asked: Any, key: dict[str, str]) -> None:
    """Every other path vLLM has, spelled in every way that may slip through, with a valid key."""
    hidden = [
        "/metrics",
        "/invocations",
        "/tokenize",
        "/detokenize",
        "/version",
        "/ping",
        "/load",
        "/docs",
        "/openapi.json",
        "/v1/embeddings",
        "/v1/responses",
        "/",
    ]
    hidden += ["/v1/load_lora_adapter", "/v1/audio/transcriptions", "/pause", "/sleep", "/reset_prefix_cache", "/server_info"]
    odd = [
        "//metrics",
        "/v1/../metrics",
        "/v1/completions/../../metrics",
        "/%6detrics",
        "/v1/completions/..%2f..%2fmetrics",
        "/v1/chat/completions/",
        "/v1/models/elson",
        "/metrics?x=/v1/models",
    ]
    for path in hidden + odd:
        for method in ("GET", "POST"):
            status, _, body = world.request(method, path, json.dumps(asked).encode() if method == "POST" else None, {"Content-Type": "application/json", **key})
            assert status in (301, 308, 400, 404), (method, path, status, body[:200])
    assert world.request("GET", "/v1/chat/completions", headers=key)[0] == 405
    assert world.request("DELETE", "/v1/models", headers=key)[0] == 405
    inside = world.machine.run("ss", "--listening", "--tcp", "--numeric", "--no-header").stdout
    open_ports = {line.split()[3] for line in inside.splitlines()}
    assert not any(address.startswith(("0.0.0.0:8001", "*:8001")) for address in open_ports), "vLLM is on loopback only"


def keeps_its_limits(world: World, asked: Any, key: dict[str, str]) -> None:
    large = {**asked, "messages": [{"role": "user", "content": "x" * 1_100_000}]}
    assert post(world, "/v1/chat/completions", large, key)[0] == 413
    long = {**asked, "max_tokens": 400, "ignore_eos": True}
    with ThreadPoolExecutor(10) as pool:
        statuses = list(pool.map(lambda _: post(world, "/v1/chat/completions", long, key)[:2], range(10)))
    codes = [status for status, _ in statuses]
    assert set(codes) == {200, 429}, codes
    assert codes.count(200) >= 4, "twice what vLLM runs together is let in"
    assert all(headers["retry-after"] == "2" for status, headers in statuses if status == 429)


def keeps_its_secrets(world: World) -> None:
    """The key is in no argument, no environment, no log and no file of the disk; prompts are in no log."""
    secret = world.apis.secret
    machine = world.machine
    assert secret not in machine.run("sh", "-c", "cat /proc/[0-9]*/cmdline /proc/[0-9]*/environ 2>/dev/null | tr '\\0' '\\n'").stdout
    assert secret not in machine.run("docker", "inspect", "elson-gateway", "elson-serve").stdout
    journal = machine.run("journalctl", "--no-pager").stdout
    assert secret not in journal and "What is a bond?" not in journal
    assert not machine.run("grep", "-rl", "--", secret, "/var/lib/elson", "/etc", "/var/log", check=False).stdout
    assert machine.run("stat", "--format=%a %u", "/run/elson/secrets/keys.caddy").stdout.strip() == "400 10001"
