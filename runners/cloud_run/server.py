"""vLLM, one for each model, as children of this process, which

* starts the second one when the first is up: each measures the card's memory while it starts, and would count what the other takes meanwhile,
* reads the phases of its start from what it logs, and ends it when its weights turn out not to be those that were published,
* on SIGTERM lets the requests in flight finish, and then ends vLLM; Cloud Run kills after ten seconds,
* ends with all of them when one ends.

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
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
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
    """What is known of a start. ``tell`` writes a status and the phases down where `elson status` looks; ``engine_is_up`` is called once; ``is_last`` is
    false for the first of two, whose phases the second one's say."""

    phases: Phases
    arrival: Arrival | None = None
    tell: Callable[[str, dict[str, float]], None] | None = None
    engine_is_up: Callable[[], None] | None = None
    is_last: bool = True

    def follow(self, output: IO[bytes]) -> None:
        """Read the server's lines: phases are noted, warnings and errors passed on. The engine's last phase is said at once, for a VM's agent."""
        said = False
        for raw in output:
            line = raw.decode(errors="replace")
            if self.phases.line(line):
                sys.stderr.write(line)
                sys.stderr.flush()
            if not said and (said := self.phases.is_up):
                if self.is_last:
                    log.event(PHASES, phases=self.phases.seconds())
                if self.engine_is_up:
                    self.engine_is_up()

    def ready(self) -> None:
        """The first completion came back, from every model."""
        found = self.phases.seconds(time.monotonic())
        log.event(READY, phases=found, seconds=round(sum(found.values()), 1))
        if self.tell:
            self.tell("ready", found)


@dataclass
class Engine:
    """One vLLM: how it is started, and what is seen of it."""

    command: list[str]
    environment: Mapping[str, str]
    port: int
    model: str
    start: Start = field(default_factory=lambda: Start(Phases()))
    tokens: float = 0.0
    was_up: bool = False
    child: subprocess.Popen[bytes] | None = None
    reader: threading.Thread | None = None

    def begin(self) -> None:
        """Start it."""
        if self.start.arrival:
            self.start.arrival.start()
        self.child = subprocess.Popen(bound(self.command), env=dict(self.environment), stdout=subprocess.PIPE, stderr=subprocess.STDOUT)
        self.reader = threading.Thread(target=self.start.follow, args=(self.child.stdout,), daemon=True)
        self.reader.start()

    def counters(self) -> dict[str, float] | None:
        """vLLM's counters, or None when it does not answer, which it does when its engine is up."""
        try:
            with urllib.request.urlopen(f"http://127.0.0.1:{self.port}/metrics", timeout=5) as answer:
                found = counters(answer.read().decode())
        except (OSError, ValueError):
            return None
        self.was_up = True
        return found

    def completes(self, key: str) -> bool:
        """Whether it makes tokens: for others, or one for us. A full queue would make a probe wait, so what others get is the better sign."""
        found = self.counters()
        busy = found is not None and found["tokens"] > self.tokens
        self.tokens = found["tokens"] if found else self.tokens
        return busy or _completes(self.port, self.model, key)

    def is_idle(self) -> bool:
        """Whether no request is in flight. One that has answered and is silent is busy: a full server may take longer than we wait for its counters."""
        if self.child is None or self.child.poll() is not None:
            return True
        found = self.counters()
        return found["in_flight"] == 0 if found else not self.was_up

    def ended(self) -> int | None:
        """The exit code when it is no more, or must not go on."""
        problem = self.start.arrival.problem if self.start.arrival else None
        if isinstance(problem, UserError):
            log.error("the weights are refused, so this server ends", model=self.model, found=problem.found, expected=problem.expected, fix=problem.fix)
            return problem.exit_code
        if problem:
            log.error("the weights cannot be had, so this server ends", model=self.model, problem=repr(problem)[:600])
            return 1
        if self.child and self.child.poll() is not None:
            log.error("the server ended", model=self.model, code=self.child.returncode)
            return self.child.returncode or 1
        return None


