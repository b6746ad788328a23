"""The gateway's configuration in a real Caddy (Debian's), before an upstream that shows what reached it. No VM, no root."""

from __future__ import annotations

import http.client
import http.server
import json
import re
import signal
import socket
import time
import urllib.parse
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from pathlib import Path
from types import SimpleNamespace

import pytest
import yaml

from runners.vm import routes, steps
from runners.vm.cloud import CloudError
from tests import caddy as tests_caddy
from tests.vm.real_gateway import FIRST, IN_FLIGHT, INNER, ROOT, SECOND, Gateway, started


@pytest.fixture(scope="module")
def caddy() -> Path:
    """The version that the gateway's image ships."""
    return tests_caddy.binary()


@pytest.fixture(scope="module")
def gateway(caddy: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Gateway]:
    with started(caddy, tmp_path_factory.mktemp("gateway"), {}) as made:
        yield made


@pytest.fixture(scope="module")
def gateway_of_two(caddy: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Gateway]:
    """Before two models that are one upstream, which refuses what is no JSON, as vLLM does."""
    serve = {"model": "tuned", "model_id": None, "served_model_name": "elson", "max_model_tokens": 4096, "max_sequences": 8}
    values = routes.gateway({**serve, "second": {**serve, "model": "base", "served_model_name": "base"}})
    with started(caddy, tmp_path_factory.mktemp("two"), values) as made:
        made.reads_json = True
        yield made


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


def raw(gateway: Gateway, request: bytes, pause_s: float = 0) -> bytes:
    """The answer to bytes as they are."""
    with socket.create_connection(("127.0.0.1", gateway.port), timeout=40) as connection:
        answer = b""
        try:
            connection.sendall(request)
            if pause_s:
                time.sleep(pause_s)
            connection.shutdown(socket.SHUT_WR)
            while block := connection.recv(65536):
                answer += block
        except ConnectionResetError:
            pass
        return answer


def head(*lines: str) -> bytes:
    return "\r\n".join(["POST /v1/completions HTTP/1.1", "Host: x", f"Authorization: Bearer {FIRST}", *lines, "", ""]).encode()


def test_chunked_bodies_that_are_too_large_or_malformed_are_the_clients_fault(gateway: Gateway) -> None:
    before = len(gateway.seen)
    chunk = b"10000\r\n" + b"x" * 0x10000 + b"\r\n"
    large = raw(gateway, head("Transfer-Encoding: chunked") + chunk * 20 + b"0\r\n\r\n")
    assert large.startswith(b"HTTP/1.1 413 "), large[:300]
    malformed = raw(gateway, head("Transfer-Encoding: chunked") + b"zz\r\nhello\r\n0\r\n\r\n")
    assert malformed.startswith(b"HTTP/1.1 400 ") and b"Retry-After" not in malformed, malformed[:300]
    for unfinished in (head("Transfer-Encoding: chunked") + b"5\r\nhel", head("Content-Length: 50") + b"{}"):
        answer = raw(gateway, unfinished)  # 499: the client closed its side
        assert answer.startswith((b"HTTP/1.1 400 ", b"HTTP/1.1 499 ")) and b"Retry-After" not in answer, answer[:300]
    assert len(gateway.seen) == before
    assert raw(gateway, head("Transfer-Encoding: chunked", "Connection: close") + b"2\r\n{}\r\n0\r\n\r\n", 1.0).startswith(b"HTTP/1.1 200 ")


def test_chunked_bodies_to_one_of_two_models_are_read_to_their_end_or_refused(gateway_of_two: Gateway) -> None:
    gateway, chunked = gateway_of_two, head("Transfer-Encoding: chunked", "Connection: close")
    start, blanks, rest, end = chunk(b'{"model": "base", '), chunk(b" " * 0x10000), chunk(b'"x": 1}'), b"0\r\n\r\n"
    large = raw(gateway, chunked + start + blanks * 20 + rest + end)
    assert large.startswith(b"HTTP/1.1 413 ") and b"larger than 1 MB" in large and b"Caddy" not in large, large[:300]
    for unfinished in (chunked + start, head("Content-Length: 50") + b"{}"):
        assert raw(gateway, unfinished).startswith((b"HTTP/1.1 400 ", b"HTTP/1.1 499 "))
    assert not any(method == "POST" for method, _, _ in gateway.seen)
    # Caddy hands on what came before a chunk that is none: vLLM, which reads JSON, refuses it.
    assert raw(gateway, chunked + start + b"zz\r\n" + end).startswith(b"HTTP/1.1 400 ")
    assert gateway.ask("POST", "/v1/completions", body=iter([b'{"model": "base", ', b" " * 900_000, b'"x": 1}']))[0] == 200


def chunk(text: bytes) -> bytes:
    return b"%x\r\n%s\r\n" % (len(text), text)


@pytest.mark.parametrize("scheme", ["Bearer", "bearer", "BEARER", "bEaReR"])
def test_the_scheme_is_not_case_sensitive_and_the_key_is(gateway: Gateway, scheme: str) -> None:
    assert gateway.ask("GET", "/v1/models", None, headers={"Authorization": f"{scheme} {FIRST}"})[0] == 200
    assert gateway.ask("GET", "/v1/models", None, headers={"Authorization": f"{scheme} {FIRST.upper()}"})[0] == 401
    assert gateway.ask("GET", "/v1/models", None, headers={"Authorization": f"{scheme}{FIRST}"})[0] == 401


