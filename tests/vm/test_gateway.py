"""The gateway's configuration in a real Caddy (Debian's), before an upstream that shows what reached it. No VM, no root."""

from __future__ import annotations

import http.client
import http.server
import json
import os
import shutil
import socket
import subprocess
import threading
import time
import urllib.parse
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from pathlib import Path

import pytest

from runners.vm import steps
from tests.vm.simulation import golden

ROOT = Path(__file__).resolve().parents[2]
FIRST, SECOND, INNER = "k" * 40, "s" * 40, "inner-key-of-this-boot-0123456789"
IN_FLIGHT = 3


@dataclass
class Gateway:
    port: int
    health: Path
    log: Path
    data: Path
    seen: list[tuple[str, str, str | None]] = field(default_factory=list)
    hold: threading.Event = field(default_factory=threading.Event)

    def ask(
        self, method: str, path: str, key: str | None = FIRST, body: bytes = b"{}", headers: dict[str, str] | None = None
    ) -> tuple[int, dict[str, str], bytes]:
        connection = http.client.HTTPConnection("127.0.0.1", self.port, timeout=20)
        try:
            authorized = {"Authorization": f"Bearer {key}"} if key else {}
            connection.request(method, path, body if method == "POST" else None, {**authorized, **(headers or {})})
            answer = connection.getresponse()
            return answer.status, {name.lower(): value for name, value in answer.getheaders()}, answer.read()
        finally:
            connection.close()


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


