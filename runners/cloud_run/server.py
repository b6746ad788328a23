"""vLLM as a child of this process, which

* reads the phases of its start from what it logs, and ends it when its weights turn out not to be those that were published,
* on SIGTERM lets the requests in flight finish, and then ends vLLM; Cloud Run kills after ten seconds.

Inside an instance of Cloud Run, where no agent looks after it (``health``), it also

* answers ``GET /health`` on loopback, 200 only while completions come back; the gateway passes it to the platform's startup probe,
* ends when completions stop coming back, so that the platform makes another instance.
"""

from __future__ import annotations

import json
import subprocess
import sys
import threading
import time
import urllib.error
import urllib.request
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import IO

from runners import log
from runners.artifacts.arrival import Arrival
from runners.errors import UserError
from runners.processes import bound
from runners.serving.phases import PHASES, Phases
from runners.vm.metrics import counters

#: Of the ten seconds between SIGTERM and SIGKILL; the rest is vLLM's own end.
DRAIN_S = 8.0
_END_S = 1.5
_STARTING_S, _STEADY_S, _DRAINING_S = 0.5, 10.0, 0.1
#: Completions that may fail in a row.
_FAILURES = 3
READY = "ready: a completion came back"


class Health:
    """What ``/health`` says, and the server that says it."""

    def __init__(self, port: int) -> None:
        self.ready = False
        health = self

        class Handler(BaseHTTPRequestHandler):
            def do_GET(self) -> None:
                status, text = (200, "ready") if health.ready else (503, "not ready")
                body = json.dumps({"status": text}).encode()
                self.send_response(status)
                self.send_header("Content-Type", "application/json")
                self.send_header("Content-Length", str(len(body)))
                if status == 503:
                    self.send_header("Retry-After", "10")
                self.end_headers()
                self.wfile.write(body)

            def log_message(self, *_: object) -> None:
                return

        self._server = ThreadingHTTPServer(("127.0.0.1", port), Handler)
        threading.Thread(target=self._server.serve_forever, daemon=True).start()

    def close(self) -> None:
        """Stop answering."""
        self._server.shutdown()
        self._server.server_close()


@dataclass
class Start:
    """What is known of a start. ``tell`` writes a status and the phases down where `elson status` looks; ``engine_is_up`` is called once."""

    phases: Phases
    arrival: Arrival | None = None
    tell: Callable[[str, dict[str, float]], None] | None = None
    engine_is_up: Callable[[], None] | None = None

    def follow(self, output: IO[bytes]) -> None:
        """Read the server's lines: phases are noted, warnings and errors passed on. The engine's last phase is said at once, for a VM's agent."""
        said = False
        for raw in output:
            line = raw.decode(errors="replace")
            if self.phases.line(line):
                sys.stderr.write(line)
                sys.stderr.flush()
            if not said and (said := "warm up" in (found := self.phases.seconds())):
                log.event(PHASES, phases=found)
                if self.engine_is_up:
                    self.engine_is_up()

    def ready(self) -> None:
        """The first completion came back."""
        found = self.phases.seconds(time.monotonic())
        log.event(READY, phases=found, seconds=round(sum(found.values()), 1))
        if self.tell:
            self.tell("ready", found)


def look_after(
    command: list[str],
    environment: Mapping[str, str],
    *,
    health: Health | None,
    port: int,
    model: str,
    key: str,
    ready_timeout_s: float,
    stopping: threading.Event,
    start: Start | None = None,
) -> int:
    """Run the server until it ends, stops answering, or ``stopping`` is set; returns this process's exit code."""
    start = start or Start(Phases())
    url = f"http://127.0.0.1:{port}"
    with subprocess.Popen(bound(command), env=dict(environment), stdout=subprocess.PIPE, stderr=subprocess.STDOUT) as child:
        reader = threading.Thread(target=start.follow, args=(child.stdout,), daemon=True)
        reader.start()
        try:
            code = _watch(child, health, url, model, key, ready_timeout_s, stopping, start) if health else _wait(child, stopping, start)
            if code is not None:
                return code
            if health:
                health.ready = False
            _drain(url, child)
            if start.tell:
                start.tell("idle", start.phases.seconds())
            return 0
        finally:
            if health:
                health.ready = False
            _end(child)
            reader.join(5)


