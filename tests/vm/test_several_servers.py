"""Servers of one group: the real watcher of each, in lock-step on one clock and one state. None ends while another is used; then all do."""

from __future__ import annotations

import json
import subprocess
import tempfile
import threading
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from runners.vm import cloud, decide, routes, state, steps, watch
from runners.vm.cloud import CloudError, gauges
from runners.vm.decide import Job
from runners.vm.facts import Facts
from runners.vm.metrics import KV_USE_METRIC, WAITING_METRIC
from runners.vm.state import Context
from tests.infra.agent import START, Bucket
from tests.infra.discovery import _walk, schemas
from tests.vm.stops import SWITCH

IDLE_MINUTES = 15


class Clock:
    """Time that passes when every thread sleeps, to the next one's end."""

    def __init__(self, threads: int) -> None:
        self.now, self.running, self.wakes = 1000.0, threads, dict[int, float]()
        self.turn = threading.Condition()

    def monotonic(self) -> float:
        return self.now

    def sleep(self, seconds: float) -> None:
        with self.turn:
            me = threading.get_ident()
            self.wakes[me] = self.now + seconds
            self._pass()
            while me in self.wakes:
                self.turn.wait()

    def gone(self) -> None:
        with self.turn:
            self.running -= 1
            self._pass()

    def _pass(self) -> None:
        if self.wakes and len(self.wakes) == self.running:
            first = min(self.wakes, key=lambda thread: (self.wakes[thread], thread))
            self.now = max(self.now, self.wakes.pop(first))
            self.turn.notify_all()


