"""A real HTTP server that plays an OpenAI-compatible one as strictly as vLLM's: it checks each request against the API's own rules before it answers.

What it answers, how late, and how it fails is a test's: ``play(messages, attempt) -> str | Failure``.
"""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from threading import Lock, Thread
from typing import Any

MODEL, CONTEXT = "m", 16_384
_KNOWN = {"model", "messages", "temperature", "max_tokens", "response_format", "seed", "stream"}


@dataclass(frozen=True)
class Failure:
    """A reply that is none: an HTTP status, a finish_reason with what there is of a text, or a body of 200 that is no completion (a text: as it is)."""

    status: int = 200
    finish: str = "stop"
    text: str = ""
    message: str = "overloaded"
    body: Any = None


Play = Callable[[list[dict[str, str]], int], "str | Failure"]


@dataclass
class Server:
    """What a test sees of the server."""

    play: Play
    key: str = ""
    forms: bool = True
    context: int | None = CONTEXT
    root: str = "/models/one"
    url: str = ""
    seen: list[dict[str, Any]] = field(default_factory=list)
    busy: int = 0
    most_busy: int = 0
    lock: Lock = field(default_factory=Lock)
    attempts: Counter[str] = field(default_factory=Counter)

    def wrong(self, body: Any) -> str:
        """What vLLM would refuse a request for, or an empty text."""
        if not isinstance(body, dict) or (unknown := set(body) - _KNOWN):
            return f"extra fields: {unknown}"
        messages, form = body.get("messages"), body.get("response_format")
        if not isinstance(messages, list) or not messages or not all(isinstance(one, dict) and set(one) == {"role", "content"} for one in messages):
            return "messages must be a list of role and content"
        roles = [one["role"] for one in messages]
        if (
            not all(isinstance(one["content"], str) and one["content"] for one in messages)
            or roles != ["system", *["user", "assistant"] * 5][: len(roles)]
            or roles[-1] != "user"
        ):
            return f"roles or contents that no template takes: {roles}"
        if not isinstance(body.get("max_tokens"), int) or not 0 <= body.get("temperature", 1) <= 2:
            return "max_tokens and temperature must be numbers in their bounds"
        # A token has at least two characters and a half in what the tests send.
        if self.context and sum(len(one["content"]) for one in messages) / 2.5 + body["max_tokens"] > self.context:
            return f"This model's maximum context length is {self.context} tokens"
        if form is not None and not self.forms:
            return "response_format: json_schema is not supported by this server"
        if form is not None:
            schema = form["json_schema"]["schema"]
            assert form["type"] == "json_schema" and form["json_schema"]["strict"] is True and form["json_schema"]["name"].isidentifier()
            objects = [schema, *schema.get("$defs", {}).values()]
            # What OpenAI demands of a strict schema: every key required, no other allowed.
            if any(one.get("additionalProperties") is not False or set(one["properties"]) != set(one.get("required", ())) for one in objects):
                return "Invalid schema: additionalProperties must be false and every key required"
        return ""


@contextmanager
def serving(play: Play, **options: Any) -> Iterator[Server]:
    """Serve a play on a free port of loopback."""
    state = Server(play, **options)

    class Handler(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"
        disable_nagle_algorithm = True  # head and body are two writes, and the second would wait 40 ms for the acknowledgement of the first

        def do_GET(self) -> None:
            listed = {"id": MODEL, "object": "model", "created": 0, "owned_by": "vllm", "root": state.root} | (
                {"max_model_len": state.context} if state.context else {}
            )
            if self._may():
                self._send(200, {"object": "list", "data": [listed]})

        def do_POST(self) -> None:
            body = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
            if not self._may() or self.path != "/v1/chat/completions":
                return
            if body.get("model") != MODEL:
                self._send(404, {"error": {"message": f"The model `{body.get('model')}` does not exist."}})
            elif wrong := state.wrong(body):
                self._send(400, {"error": {"message": wrong, "type": "BadRequestError", "code": 400}})
            else:
                with state.lock:
                    state.seen.append(body)
                    state.busy += 1
                    state.most_busy = max(state.most_busy, state.busy)
                    key = json.dumps(body["messages"])
                    state.attempts[key] += 1
                    attempt = state.attempts[key]
                said = state.play(body["messages"], attempt)
                with state.lock:
                    state.busy -= 1
                self._answer(Failure(text=said) if isinstance(said, str) else said)

        def _answer(self, said: Failure) -> None:
            if said.status != 200:
                self._send(said.status, {"error": {"message": said.message, "type": "error", "code": said.status}}, {"retry-after-ms": "1"})
                return
            choice = {"index": 0, "finish_reason": said.finish, "message": {"role": "assistant", "content": said.text}}
            if said.body is not None:
                self._send(200, said.body)
                return
            usage = {"prompt_tokens": 100, "completion_tokens": 10, "total_tokens": 110}
            self._send(200, {"id": "1", "object": "chat.completion", "created": 0, "model": MODEL, "choices": [choice], "usage": usage})

        def _may(self) -> bool:
            if state.key and self.headers.get("Authorization") != f"Bearer {state.key}":
                self._send(401, {"error": {"message": "Unauthorized"}})
                return False
            return True

        def _send(self, status: int, value: Any, more: dict[str, str] | None = None) -> None:
            data = value.encode() if isinstance(value, str) else json.dumps(value).encode()
            self.send_response(status)
            for name, text in {"Content-Type": "application/json", "Content-Length": str(len(data)), **(more or {})}.items():
                self.send_header(name, text)
            self.end_headers()
            self.wfile.write(data)

        def log_message(self, *_: object) -> None:
            return

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    Thread(target=server.serve_forever, daemon=True).start()
    state.url = f"http://127.0.0.1:{server.server_port}/v1"
    try:
        yield state
    finally:
        server.shutdown()
        server.server_close()
