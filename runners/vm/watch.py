"""A server's readiness and idleness. Ready means that a completion came back and the gateway is up; idle, that nobody but this watcher asked for one.

The idle time is kept in the job's state: a server that boots again and again, and is ready each time, idles out all the same. Several servers of a group
share that state, and each publishes its queue and cache for their autoscaler: a use of any of them keeps all. Of two models, both have to answer, and a use
of either counts.
"""

from __future__ import annotations

import json
import time
from dataclasses import dataclass
from typing import Any

from runners import log
from runners.vm import decide, routes, state
from runners.vm.cloud import CloudError, call, guest_attribute
from runners.vm.containers import HEALTH_PORT, RUN
from runners.vm.decide import Activity, Decision
from runners.vm.metrics import KV_USE_METRIC, WAITING_METRIC, counters, together
from runners.vm.state import Context

_READY = RUN / "health" / "ready"
_STARTING_S, _STEADY_S = 2.0, 10.0
#: Completions that may fail in a row before /health says so (and the group's health check makes another VM).
_FAILURES = 3
_TELL_S = 60.0


def watch() -> int:
    """Follow the server until it idles out. Returns 1 when it did not become ready in time."""
    context = Context.load()
    serve: dict[str, Any] = context.spec["serve"]
    key = (RUN / "vllm" / "key").read_text()
    _READY.unlink(missing_ok=True)
    begin, failures, ready_at, told_at, uses = time.monotonic(), 0, None, -_TELL_S, None
    activity, phases, engines = Activity(0, 0, begin), dict[str, float](), [WatchedEngine(port, name) for port, name in routes.engines(serve)]
    while True:
        said = [engine.completes(key) for engine in engines]
        completed = all(said)
        answered = completed and gateway_answers()
        failures = 0 if answered else failures + 1
        if answered and ready_at is None:
            ready_at = time.monotonic()
            # Idling begins when there is something to use, and goes on where the boot before this one left off.
            activity = Activity(activity.answered, activity.probes, ready_at - _idled_before_s())
            phases = start_phases()
            log.event("ready: a completion came back", seconds=round(ready_at - begin, 1), phases=phases)
        if failures >= _FAILURES or state.interruption():
            _READY.unlink(missing_ok=True)
        elif answered:
            _READY.write_text("ready\n")
        if ready_at is None and time.monotonic() - begin > serve["ready_timeout_s"]:
            log.error("the server did not become ready", seconds=serve["ready_timeout_s"], completions=completed, gateway=gateway_answers())
            return 1
        if found := together([engine.read() for engine in engines]):
            activity = decide.observe(activity, found["answered"], found["in_flight"], sum(engine.probes for engine in engines), time.monotonic())
        idle_s = decide.idle_for_s(activity, time.monotonic())
        if ready_at is not None and time.monotonic() - told_at >= _TELL_S:
            used = uses is not None and activity.last_used_s > told_at
            _publish(context, found)
            if told := _tell(context, time.monotonic() - ready_at, idle_s, phases, used=used):
                activity = decide.with_others(activity, uses, told.uses, time.monotonic(), used=used)
                told_at, uses = time.monotonic(), told.uses
                idle_s = decide.idle_for_s(activity, time.monotonic())
        guest_attribute(
            "serving",
            json.dumps({"ready": ready_at is not None and failures < _FAILURES, "answered": activity.answered - activity.probes, "idle_s": round(idle_s)}),
        )
        if ready_at is not None and idle_s >= 60 * serve["idle_minutes"]:
            if _idle(context, serve["idle_minutes"], uses):
                return 0
            told_at = min(told_at, time.monotonic() - _TELL_S)
        time.sleep(_STEADY_S if ready_at is not None else _STARTING_S)


def gateway_answers() -> bool:
    """Whether the gateway listens; what it says about the server is this watcher's own word."""
    try:
        call("GET", f"http://127.0.0.1:{HEALTH_PORT}/health", tries=1, timeout_s=5)
    except CloudError as error:
        return error.code != 0
    return True