class World:
    """``in_flight(vm, s)``: requests that a server has, ``s`` seconds after the beginning."""

    def __init__(self, servers: int, in_flight: Callable[[int, float], int], folder: Path, patch: pytest.MonkeyPatch) -> None:
        self.in_flight, self.clock, self.bucket = in_flight, Clock(servers), Bucket()
        self.ended: dict[int, float] = {}
        self.published: dict[int, int] = {}
        self.facts = [
            Facts("p", "us-central1-a", f"vm-{n}", f"{n}", "serve", "serve-1", "elson-serve-1", "us-central1", "gs://s/specs/a.json", {}, "", servers)
            for n in range(servers)
        ]
        for name in ("health", "vllm"):
            (folder / name).mkdir()
        (folder / "vllm" / "key").write_text("a-key")
        for module, name, value in (
            (watch, "time", SimpleNamespace(monotonic=self.clock.monotonic, sleep=self.clock.sleep)),
            (watch, "RUN", folder),
            (watch, "_READY", folder / "health" / "ready"),
            (state, "RUN", folder),
            (state, "guest_attribute", lambda *_: None),
            (watch, "guest_attribute", lambda *_: None),
            (watch, "probe", lambda *_: True),
            (watch, "gateway_answers", lambda: True),
            (watch, "start_phases", dict),
            (watch, "_idled_before_s", lambda: 0.0),  # from a file that each VM has to itself
            (watch, "read_counters", self.counters),
            (state, "alive_s", lambda: self.clock.now),
            (state, "boot_id", lambda: f"boot-{self.me}"),
            (state, "now", lambda: START),
            (state, "end", self.end),
            (watch.Context, "load", self.context),
            (self.bucket, "write_gauges", self.write),
        ):
            patch.setattr(module, name, value)
        threads = [threading.Thread(target=self.run, name=str(number), daemon=True) for number in range(servers)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join(60)
        assert not any(thread.is_alive() for thread in threads), "it goes on for ever"

    @property
    def me(self) -> int:
        return int(threading.current_thread().name)

    def run(self) -> None:
        try:
            watch.watch()
        finally:
            self.clock.gone()

    def context(self) -> Context:
        spec = {
            "buckets": {"models": "gs://m", "scratch": "gs://s"},
            "machine": {"max_attempts": 5},
            "serve": {"served_model_name": "elson", "ready_timeout_s": 900, "idle_minutes": IDLE_MINUTES},
        }
        made = Context(self.facts[self.me], spec)
        made.cloud = self.bucket
        return made

    def write(self, facts: Facts, values: dict[str, float], at: str) -> None:
        assert facts.instance_id == str(self.me) and values.keys() == {WAITING_METRIC, KV_USE_METRIC} and at
        self.published[self.me] = self.published.get(self.me, 0) + 1

    def counters(self, _port: int) -> dict[str, float]:
        there = float(self.in_flight(self.me, self.clock.now - 1000))
        return {"tokens": 0.0, "answered": 0.0, "in_flight": there, "waiting": 0.0, "kv_use": 0.1}

    def end(self, _context: Context, facts: Facts) -> None:
        self.ended[int(facts.instance_id)] = self.clock.now - 1000


@pytest.fixture
def quiet(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("event", "warning", "error"):
        monkeypatch.setattr(watch.log, name, lambda *_, **__: None)


def test_a_server_that_is_not_asked_stays_while_another_is(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, quiet: None) -> None:
    last_s = 3 * 3600
    world = World(2, lambda vm, at_s: int(vm == 1 and at_s < last_s), tmp_path, monkeypatch)
    first = min(world.ended.values())
    assert last_s + 60 * IDLE_MINUTES - 10 <= first <= last_s + 60 * IDLE_MINUTES + 130, world.ended
    assert all(count >= first // 70 for count in world.published.values()) and len(world.published) == 2
    job = Job.from_json(json.loads(world.bucket.objects["gs://s/jobs/serve-1/state.json"][0]))
    assert job.status == "idle" and len(world.ended) == 2
    assert watch._ready(job, 5000, 0, {}, used=True) == job, "nobody calls a group ready that one has found idle"
    again = decide.at_boot(job, decide.Boot("next", "vm-9", "z", START.isoformat()), decide.Limits(10, None), START)
    assert again.action == "work" and again.job.idle_s == 0


@settings(max_examples=15, deadline=None)
@given(st.lists(st.tuples(st.integers(0, 2), st.integers(0, 240), st.integers(1, 20)), max_size=12))
def test_no_group_ends_within_its_idle_minutes_of_a_use(uses: list[tuple[int, int, int]]) -> None:
    """Whatever servers are used when: (server, first minute, minutes)."""
    with pytest.MonkeyPatch.context() as patch, tempfile.TemporaryDirectory() as folder:
        for name in ("event", "warning", "error"):
            patch.setattr(watch.log, name, lambda *_, **__: None)
        spans = [(server, 60 * begin, 60 * (begin + length)) for server, begin, length in uses]
        world = World(3, lambda vm, at_s: sum(vm == server and begin <= at_s < end for server, begin, end in spans), Path(folder), patch)
    ended = min(world.ended.values())
    used_until = [min(60.0 * (begin + length), ended) for _, begin, length in uses if 60 * begin < ended - 140]
    last = max(used_until, default=0.0)
    assert ended >= last + 60 * IDLE_MINUTES - 140, (ended, last)
    assert ended <= last + 60 * IDLE_MINUTES + 140, "one that is not used ends"


@pytest.mark.parametrize("silent", [False, True])
@pytest.mark.parametrize(
    ("servers", "notice_s", "busy_until_s", "stops_at_s"),
    [(1, 120, 0, 0), (1, 120, 40, 40), (3, 120, 0, 20), (3, 120, 40, 40), (1, 120, 500, 90), (3, 120, 500, 90), (1, 0, 500, 0), (3, 0, 500, 0)],
)
def test_a_server_that_is_taken_back_answers_for_as_long_as_its_notice_allows(
    servers: int, notice_s: int, busy_until_s: int, stops_at_s: int, silent: bool, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Of several, until the load balancer has heard of it, too; then its gateway is stopped, which lets answers end, and its model last. ``silent``: a full
    server's counters cannot be had."""
    two = {"served_model_name": "one", "second": {"served_model_name": "other"}}
    passed, stopped = 0.0, list[tuple[float, str]]()

    def sleep(seconds: float) -> None:
        nonlocal passed
        passed += seconds

    def counters(port: int) -> dict[str, float] | None:
        busy = passed < busy_until_s and port == routes.SECOND_PORT
        return None if busy and silent else {"in_flight": float(busy)}

    (tmp_path / "health").mkdir()
    (tmp_path / "health/ready").write_text("ready\n")
    context = SimpleNamespace(facts=replace(FACTS, replicas=servers), spec={"machine": {"preemption_notice_s": notice_s}, "serve": two}, settle=lambda _: None)
    for module, name, value in (
        (steps.Context, "load", lambda: context),
        (state, "RUN", tmp_path),
        (steps, "RUN", tmp_path),
        (state, "_INTERRUPTION", tmp_path / "interruption"),
        (steps, "call", lambda *_, **__: (b"TRUE", {})),
        (steps, "guest_attribute", lambda *_: None),
        (steps, "_keep_logs", lambda _: None),
        (steps, "time", SimpleNamespace(monotonic=lambda: passed, sleep=sleep)),
        (steps, "read_counters", counters),
        (steps.containers, "stop", lambda stage: stopped.append((passed, stage))),
    ):
        monkeypatch.setattr(module, name, value)
    assert steps.preemption() == 0 and state.interruption() == "preempted" and not (tmp_path / "health/ready").exists()
    assert [at_s for at_s, _ in stopped] == [stops_at_s] * len(stopped) and (stopped[0][1], stopped[-1][1]) == ("gateway", "serve")


FACTS = Facts("p", "us-central1-a", "vm-1", "77", "serve", "serve-1", "elson-serve-1", "us-central1", "gs://s/specs/a.json", {}, "", 3)


def test_figures_are_points_that_cloud_monitoring_knows() -> None:
    body = gauges(FACTS, {WAITING_METRIC: 3.0, KV_USE_METRIC: 0.5}, "2026-03-01T00:00:00+00:00")
    found: list[str] = []
    _walk(schemas("monitoring.v3"), schemas("monitoring.v3")["CreateTimeSeriesRequest"], body, "CreateTimeSeriesRequest", found)
    assert not found and [series["points"][0]["value"]["doubleValue"] for series in body["timeSeries"]] == [3.0, 0.5]
    assert body["timeSeries"][0]["resource"] == {"type": "gce_instance", "labels": {"project_id": "p", "instance_id": "77", "zone": "us-central1-a"}}


class Compute(cloud.Cloud):
    """A group as Compute keeps it: with an autoscaler its size cannot be set, and an autoscaler is gone some calls after it was told to go."""

    def __init__(self, *, scaler: bool = True) -> None:
        super().__init__()
        self.size, self.scaler, self.going = 3, scaler, 0
        self.calls: list[str] = []

    def _authorized(self, method: str, url: str, body: bytes | None = None, kind: str = "", **_: Any) -> tuple[bytes, dict[str, str]]:
        self.calls.append(f"{method} {url.rsplit('/', 1)[-1]}")
        if method == "DELETE":
            if not self.scaler:
                raise CloudError(404, "no autoscaler")
            self.scaler, self.going = False, 1
        elif "resize" in url:
            if self.scaler or self.going:
                self.going = max(0, self.going - 1)
                raise CloudError(412, "Resizing of autoscaled regional managed instance groups is not allowed.")
            self.size = 0
        elif not self.scaler:
            self.size -= 1
        return b"{}", {}


@pytest.mark.parametrize("known", [True, False])
def test_of_several_servers_one_ends_the_group_only_when_the_job_is_over(known: bool, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, quiet: None) -> None:
    compute = Compute()
    for name, value in (("RUN", tmp_path), ("_ENDED", tmp_path / "ended"), ("_INTERRUPTION", tmp_path / "interruption"), ("Cloud", lambda: compute)):
        monkeypatch.setattr(state, name, value)
    monkeypatch.setattr(state.time, "sleep", lambda _: None)
    monkeypatch.setattr(state.logs, "upload", lambda *_: None)
    context = SimpleNamespace(cloud=compute, folder="gs://s/jobs/serve-1") if known else None
    state.end(context, FACTS)  # type: ignore[arg-type]
    if known:
        assert compute.size == 0 and not compute.scaler and (tmp_path / "ended").exists()
    else:
        assert compute.calls == ["POST deleteInstances"] and compute.size == 3, "the autoscaler makes another"


@pytest.mark.parametrize("servers", [1, 3])
@pytest.mark.parametrize(("code", "rounds"), [(403, 5), (503, 16)])
def test_an_idle_group_that_cannot_be_emptied_is_over_and_tried_again(
    code: int, rounds: int, servers: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Otherwise the VM that its group makes next would begin to serve again, and idle again, for ever."""

    class Refusing(Bucket):
        tries = 0

        def empty_group(self, _: Facts) -> None:
            self.tries += 1
            raise CloudError(code, "Required 'compute.autoscalers.delete' permission")

        delete_instance = empty_group

    said, off = list[str](), list[list[str]]()
    bucket = Refusing()
    for module, name, value in (
        (state, "RUN", tmp_path),
        (steps, "RUN", tmp_path),
        (state, "_ENDED", tmp_path / "ended"),
        (state, "_INTERRUPTION", tmp_path / "interruption"),
        (state, "boot_id", lambda: "boot-1"),
        (state, "alive_s", lambda: 900.0),
        (state, "now", lambda: START),
        (state, "guest_attribute", lambda *_: None),
        (state.time, "sleep", lambda _: None),
        (state.logs, "upload", lambda *_: None),
        (state.log, "error", lambda message, **_: said.append(message)),
        (state.subprocess, "run", lambda command, **_: off.append(command)),
    ):
        monkeypatch.setattr(module, name, value)
    context = Context(replace(FACTS, replicas=servers), {"buckets": {"models": "gs://m", "scratch": "gs://s"}, "machine": {"max_attempts": 5}})
    context.cloud = bucket  # type: ignore[assignment]
    context.settle(lambda job: decide.when_idle(job, 15, START))
    state.end(context, context.facts)
    assert bucket.tries == rounds * (2 if servers == 1 else 1) and off == [["systemctl", "poweroff"]] and not (tmp_path / "ended").exists()
    assert said.count("could not end this VM") == bucket.tries and "switching off" in said[-1]
    job = Job.from_json(json.loads(bucket.objects["gs://s/jobs/serve-1/state.json"][0]))
    assert job.status == "failed" and job.reason.startswith("no request for 15 minutes, and its group could not be told to end")
    again = decide.at_boot(job, decide.Boot("next", "vm-9", "z", START.isoformat()), decide.Limits(10, None), START)
    assert again.action == "stop", "which tries to end the group once more; the watchdog stops what is over"


def test_a_group_whose_autoscaler_is_gone_already_is_emptied() -> None:
    compute = Compute(scaler=False)
    compute.empty_group(FACTS)
    assert compute.size == 0


@pytest.mark.parametrize("several", [True, False])
def test_a_server_of_several_on_which_nothing_works_ends_alone(several: bool) -> None:
    """The dead man's switch of the real startup script, in bash, where no unit of ours ever works."""
    asked: list[str] = []
    with subprocess.Popen(["bash", "-c", SWITCH], stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True, bufsize=1) as switch:
        assert switch.stdin and switch.stdout
        for line in switch.stdout:
            asked.append(line)
            if "poweroff" in line:
                break
            answer = "ok"
            if "elson-replicas" in line:
                answer = "ok3" if several else "failed"
            elif "token" in line:
                answer = 'ok{"access_token": "a-token", "expires_in": 3599}'
            elif "metadata" in line:
                answer = "ok60"
            switch.stdin.write(answer + "\n")
        switch.kill()
    assert sum(line.startswith("sleep 60") for line in asked) == 15 and "poweroff" in asked[-1]
    assert any("resize?size=0" in line for line in asked) is not several
