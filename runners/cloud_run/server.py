"""vLLM inside an instance of Cloud Run, where no agent looks after it: a child of this process, which

* answers ``GET /health`` on loopback, 200 only while completions come back; the gateway passes it to the platform's startup probe,
* ends when completions stop coming back, so that the platform makes another instance,
* on SIGTERM takes the health away, lets the requests in flight finish, and then ends vLLM; the platform kills after ten seconds.
"""

from __future__ import annotations

import json
import subprocess
import threading
import time
import urllib.error
import urllib.request
from collections.abc import Mapping
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

from runners import log
from runners.processes import bound
from runners.vm.metrics import counters

#: Of the ten seconds between SIGTERM and SIGKILL; the rest is vLLM's own end.
DRAIN_S = 8.0
_END_S = 1.5
_STARTING_S, _STEADY_S, _DRAINING_S = 0.5, 10.0, 0.1
#: Completions that may fail in a row.
_FAILURES = 3


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


def look_after(
    command: list[str], environment: Mapping[str, str], *, health: Health, port: int, model: str, key: str, ready_timeout_s: float, stopping: threading.Event
) -> int:
    """Run the server until it ends, stops answering, or ``stopping`` is set; returns this process's exit code."""
    url, begin = f"http://127.0.0.1:{port}", time.monotonic()
    failures, tokens, was_ready = 0, 0.0, False
    with subprocess.Popen(bound(command), env=dict(environment)) as child:
        try:
            while not stopping.is_set():
                if child.poll() is not None:
                    log.error("the server ended", code=child.returncode)
                    return child.returncode or 1
                found = _counters(url)
                # A full queue would make a probe wait; tokens that are being made are a better sign.
                busy = found is not None and found["tokens"] > tokens
                tokens = found["tokens"] if found else tokens
                answered = busy or _completes(url, model, key)
                failures = 0 if answered else failures + 1
                if answered and not was_ready:
                    was_ready = True
                    log.event("ready: a completion came back", seconds=round(time.monotonic() - begin, 1))
                health.ready = was_ready and failures < _FAILURES and not stopping.is_set()
                if was_ready and failures >= _FAILURES:
                    log.error("completions have stopped coming back: this instance ends", failures=failures)
                    return 1
                if not was_ready and time.monotonic() - begin > ready_timeout_s:
                    log.error("the server did not become ready", seconds=ready_timeout_s)
                    return 1
                stopping.wait(_STEADY_S if was_ready else _STARTING_S)
            health.ready = False
            _drain(url, child)
            return 0
        finally:
            health.ready = False
            _end(child)


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
