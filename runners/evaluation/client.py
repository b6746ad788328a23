"""Ask an OpenAI-compatible endpoint, streamed, and time it on the monotonic clock.

The clock runs around the request alone: from just before its bytes are handed over to the arrival of the last event. Bytes are stamped as
they arrive and read only after the stream has ended, so parsing is in nobody's latency. Lost connections, 429 and 5xx are tried again
a bounded number of times with growing, jittered pauses; what the attempts took is kept and counted, the pauses are ours and are not.
"""

from __future__ import annotations

import asyncio
import json
import random
import time
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field, replace
from types import TracebackType
from typing import Any, Literal

import httpx

from runners.errors import CannotMeasure

Status = Literal["answered", "truncated", "empty", "timeout", "error"]
_AGAIN = frozenset([408, 425, 429, 500, 502, 503, 504])
#: No pause is longer, whatever a server asks for in Retry-After.
MAX_PAUSE_S = 30.0


@dataclass(frozen=True)
class Settings:
    """What every request of a run shares; recorded with the results."""

    api_url: str
    model: str
    max_tokens: int
    temperature: float
    seed: int
    request_timeout_s: float
    max_retries: int
    stop: tuple[str, ...] = ()


@dataclass(frozen=True)
class Attempt:
    """One try: how long it took, the HTTP status if there was one, what went wrong if anything did."""

    ms: float
    status: int | None
    error: str = ""


@dataclass(frozen=True)
class Reply:
    """What came back for one question.

    ``latency_ms`` is the sum of the attempts' times; ``first_token_ms`` counts from the beginning of the attempt that answered.
    """

    status: Status
    text: str
    latency_ms: float
    first_token_ms: float | None = None
    completion_tokens: int | None = None
    prompt_tokens: int | None = None
    finish_reason: str | None = None
    served_model: str | None = None
    error: str = ""
    attempts: tuple[Attempt, ...] = ()
    pauses_ms: float = 0.0

    @property
    def came_back(self) -> bool:
        """Whether there is an answer to read, right or wrong."""
        return self.status in ("answered", "truncated")

    def to_json(self) -> dict[str, Any]:
        """Plain data."""
        return asdict(self)


@dataclass
class _Stream:
    """Chunks of one response with the time each arrived."""

    stamped: list[tuple[float, bytes]] = field(default_factory=list)
    status: int | None = None
    retry_after_s: float | None = None


class Endpoint:
    """A connection pool to one server. ``async with Endpoint(...) as server: await server.ask(messages)``."""

    def __init__(self, settings: Settings, api_key: str | None, concurrency: int = 1) -> None:
        self.settings = settings
        headers = {"Accept": "text/event-stream", "Accept-Encoding": "identity"}
        if api_key:
            headers["Authorization"] = f"Bearer {api_key}"
        limits = httpx.Limits(max_connections=concurrency + 4, max_keepalive_connections=concurrency + 4)
        self._http = httpx.AsyncClient(headers=headers, limits=limits, timeout=httpx.Timeout(settings.request_timeout_s), trust_env=False)
        self._url = f"{base_url(settings.api_url)}/chat/completions"
        self._random = random.Random()

    async def __aenter__(self) -> Endpoint:
        return self

    async def __aexit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        await self._http.aclose()

    async def models(self) -> list[str]:
        """Names that the server serves. Raises CannotMeasure when it does not answer or refuses the key."""
        url = f"{base_url(self.settings.api_url)}/models"
        try:
            answer = await self._http.get(url, timeout=self.settings.request_timeout_s)
        except httpx.HTTPError as error:
            raise unreachable(self.settings.api_url, error) from None
        refuse_status(answer.status_code, url, answer.text)
        try:
            return [str(row["id"]) for row in answer.json()["data"]]
        except (ValueError, KeyError, TypeError):
            raise CannotMeasure(
                f"{url} answered {answer.text[:100]!r}", "an OpenAI list of models", "check --api-url: is this an OpenAI-compatible server?"
            ) from None

    async def ask(self, messages: Sequence[Mapping[str, str]], *, ends_at: float = float("inf"), extra: Mapping[str, Any] | None = None) -> Reply:
        """One question, with retries, until ``ends_at`` on the monotonic clock. Never raises for what the server does wrong, but for 401, 403 and 404."""
        body = {
            "model": self.settings.model,
            "messages": list(messages),
            "max_tokens": self.settings.max_tokens,
            "temperature": self.settings.temperature,
            "seed": self.settings.seed,
            "stream": True,
            "stream_options": {"include_usage": True},
            **({"stop": list(self.settings.stop)} if self.settings.stop else {}),
            **(extra or {}),
        }
        content = json.dumps(body).encode()
        attempts: list[Attempt] = []
        paused = 0.0
        while True:
            timeout = min(self.settings.request_timeout_s, ends_at - time.monotonic())
            reply, again_after = await self._attempt(content, max(0.001, timeout))
            attempts += reply.attempts
            out_of_time = time.monotonic() >= ends_at
            if again_after is None or len(attempts) > self.settings.max_retries or out_of_time:
                took = sum(attempt.ms for attempt in attempts)
                return replace(reply, latency_ms=round(took, 3), attempts=tuple(attempts), pauses_ms=round(paused * 1000, 1))
            pause = min(MAX_PAUSE_S, max(again_after, self._random.uniform(0, 0.5 * 2 ** len(attempts))), max(0.0, ends_at - time.monotonic()))
            paused += pause
            await asyncio.sleep(pause)

    async def _attempt(self, content: bytes, timeout_s: float) -> tuple[Reply, float | None]:
        """(reply of one try, seconds after which to try again or None)."""
        request = self._http.build_request("POST", self._url, content=content, headers={"Content-Type": "application/json"})
        stream, problem, kind = _Stream(), "", "error"
        begin = time.monotonic()
        try:
            async with asyncio.timeout(timeout_s):
                await self._receive(request, stream)
        except TimeoutError:
            problem, kind = f"no complete answer within {timeout_s:.1f} s", "timeout"
        except httpx.HTTPError as error:
            problem = f"{type(error).__name__}: {error}".rstrip(": ")
        took = (time.monotonic() - begin) * 1000
        if not problem and stream.status != 200:
            text = b"".join(chunk for _, chunk in stream.stamped).decode(errors="replace")
            refuse_status(stream.status or 0, self._url, text)
            problem = f"HTTP {stream.status}: {text[:200]}"
        if problem:
            reply = Reply("timeout" if kind == "timeout" else "error", "", took, error=problem, attempts=(Attempt(round(took, 3), stream.status, problem),))
            again = kind != "timeout" and (stream.status is None or stream.status == 200 or stream.status in _AGAIN)
            return reply, (stream.retry_after_s or 0.0) if again else None
        return _read(stream, begin)

    async def _receive(self, request: httpx.Request, stream: _Stream) -> None:
        response = await self._http.send(request, stream=True)
        stream.status = response.status_code
        try:
            stream.retry_after_s = float(response.headers.get("retry-after", "0"))
        except ValueError:
            stream.retry_after_s = None
        try:
            async for chunk in response.aiter_raw():
                stream.stamped.append((time.monotonic(), chunk))
        finally:
            await response.aclose()