def test_no_answer_names_the_server(gateway: Gateway) -> None:
    answers = [
        raw(gateway, head("Content-Length: 2") + b"{}"),
        raw(gateway, b"GET /health HTTP/1.1\r\nHost: x\r\n\r\n"),
        raw(gateway, b"GET / HTTP/1.0\r\n\r\n"),
    ]
    answers += [raw(gateway, head("Content-Length: 2000000")), raw(gateway, head("Transfer-Encoding: chunked") + b"zz\r\n"), raw(gateway, b"nonsense\r\n\r\n")]
    for answer in answers:
        assert answer.startswith(b"HTTP/1.") and not {b"\nserver:", b"\nvia:", b"caddy"} & set(re.findall(rb"\n(?:server|via):|caddy", answer.lower())), answer[
            :300
        ]


@pytest.mark.parametrize("kind", ["Content-Length: 1000", "Transfer-Encoding: chunked", "Expect: 100-continue\r\nContent-Length: 1000", "X-Half-A-Head: "])
def test_slow_bodies_of_one_key_hold_no_place(gateway: Gateway, kind: str) -> None:
    """64 connections of one key that send a byte now and then: another key's questions and both keys' /v1/models are answered meanwhile."""
    slow = [socket.create_connection(("127.0.0.1", gateway.port), timeout=40) for _ in range(64)]
    lines = head(kind).removesuffix(b"\r\n\r\n") if kind.startswith("X-") else head(kind)
    try:
        for connection in slow:
            connection.sendall(lines)
        for _ in range(5):
            for connection in slow:
                connection.sendall(b"1\r\n{\r\n" if "chunked" in kind else b"{")
            for method, path, key in (("POST", "/v1/completions", SECOND), ("GET", "/v1/models", SECOND), ("GET", "/v1/models", FIRST)):
                begin = time.monotonic()
                assert gateway.ask(method, path, key)[0] == 200
                assert time.monotonic() - begin < 5
            time.sleep(0.2)
    finally:
        for connection in slow:
            connection.close()


def test_the_list_of_models_is_answered_while_every_place_is_taken(gateway: Gateway) -> None:
    gateway.hold.clear()
    before = len(gateway.seen)
    with ThreadPoolExecutor(8) as pool:
        held = [pool.submit(gateway.ask, "POST", "/v1/completions", FIRST, b"hold") for _ in range(IN_FLIGHT)]
        end = time.monotonic() + 10
        while len(gateway.seen) - before < IN_FLIGHT and time.monotonic() < end:
            time.sleep(0.05)
        assert gateway.ask("GET", "/v1/models")[0] == 200
        assert gateway.ask("POST", "/v1/completions")[0] == 429
        gateway.hold.set()
        assert [each.result()[0] for each in held] == [200] * IN_FLIGHT


def test_a_revoked_key_is_refused_on_a_running_server_and_a_stream_on_its_way_ends_well(gateway: Gateway, monkeypatch: pytest.MonkeyPatch) -> None:
    """The agent's own loop, with the secret and docker's signal replaced."""
    keys = [[SECOND], CloudError(503, "away"), CloudError(400, "no enabled version"), [FIRST, SECOND]]
    secrets = gateway.health.parent / "secrets"

    def secret(_: str) -> str:
        found = keys.pop(0)
        if isinstance(found, CloudError):
            raise found
        return "\n".join(found)

    monkeypatch.setattr(steps, "KEYS_S", 0.0)
    monkeypatch.setattr(steps, "RUN", gateway.health.parent)
    monkeypatch.setattr(steps, "_give", lambda file, text: (secrets / file.name).write_text(text))
    monkeypatch.setattr(steps.subprocess, "run", lambda command, **_: gateway.process.send_signal(signal.SIGUSR1) if "USR1" in command else None)
    context = SimpleNamespace(cloud=SimpleNamespace(secret=secret), facts=SimpleNamespace(secret="s"))

    def until(key: str, wanted: int) -> None:
        end = time.monotonic() + 20
        while True:
            # Caddy closes a connection unanswered that comes just as it changes its configuration; clients ask again, the OpenAI client by itself.
            with suppress(http.client.RemoteDisconnected, ConnectionResetError):
                if gateway.ask("GET", "/v1/models", key)[0] == wanted:
                    return
            assert time.monotonic() < end
            time.sleep(0.05)

    gateway.hold.clear()
    before = len(gateway.seen)
    with ThreadPoolExecutor(1) as pool:
        held = pool.submit(gateway.ask, "POST", "/v1/completions", FIRST, b"hold")
        while len(gateway.seen) == before:
            time.sleep(0.05)
        steps.follow_keys(context, [FIRST, SECOND], rounds=1)
        until(FIRST, 401)
        assert gateway.ask("GET", "/v1/models", SECOND)[0] == 200
        gateway.hold.set()
        assert held.result()[0] == 200
    steps.follow_keys(context, [SECOND], rounds=1)
    assert gateway.ask("GET", "/v1/models", SECOND)[0] == 200, "a service that is away for a moment locks nobody out"
    steps.follow_keys(context, [SECOND], rounds=1)
    until(SECOND, 401)
    assert gateway.ask("GET", "/v1/models", "")[0] == 401
    steps.follow_keys(context, [], rounds=1)
    until(FIRST, 200)


def test_what_is_tested_is_what_is_shipped() -> None:
    tag = yaml.safe_load((ROOT / "images/bases.yaml").read_text())["caddy"]["tag"]
    assert tag.split("-")[0] == tests_caddy.version()


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