@pytest.fixture(scope="module")
def caddy(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Caddy's binary: this machine's, or Debian's package unpacked into a temporary folder."""
    if found := shutil.which("caddy"):
        return Path(found)
    folder = tmp_path_factory.mktemp("caddy")
    debs = list(golden.DEBS.glob("caddy_*.deb"))
    if not debs and shutil.which("apt-get"):
        subprocess.run(["apt-get", "download", "-qq", "caddy"], cwd=folder, capture_output=True, check=False)
        debs = list(folder.glob("caddy_*.deb"))
    if not debs:
        reason = "Debian's caddy package cannot be downloaded here"
        pytest.fail(reason) if os.environ.get("CI") else pytest.skip(reason)
    subprocess.run(["dpkg-deb", "--extract", str(debs[0]), str(folder)], check=True)
    return folder / "usr/bin/caddy"


@pytest.fixture(scope="module")
def gateway(caddy: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Gateway]:
    folder = tmp_path_factory.mktemp("gateway")
    for name in ("secrets", "health", "data"):
        (folder / name).mkdir()
    (folder / "secrets/keys.caddy").write_text(steps.key_matcher([FIRST, SECOND]))
    (folder / "secrets/upstream.caddy").write_text(f'header_up Authorization "Bearer {INNER}"\n')
    text = (ROOT / "images/gateway/Caddyfile").read_text()
    for there, here in (
        ("/run/secrets/elson", folder / "secrets"),
        ("/run/health", folder / "health"),
        ("file_system /data", f"file_system {folder / 'data'}"),
    ):
        text = text.replace(there, str(here))
    checks = free_port()
    (folder / "Caddyfile").write_text(text.replace("http://:8081", f"http://:{checks}"))
    made = Gateway(free_port(), folder / "health", folder / "log", folder / "data")

    class Upstream(http.server.BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"

        def do_POST(self) -> None:
            length = int(self.headers.get("Content-Length") or 0)
            body = self.rfile.read(length)
            made.seen.append((self.command, self.path, self.headers.get("Authorization")))
            if b"hold" in body:
                made.hold.wait(20)
            answer = b"data: [DONE]\n\n" if b"stream" in body else b'{"choices": [{}]}'
            self.send_response(200)
            self.send_header("Content-Type", "text/event-stream" if b"stream" in body else "application/json")
            self.send_header("Content-Length", str(len(answer)))
            self.end_headers()
            self.wfile.write(answer)

        do_GET = do_POST

        def log_message(self, *_: object) -> None:
            return

    upstream = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Upstream)
    threading.Thread(target=upstream.serve_forever, daemon=True).start()
    values = {"ELSON_SITE": f":{made.port}", "ELSON_UPSTREAM": f"127.0.0.1:{upstream.server_port}", "ELSON_MAX_IN_FLIGHT": str(IN_FLIGHT)}
    command = [str(caddy), "run", "--config", str(folder / "Caddyfile"), "--adapter", "caddyfile"]
    environment = {**os.environ, **values, "XDG_DATA_HOME": str(folder / "data"), "XDG_CONFIG_HOME": "/proc/none"}
    with made.log.open("wb") as log:
        server = subprocess.Popen(command, env=environment, stdout=log, stderr=log)
    try:
        for _ in range(200):
            try:
                made.ask("GET", "/health")
                break
            except OSError:
                time.sleep(0.05)
        yield made
    finally:
        server.terminate()
        server.wait(30)
        upstream.shutdown()


def test_either_key_is_let_through_and_the_upstream_sees_neither(gateway: Gateway) -> None:
    for key in (FIRST, SECOND):
        status, headers, _ = gateway.ask("POST", "/v1/chat/completions", key)
        assert status == 200 and gateway.seen[-1] == ("POST", "/v1/chat/completions", f"Bearer {INNER}")
        assert headers["x-content-type-options"] == "nosniff" and headers["cache-control"] == "no-store" and "server" not in headers
    assert gateway.ask("POST", "/v1/completions")[0] == 200
    assert gateway.ask("GET", "/v1/models")[0] == 200


def test_a_stream_keeps_its_type(gateway: Gateway) -> None:
    _, headers, body = gateway.ask("POST", "/v1/chat/completions", body=b'{"stream": true}')
    assert headers["content-type"] == "text/event-stream" and body.endswith(b"[DONE]\n\n")


@pytest.mark.parametrize("key", [None, "", "wrong", FIRST[:-1], FIRST + "k", FIRST.upper(), f"{FIRST} {SECOND}"])
def test_any_other_key_is_refused_before_the_upstream(gateway: Gateway, key: str | None) -> None:
    before = len(gateway.seen)
    for method, path in (("POST", "/v1/chat/completions"), ("POST", "/v1/completions"), ("GET", "/v1/models")):
        status, headers, body = gateway.ask(method, path, key)
        assert status == 401 and headers["www-authenticate"] == "Bearer" and json.loads(body)["error"]["code"] == 401
    assert len(gateway.seen) == before


HIDDEN = [
    "/",
    "/metrics",
    "/invocations",
    "/tokenize",
    "/pause",
    "/docs",
    "/v1/embeddings",
    "/v1/load_lora_adapter",
    "/v1/models/elson",
    "/v1/chat/completions/",
]
ODD = [
    "//metrics",
    "/v1/../metrics",
    "/v1/completions/../../metrics",
    "/%6detrics",
    "/v1/completions/..%2f..%2fmetrics",
    "/metrics?x=/v1/models",
    "/v1/completions%00",
]


@pytest.mark.parametrize("path", HIDDEN + ODD)
def test_every_other_path_is_unknown_even_with_the_key(gateway: Gateway, path: str) -> None:
    before = len(gateway.seen)
    for method in ("GET", "POST"):
        status, _, body = gateway.ask(method, path)
        assert status in (400, 404), body
    assert len(gateway.seen) == before


@pytest.mark.parametrize("path", ["/V1/Completions", "/v1//completions", "/x/../v1/completions", "/v1/%63ompletions"])
def test_an_odd_spelling_of_a_published_path_reaches_only_that_path(gateway: Gateway, path: str) -> None:
    status = gateway.ask("POST", path)[0]
    assert status in (404, 200)
    if status == 200:
        assert urllib.parse.unquote(gateway.seen[-1][1]) == "/v1/completions"


def test_methods_are_fixed(gateway: Gateway) -> None:
    assert gateway.ask("GET", "/v1/chat/completions")[0] == 405
    assert gateway.ask("DELETE", "/v1/models")[0] == 405


def test_large_bodies_are_refused(gateway: Gateway) -> None:
    assert gateway.ask("POST", "/v1/completions", body=b"x" * 1_000_001)[0] == 413
    assert gateway.ask("POST", "/v1/completions", body=b"x" * 900_000)[0] == 200


def test_more_requests_at_once_than_allowed_are_told_to_wait(gateway: Gateway) -> None:
    gateway.hold.clear()
    with ThreadPoolExecutor(8) as pool:
        held = [pool.submit(gateway.ask, "POST", "/v1/completions", FIRST, b"hold") for _ in range(IN_FLIGHT)]
        end = time.monotonic() + 10
        while sum(method == "POST" for method, _, _ in gateway.seen) < IN_FLIGHT and time.monotonic() < end:
            time.sleep(0.05)
        time.sleep(0.3)
        status, headers, _ = gateway.ask("POST", "/v1/completions")
        gateway.hold.set()
        assert [each.result()[0] for each in held] == [200] * IN_FLIGHT
    assert status == 429 and headers["retry-after"] == "2"
    assert gateway.ask("POST", "/v1/completions")[0] == 200, "room again"


def test_health_is_a_file_that_the_watcher_keeps(gateway: Gateway) -> None:
    assert gateway.ask("GET", "/health", None)[0] == 503
    (gateway.health / "ready").write_text("ready\n")
    assert gateway.ask("GET", "/health", None)[0] == 200
    (gateway.health / "ready").unlink()
    assert gateway.ask("GET", "/health", None)[0] == 503


def test_neither_keys_nor_prompts_are_written_anywhere(gateway: Gateway) -> None:
    gateway.ask("POST", "/v1/chat/completions", body=b'{"messages": "a very private question"}')
    gateway.ask("POST", "/v1/chat/completions", "wrong-but-secret", body=b"a very private question")
    written = [gateway.log, *(path for path in gateway.data.rglob("*") if path.is_file())]
    for file in written:
        text = file.read_text(errors="replace")
        assert not any(secret in text for secret in (FIRST, SECOND, INNER, "wrong-but-secret", "private question")), file