def _read(stream: _Stream, begin: float) -> tuple[Reply, float | None]:
    """Read the events of a finished stream."""
    text: list[str] = []
    usage: dict[str, Any] = {}
    finish = served = first = None
    last, pending, ended, chunks, complaint = begin, b"", False, 0, ""
    for at, data in stream.stamped:
        *lines, pending = (pending + data).split(b"\n")
        for line in lines:
            if not line.startswith(b"data:"):
                continue
            payload = line[5:].strip()
            if payload == b"[DONE]":
                ended, last = True, at
                continue
            try:
                event = json.loads(payload)
            except ValueError:
                complaint = f"an event that is no JSON: {payload[:80]!r}"
                continue
            if not isinstance(event, dict):
                continue
            if "error" in event:
                complaint = f"the server reported: {str(event['error'])[:200]}"
            served, usage = event.get("model") or served, event.get("usage") or usage
            for choice in (event.get("choices") or [])[:1]:
                if piece := (choice.get("delta") or {}).get("content"):
                    text.append(piece)
                    chunks += 1
                    first, last = first or at, at
                finish = choice.get("finish_reason") or finish
    took = ((last if last > begin else stream.stamped[-1][0] if stream.stamped else begin) - begin) * 1000
    answer = "".join(text)
    if complaint or not (ended or finish):
        problem = complaint or "the stream broke off before its end"
        return Reply("error", answer, took, error=problem, attempts=(Attempt(round(took, 3), 200, problem),)), 0.0
    status: Status = "truncated" if finish == "length" else "answered" if answer.strip() else "empty"
    reply = Reply(
        status,
        answer,
        took,
        first_token_ms=round((first - begin) * 1000, 3) if first else None,
        completion_tokens=usage.get("completion_tokens") or chunks,
        prompt_tokens=usage.get("prompt_tokens"),
        finish_reason=finish,
        served_model=served,
        error="" if status == "answered" else f"finish_reason is {finish}",
        attempts=(Attempt(round(took, 3), 200),),
    )
    return reply, None


def base_url(api_url: str) -> str:
    """``http://host:8000`` or ``http://host:8000/v1/`` -> ``http://host:8000/v1``."""
    trimmed = api_url.rstrip("/")
    return trimmed if trimmed.endswith("/v1") else f"{trimmed}/v1"


def unreachable(api_url: str, error: Exception) -> CannotMeasure:
    """The error for a server that is not there."""
    reason = f"{type(error).__name__}: {error}".rstrip(": ")
    return CannotMeasure(f"{api_url} does not answer ({reason})", "a running OpenAI-compatible server", "start it (elson serve), or pass another --api-url")


def refuse_status(status: int, url: str, text: str) -> None:
    """Raise CannotMeasure for answers that no retry and no other case would change."""
    if status in (401, 403):
        raise CannotMeasure(f"{url} refuses the key (HTTP {status})", "a valid key", "set ELSON_API_KEY, or pass --api-key-file")
    if status == 404:
        raise CannotMeasure(f"{url} is not there or the model is not served: {text[:200]}", "a served model's name", "see /v1/models, then pass --model")
