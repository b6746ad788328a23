"""Ask an OpenAI-compatible endpoint, streamed, and time it on the monotonic clock.

The clock runs around the request alone: from just before its bytes are handed over to the arrival of the last one. Bytes are stamped as
they arrive and read only after the stream has ended (``wire.py``), so parsing is in nobody's latency. Lost connections, 429 and 5xx are tried again
a bounded number of times with growing, jittered pauses; what the attempts took is kept and counted, the pauses are ours and are not.
"""

from __future__ import annotations

import asyncio
import json
import random
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from types import TracebackType
from typing import Any, Literal

from runners.errors import CannotMeasure
from runners.evaluation import acceptance
from runners.evaluation.acceptance import Drafts
from runners.evaluation.wire import Response, Wire, WireError

Status = Literal["answered", "truncated", "empty", "timeout", "error"]
#: An identity token for a server on Cloud Run, beside the key: `gcloud auth print-identity-token`. It goes to the tested server alone.
IDENTITY_VARIABLE = "ELSON_ID_TOKEN"
#: What a platform answers while it starts a server.
_STARTING = frozenset([429, 503])
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
    drafts: Drafts | None = None
    fingerprint: str | None = None

    @property
    def came_back(self) -> bool:
        """Whether there is an answer to read, right or wrong."""
        return self.status in ("answered", "truncated")


class Endpoint:
    """One server. ``async with Endpoint(...) as server: await server.ask(messages)``. Raises CannotMeasure for an address that is none."""

    def __init__(self, settings: Settings, api_key: str | None, identity_token: str | None = None) -> None:
        self.settings = settings
        headers = {"Accept": "text/event-stream, application/json", "User-Agent": "elson"} | ({"Authorization": f"Bearer {api_key}"} if api_key else {})
        headers |= {"X-Serverless-Authorization": f"Bearer {identity_token}"} if identity_token else {}
        try:
            self._wire = Wire(base_url(settings.api_url), headers)
        except WireError as error:
            raise CannotMeasure(str(error), "an address such as http://127.0.0.1:8000", "pass another --api-url or key") from None
        self._random = random.Random()

    async def __aenter__(self) -> Endpoint:
        return self

    async def __aexit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        self._wire.close()

    async def models(self, wake_s: float | None = None) -> dict[str, str]:
        """Names that the server serves, each with the weights behind it (its ``root``, else the name). Raises CannotMeasure without an answer or access.

        ``wake_s`` is how long the answer may take in all, and a platform may say "not yet"; left out, the time-out of a request.
        """
        url = f"{base_url(self.settings.api_url)}/models"
        try:
            async with asyncio.timeout(wake_s or self.settings.request_timeout_s):
                answer = await self._wire.request("GET", "/models")
                while wake_s and answer.status in _STARTING:
                    await asyncio.sleep(pause_s(3, _retry_after_s(answer), self._random))
                    answer = await self._wire.request("GET", "/models")
        except (WireError, TimeoutError) as error:
            raise unreachable(self.settings.api_url, error) from None
        refuse_status(answer.status, url, answer.text)
        try:
            return {str(row["id"]): str(row.get("root") or row["id"]) for row in json.loads(answer.text)["data"]}
        except (ValueError, KeyError, TypeError, AttributeError):
            raise CannotMeasure(
                f"{url} answered {answer.text[:100]!r}", "an OpenAI list of models", "check --api-url: is this an OpenAI-compatible server?"
            ) from None

    async def ask(self, messages: Sequence[Mapping[str, str]], *, ends_at: float = float("inf"), extra: Mapping[str, Any] | None = None) -> Reply:
        """One question, with retries, until ``ends_at`` on the monotonic clock. Never raises for what the server does wrong, but for 401, 403 and 404."""
        content = json.dumps(self.body(messages) | dict(extra or {})).encode()
        attempts: list[Attempt] = []
        paused = 0.0
        while True:
            timeout_s = min(self.settings.request_timeout_s, ends_at - time.monotonic())
            reply, again_after_s = await self._attempt(content, max(0.001, timeout_s))
            attempts += reply.attempts
            if again_after_s is None or len(attempts) > self.settings.max_retries or time.monotonic() >= ends_at:
                took = sum(attempt.ms for attempt in attempts)
                return replace(reply, latency_ms=round(took, 3), attempts=tuple(attempts), pauses_ms=round(paused * 1000, 1))
            pause = min(pause_s(len(attempts), again_after_s, self._random), max(0.0, ends_at - time.monotonic()))
            paused += pause
            await asyncio.sleep(pause)

    def body(self, messages: Sequence[Mapping[str, str]]) -> dict[str, Any]:
        """The request as sent."""
        shared = self.settings
        fixed = {"model": shared.model, "max_tokens": shared.max_tokens, "temperature": shared.temperature, "seed": shared.seed}
        return fixed | {"messages": list(messages), "stream": True, "stream_options": {"include_usage": True}}

    async def _attempt(self, content: bytes, timeout_s: float) -> tuple[Reply, float | None]:
        """(reply of one try, seconds to wait at least before the next or None when there should be none)."""
        began = time.monotonic()
        try:
            async with asyncio.timeout(timeout_s):
                response = await self._wire.request("POST", "/chat/completions", content)
        except TimeoutError:
            return _failed("timeout", (time.monotonic() - began) * 1000, None, f"no complete answer within {timeout_s:.1f} s"), None
        except WireError as error:
            return _failed("error", (time.monotonic() - began) * 1000, None, str(error)), 0.0
        if response.status == 200:
            return _read(response)
        refuse_status(response.status, f"{base_url(self.settings.api_url)}/chat/completions", response.text)
        reply = _failed("error", (response.ended - began) * 1000, response.status, f"HTTP {response.status}: {response.text[:200]}")
        return reply, _retry_after_s(response) if response.status in _AGAIN else None