def _ended(child: subprocess.Popen[bytes], start: Start) -> int | None:
    """The exit code when the server is no more, or must not go on."""
    problem = start.arrival.problem if start.arrival else None
    if isinstance(problem, UserError):
        log.error("the weights are refused, so this server ends", found=problem.found, expected=problem.expected, fix=problem.fix)
        return problem.exit_code
    if problem:
        log.error("the weights cannot be had, so this server ends", problem=repr(problem)[:600])
        return 1
    if child.poll() is not None:
        log.error("the server ended", code=child.returncode)
        return child.returncode or 1
    return None


def _wait(child: subprocess.Popen[bytes], stopping: threading.Event, start: Start) -> int | None:
    """Until the server ends or is told to; somebody else asks whether it is ready."""
    while not stopping.wait(_STARTING_S):
        if (code := _ended(child, start)) is not None:
            return code
    return None


def _watch(
    child: subprocess.Popen[bytes], health: Health, url: str, model: str, key: str, ready_timeout_s: float, stopping: threading.Event, start: Start
) -> int | None:
    begin, failures, tokens, was_ready = time.monotonic(), 0, 0.0, False
    while not stopping.is_set():
        if (code := _ended(child, start)) is not None:
            return code
        found = _counters(url)
        # A full queue would make a probe wait; tokens that are being made are a better sign.
        busy = found is not None and found["tokens"] > tokens
        tokens = found["tokens"] if found else tokens
        answered = busy or _completes(url, model, key)
        failures = 0 if answered else failures + 1
        if answered and not was_ready:
            was_ready = True
            start.ready()
        health.ready = was_ready and failures < _FAILURES and not stopping.is_set()
        if was_ready and failures >= _FAILURES:
            log.error("completions have stopped coming back: this instance ends", failures=failures)
            return 1
        if not was_ready and time.monotonic() - begin > ready_timeout_s:
            log.error("the server did not become ready", seconds=ready_timeout_s)
            return 1
        stopping.wait(_STEADY_S if was_ready else _STARTING_S)
    return None


def _drain(url: str, child: subprocess.Popen[bytes]) -> None:
    """Wait until no request is in flight, as long as the platform allows."""
    begin = time.monotonic()
    while child.poll() is None and time.monotonic() - begin < DRAIN_S:
        found = _counters(url)
        if found is None or found["in_flight"] == 0:
            break
        time.sleep(_DRAINING_S)
    log.event("drained", seconds=round(time.monotonic() - begin, 2))


def _end(child: subprocess.Popen[bytes]) -> None:
    child.terminate()
    try:
        child.wait(_END_S)
    except subprocess.TimeoutExpired:
        child.kill()


def _completes(url: str, model: str, key: str) -> bool:
    """Whether the server completes one token."""
    body = json.dumps({"model": model, "prompt": "1 + 1 =", "max_tokens": 1, "temperature": 0}).encode()
    headers = {"Content-Type": "application/json", "Authorization": f"Bearer {key}"}
    try:
        with urllib.request.urlopen(urllib.request.Request(f"{url}/v1/completions", body, headers), timeout=30) as answer:
            return bool(json.load(answer).get("choices"))
    except (OSError, ValueError):
        return False


def _counters(url: str) -> dict[str, float] | None:
    """vLLM's counters, or None when it does not answer."""
    try:
        with urllib.request.urlopen(f"{url}/metrics", timeout=5) as answer:
            return counters(answer.read().decode())
    except (OSError, ValueError):
        return None