def _idled_before_s() -> float:
    """The idle time that the job's state had when this VM began."""
    return decide.Job.from_json(json.loads((RUN / "job.json").read_text())).idle_s


@dataclass
class WatchedEngine:
    """One vLLM, as it was seen last: tokens that it has made, and how many of its answers were to this watcher."""

    port: int
    model: str
    tokens: float = 0.0
    probes: int = 0

    def read(self) -> dict[str, float] | None:
        """Its counters now."""
        if found := read_counters(self.port):
            self.tokens = found["tokens"]
        return found

    def completes(self, key: str) -> bool:
        """Whether it makes tokens, for others or one for us.

        Tokens that are being made are a better sign than a probe, which would wait its turn behind a full queue and call a busy server dead.
        """
        before = self.tokens
        found = self.read()
        if found is not None and found["tokens"] > before:
            return True
        completed = probe(self.port, self.model, key)
        self.probes += completed
        return completed


def probe(port: int, model: str, key: str) -> bool:
    """Whether the server completes one token."""
    body = json.dumps({"model": model, "prompt": "1 + 1 =", "max_tokens": 1, "temperature": 0}).encode()
    headers = {"Content-Type": "application/json", "Authorization": f"Bearer {key}"}
    try:
        answer = json.loads(call("POST", f"http://127.0.0.1:{port}/v1/completions", body, headers, tries=1, timeout_s=30)[0])
    except (CloudError, ValueError):
        return False
    return bool(answer.get("choices"))


def read_counters(port: int) -> dict[str, float] | None:
    """Tokens made, requests answered and requests in flight, from vLLM's metrics; None when it does not answer."""
    try:
        return counters(call("GET", f"http://127.0.0.1:{port}/metrics", tries=1, timeout_s=10)[0].decode())
    except CloudError:
        return None


def start_phases() -> dict[str, float]:
    """The phases of the start that has just ended."""
    server = json.loads(state.PHASES.read_text()) if state.PHASES.exists() else {}
    return decide.start_phases(state.marks(), server, state.alive_s())


def _publish(context: Context, found: dict[str, float] | None) -> None:
    """Tell the autoscaler of a group of several what it sizes that by. A server that does not answer publishes nothing."""
    if context.facts.replicas == 1 or found is None:
        return
    try:
        values = {WAITING_METRIC: found["waiting"], KV_USE_METRIC: found["kv_use"]}
        context.cloud.write_gauges(context.facts, values, state.now().isoformat(timespec="seconds"))
    except CloudError as error:
        log.warning("queue and cache not published", problem=str(error)[:200])


def _tell(context: Context, ready_s: float, idle_s: float, phases: dict[str, float], *, used: bool) -> decide.Job | None:
    """Write down that the server is ready, and for how long nobody used it; a bucket that fails for a moment is no reason to stop serving."""
    try:
        return context.settle(lambda job: Decision("leave", _ready(job, ready_s, idle_s, phases, used=used))).job
    except CloudError as error:
        log.warning("readiness not written down", problem=str(error)[:200])
        return None


def _ready(job: decide.Job, ready_s: float, idle_s: float, phases: dict[str, float], *, used: bool) -> decide.Job:
    # One of several servers has found the group idle, and is ending it: that stays written, or the next start would go on counting from there.
    if job.status in (*decide.OVER, "idle") or state.interruption():
        return job
    return decide.when_ready(job, ready_s, idle_s, state.now(), phases, used=used)


def _idle(context: Context, minutes: int, uses: int | None) -> bool:
    """End this VM, and with it its group; False when another server of the group was used since this one looked."""
    try:
        decision = context.settle(lambda job: decide.when_idle(job, minutes, state.now(), uses if context.facts.replicas > 1 else None))
        if decision.action == "leave":
            return False
    except CloudError as error:
        log.error("the end could not be written down", problem=str(error)[:300])
    log.event("idle: this VM ends", minutes=minutes)
    _READY.unlink(missing_ok=True)
    state.end(context, context.facts)
    return True