def pause_s(attempt: int, at_least_s: float, source: random.Random) -> float:
    """Seconds before the next try: uniform between 0 and a bound that doubles ("full jitter"), no less than the server asked for, at most MAX_PAUSE_S."""
    return min(MAX_PAUSE_S, max(at_least_s, source.uniform(0, 0.5 * 2**attempt)))


def _retry_after_s(response: Response) -> float:
    try:
        return max(0.0, float(response.headers.get("retry-after", "0")))
    except ValueError:
        return 0.0  # the other form, a date, is rare, and the jitter does without it


def _failed(status: Status, took_ms: float, http_status: int | None, problem: str) -> Reply:
    return Reply(status, "", took_ms, error=problem, attempts=(Attempt(round(took_ms, 3), http_status, problem),))


def _read(response: Response) -> tuple[Reply, float | None]:
    """Read the events of a finished stream (server-sent events, one JSON object each, then [DONE])."""
    text: list[str] = []
    usage: dict[str, Any] = {}
    finish = served = first = fingerprint = None
    drafts: Drafts | None = None
    pending, ended, complaint = b"", False, ""
    for at, data in response.body:
        *lines, pending = (pending + data).split(b"\n")
        for line in lines:
            payload = line[5:].strip() if line.startswith(b"data:") else b""
            if not payload:
                continue
            if payload == b"[DONE]":
                ended = True
                continue
            try:
                event = json.loads(payload)
                choices = event.get("choices") or []
            except (ValueError, AttributeError):
                complaint = f"an event that is no JSON object: {payload[:80]!r}"
                continue
            if "error" in event:
                complaint = f"the server reported: {str(event['error'])[:200]}"
            served, usage = event.get("model") or served, event.get("usage") or usage
            drafts = acceptance.read(event) or drafts
            fingerprint = event.get("system_fingerprint") or fingerprint
            for choice in choices[:1]:
                if piece := (choice.get("delta") or {}).get("content"):
                    text.append(piece)
                    first = first or at
                finish = choice.get("finish_reason") or finish
    took, answer = (response.ended - response.began) * 1000, "".join(text)
    if complaint or not (ended or finish):
        return replace(_failed("error", took, 200, complaint or "the stream ended without an end"), text=answer), 0.0
    status: Status = "truncated" if finish == "length" else "answered" if answer.strip() else "empty"
    reply = Reply(
        status,
        answer,
        took,
        first_token_ms=round((first - response.began) * 1000, 3) if first else None,
        completion_tokens=usage.get("completion_tokens") or len(text),
        prompt_tokens=usage.get("prompt_tokens"),
        finish_reason=finish,
        served_model=served,
        error="" if status == "answered" else f"finish_reason is {finish}",
        attempts=(Attempt(round(took, 3), 200),),
        drafts=drafts,
        fingerprint=fingerprint if isinstance(fingerprint, str) else None,
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
