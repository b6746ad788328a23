"""A real Caddy with the gateway's configuration, before an upstream that shows what reached it. No VM, no root."""

from __future__ import annotations

import http.client
import http.server
import json
import os
import socket
import subprocess
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from runners.vm import steps

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
    process: Any = None
    reads_json: bool = False

    def ask(
        self, method: str, path: str, key: str | None = FIRST, body: bytes | Iterator[bytes] = b"{}", headers: dict[str, str] | None = None
    ) -> tuple[int, dict[str, str], bytes]:
        connection = http.client.HTTPConnection("127.0.0.1", self.port, timeout=20)
        try:
            authorized = {"Authorization": f"Bearer {key}"} if key else {}
            connection.request(method, path, body if method == "POST" else None, {**authorized, **(headers or {})})
            answer = connection.getresponse()
            return answer.status, {name.lower(): value for name, value in answer.getheaders()}, answer.read()
        finally:
            connection.close()


def is_json(body: bytes) -> bool:
    try:
        json.loads(body)
    except ValueError:
        return False
    return True


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


@contextmanager
def started(caddy: Path, folder: Path, models: dict[str, str]) -> Iterator[Gateway]:
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
        disable_nagle_algorithm = True  # head and body are two writes, and the second would wait 40 ms for the acknowledgement of the first

        def do_POST(self) -> None:
            # As a server does: nothing is answered before the body is there.
            body = self.chunks() if self.headers.get("Transfer-Encoding") else self.rfile.read(int(self.headers.get("Content-Length") or 0))
            made.seen.append((self.command, self.path, self.headers.get("Authorization")))
            if b"hold" in body:
                made.hold.wait(20)
            if made.reads_json and not is_json(body):
                self.send_error(400)
                return
            answer = b"data: [DONE]\n\n" if b"stream" in body else b'{"choices": [{}]}'
            self.send_response(200)
            self.send_header("Content-Type", "text/event-stream" if b"stream" in body else "application/json")
            self.send_header("Content-Length", str(len(answer)))
            self.end_headers()
            self.wfile.write(answer)

        def chunks(self) -> bytes:
            parts = []
            while size := int(self.rfile.readline(), 16):  # a body that is cut off raises, and the connection ends
                parts.append(self.rfile.read(size))
                self.rfile.readline()
            self.rfile.readline()
            return b"".join(parts)

        do_GET = do_POST

        def log_message(self, *_: object) -> None:
            return

    upstream = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Upstream)
    threading.Thread(target=upstream.serve_forever, daemon=True).start()
    here = f"127.0.0.1:{upstream.server_port}"
    values = {**models, "ELSON_SITE": f":{made.port}", "ELSON_UPSTREAM": here, "ELSON_SECOND_UPSTREAM": here, "ELSON_MAX_IN_FLIGHT": str(IN_FLIGHT)}
    command = [str(caddy), "run", "--config", str(folder / "Caddyfile"), "--adapter", "caddyfile"]
    environment = {**os.environ, **values, "XDG_DATA_HOME": str(folder / "data"), "XDG_CONFIG_HOME": "/proc/none"}
    with made.log.open("wb") as log:
        made.process = server = subprocess.Popen(command, env=environment, stdout=log, stderr=log)
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