def look_after(engines: Sequence[Engine], *, health: Health | None, key: str, ready_timeout_s: float, stopping: threading.Event) -> int:
    """Run the servers until one ends or stops answering, or ``stopping`` is set; returns this process's exit code.

    Args:
        engines: in the order of their start.
        health: says whether they are ready, where no agent does (Cloud Run); None on a VM.
        key: what vLLM asks for.
        ready_timeout_s: for all of them together.
        stopping: set by SIGTERM.
    """
    start = engines[-1].start
    try:
        engines[0].begin()
        code = _watch(engines, health, key, ready_timeout_s, stopping) if health else _wait(engines, stopping)
        if code is not None:
            return code
        if health:
            health.ready = False
        _drain(engines)
        if start.tell:
            start.tell("idle", start.phases.seconds())
        return 0
    finally:
        if health:
            health.ready = False
        _end(engines)


def _ended(engines: Sequence[Engine]) -> int | None:
    """The exit code of the first that is no more; begins the next one when those before it are up."""
    code = next((code for engine in engines if (code := engine.ended()) is not None), None)
    waiting = [engine for engine in engines if engine.child is None]
    if code is None and waiting and engines[-len(waiting) - 1].counters() is not None:
        waiting[0].begin()
    return code


def _wait(engines: Sequence[Engine], stopping: threading.Event) -> int | None:
    """Until a server ends or they are told to; somebody else asks whether they are ready."""
    while not stopping.wait(_STARTING_S):
        if (code := _ended(engines)) is not None:
            return code
    return None


def _watch(engines: Sequence[Engine], health: Health, key: str, ready_timeout_s: float, stopping: threading.Event) -> int | None:
    begin, failures, was_ready = time.monotonic(), 0, False
    while not stopping.is_set():
        if (code := _ended(engines)) is not None:
            return code
        # Each is asked, whatever another says: its tokens are counted from look to look.
        said = [engine.child is not None and engine.completes(key) for engine in engines]
        answered = all(said)
        failures = 0 if answered else failures + 1
        if answered and not was_ready:
            was_ready = True
            engines[-1].start.ready()
        health.ready = was_ready and failures < _FAILURES and not stopping.is_set()
        if was_ready and failures >= _FAILURES:
            log.error("completions have stopped coming back: this instance ends", failures=failures)
            return 1
        if not was_ready and time.monotonic() - begin > ready_timeout_s:
            log.error("the server did not become ready", seconds=ready_timeout_s)
            return 1
        stopping.wait(_STEADY_S if was_ready else _STARTING_S)
    return None


def _drain(engines: Sequence[Engine]) -> None:
    """Wait until no request is in flight, as long as the platform allows."""
    begin = time.monotonic()
    while time.monotonic() - begin < DRAIN_S and not all(engine.is_idle() for engine in engines):
        time.sleep(_DRAINING_S)
    log.event("drained", seconds=round(time.monotonic() - begin, 2))


def _end(engines: Sequence[Engine]) -> None:
    """End them all at once, by force after a moment."""
    begun = [engine.child for engine in engines if engine.child]
    for child in begun:
        child.terminate()
    end_s = time.monotonic() + _END_S
    for child in begun:
        try:
            child.wait(max(0.0, end_s - time.monotonic()))
        except subprocess.TimeoutExpired:
            child.kill()
            child.wait()
    for engine in engines:
        if engine.reader:
            engine.reader.join(5)


def _completes(port: int, model: str, key: str) -> bool:
    """Whether the server completes one token."""
    body = json.dumps({"model": model, "prompt": "1 + 1 =", "max_tokens": 1, "temperature": 0}).encode()
    headers = {"Content-Type": "application/json", "Authorization": f"Bearer {key}"}
    try:
        with urllib.request.urlopen(urllib.request.Request(f"http://127.0.0.1:{port}/v1/completions", body, headers), timeout=30) as answer:
            return bool(json.load(answer).get("choices"))
    except (OSError, ValueError):
        return False
