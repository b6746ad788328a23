"""A served model that is asked many things at a time: answers in a form, kept by the content of the request, so that nothing is asked twice.

Retries, pauses and Retry-After are the OpenAI client's. A reply that is cut off or has another form is asked for once more, with what was wrong; then it is
a reason. An answer is kept only if it has the form. Left out: streaming, and any judgement of what an answer says.
"""

from __future__ import annotations

import hashlib
import json
import re
import threading
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor, as_completed
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Generic, TypeVar
from urllib.parse import urlsplit

from pydantic import BaseModel, ValidationError

from runners import log, outside
from runners.corpus.prepare import estimated_tokens
from runners.errors import UserError

T = TypeVar("T", bound=BaseModel)
Messages = list[dict[str, str]]
#: A server that does not say how long its context is has at least this many tokens.
_CONTEXT_TOKENS = 8_192
#: Tokens of a reply, and the share of a small context that is left for it.
_REPLY_TOKENS, _REPLY_SHARE = 4_000, 0.4
_RETRIES, _TIMEOUT_S = 4, 600.0
#: Below it, nothing is left for a text beside the prompt and the reply. Characters of a reply without the form that the model is shown again.
LEAST_CONTEXT, _SHOWN_AGAIN = 2_048, 400
_FENCE = re.compile(r"\A\s*```(?:json)?\s*(.*?)\s*```\s*\Z", re.DOTALL)
_NO_FORM = re.compile(r"response_format|json_schema|guided|structured", re.IGNORECASE)


@dataclass(frozen=True)
class FormAnswer(Generic[T]):
    """What became of a request: the answer in its form, or why there is none."""

    value: T | None
    why: str = ""


@dataclass
class Usage:
    """What was asked: requests sent and answers kept from earlier, tokens as the server counts them."""

    requests: int = 0
    kept: int = 0
    prompt_tokens: int = 0
    completion_tokens: int = 0

    def __str__(self) -> str:
        kept = f", {self.kept:,} answers were there already" if self.kept else ""
        return f"{self.requests:,} requests{kept}; {self.prompt_tokens:,} tokens read and {self.completion_tokens:,} written by the model"


class _Refused(Exception):
    """The server does not answer this request, now or later."""


class _Unanswered(Exception):
    """The server gave no answer now; ``stop`` when it would give none to any other request either."""

    def __init__(self, text: str, *, stop: bool) -> None:
        super().__init__(text)
        self.stop = stop


class _Outside(BaseModel):
    """What a server says; what is not read here may be there."""


class _Message(_Outside):
    content: str | None = None


class _Choice(_Outside):
    message: _Message
    finish_reason: str | None = None


class _Tokens(_Outside):
    prompt_tokens: int | None = None
    completion_tokens: int | None = None


class _Reply(_Outside):
    #: Some servers and proxies report an error with the status of an answer, beside a part of it or alone.
    error: Any = None
    choices: list[_Choice] | None = None
    usage: _Tokens | None = None


class _Listed(_Outside):
    id: str
    root: str | None = None
    max_model_len: int | None = None


class _List(_Outside):
    data: list[_Listed]


@dataclass
class ServedModel:
    """A model at an OpenAI-compatible endpoint; made by :func:`opened`. ``context_tokens`` is what prompt and reply have together.

    ``root`` is what its server says it was loaded from: servers call every model by the same name.
    """

    name: str
    url: str
    root: str
    answers: Path
    context_tokens: int
    usage: Usage = field(default_factory=Usage)
    _client: Any = None
    _lock: threading.Lock = field(default_factory=threading.Lock)
    _takes_form: bool = True

    @property
    def reply_tokens(self) -> int:
        """The longest reply that is asked for."""
        return min(_REPLY_TOKENS, int(_REPLY_SHARE * self.context_tokens))

    def answer(self, messages: Messages, form: type[T]) -> FormAnswer[T] | None:
        """The answer that was kept of an earlier run, or None."""
        file = self._file(messages, form)
        try:
            return FormAnswer(form.model_validate_json(json.loads(file.read_text())["content"]))
        except (OSError, ValueError, KeyError, TypeError):
            return None

    def missing(self, asked: Sequence[Messages], form: type[BaseModel]) -> list[Messages]:
        """Those of some requests that have no kept answer."""
        return [messages for messages in asked if self.answer(messages, form) is None]

    def all(self, label: str, asked: Sequence[Messages], form: type[T], at_once: int) -> list[FormAnswer[T]]:
        """The answers to some requests, in their order, asked ``at_once`` at a time.

        Raises:
            UserError: some were not answered; the others are kept, and the same call asks only for what is missing.
        """
        if not asked:
            return []
        # Two pieces may give the same request; it is asked once.
        places = dict[Path, list[int]]()
        for place, messages in enumerate(asked):
            places.setdefault(self._file(messages, form), []).append(place)
        found = {file: kept for file, (place, *_) in places.items() if (kept := self.answer(asked[place], form))}
        self.usage.kept += len(found)
        failed, stop = list[_Unanswered](), threading.Event()

        def one(file: Path) -> None:
            if not stop.is_set():
                found[file] = self._ask(asked[places[file][0]], form)

        with log.progress(label, len(places)) as bar, ThreadPoolExecutor(at_once) as pool:
            bar.advance(len(found))
            try:
                for done in as_completed([pool.submit(one, file) for file in places if file not in found]):
                    try:
                        done.result()
                    except _Unanswered as error:
                        failed.append(error)
                        if error.stop:
                            stop.set()
                    bar.advance()
            except KeyboardInterrupt:
                stop.set()  # what is waiting is not asked any more: it would be paid for
                raise
        if failed:
            raise UserError(
                f"{len(places) - len(found)} of {len(places)} requests were not answered by {self.url}: {failed[0]}",
                "an OpenAI-compatible endpoint that serves this model",
                f"see --endpoint, --model and the key; the same command asks only for what is missing in {self.answers}",
            )
        return [found[self._file(messages, form)] for messages in asked]

    def _ask(self, messages: Messages, form: type[T]) -> FormAnswer[T]:
        why = content = ""
        for again in (False, True):
            said = messages
            if again:
                # Between the two: templates of several families take turns only.
                complaint = f"Your reply could not be used: {why}. Reply again, with the JSON object only."
                said = [*messages, {"role": "assistant", "content": content[:_SHOWN_AGAIN] or "(nothing)"}, {"role": "user", "content": complaint}]
            try:
                content, finish = self._sent(said, form)
            except _Refused as error:
                return FormAnswer(None, f"the model's server refused the request: {error}")
            if finish == "length":
                why = f"it was cut off after {self.reply_tokens} tokens"
                continue
            fenced = _FENCE.fullmatch(content)
            content = fenced[1] if fenced else content
            try:
                value = form.model_validate_json(content)
            except ValidationError as error:
                first = error.errors(include_url=False, include_input=False)[0]
                why = f"it has not the form asked for ({'.'.join(map(str, first['loc'])) or 'the JSON'}: {first['msg'][:80]})"
                continue
            file = self._file(messages, form)
            file.parent.mkdir(parents=True, exist_ok=True)
            outside.write_durably(file, json.dumps({"model": self.name, "content": content}, ensure_ascii=False))
            return FormAnswer(value)
        return FormAnswer(None, why.replace("it ", "the model's reply ", 1))

    def _sent(self, messages: Messages, form: type[BaseModel]) -> tuple[str, str]:
        """(text, why it ended) of one reply. Raises _Unanswered."""
        import openai

        request: dict[str, Any] = {"model": self.name, "messages": messages, "temperature": 0, "max_tokens": self.reply_tokens}
        schema = {"name": form.__name__.lower(), "strict": True, "schema": form.model_json_schema()}
        create = self._client.chat.completions.with_raw_response.create
        try:
            if self._takes_form:
                try:
                    raw = create(**request, response_format={"type": "json_schema", "json_schema": schema})
                except openai.BadRequestError as error:
                    if not _NO_FORM.search(str(error)):
                        raise
                    # A server without structured output; the prompt describes the form as well.
                    self._takes_form = False
            if not self._takes_form:
                raw = create(**request)
            reply = _Reply.model_validate_json(raw.http_response.content)
        except (openai.BadRequestError, openai.UnprocessableEntityError) as error:
            raise _Refused(f"HTTP {error.status_code}: {_shown(error)}") from None
        except openai.APIStatusError as error:
            raise _Unanswered(f"HTTP {error.status_code}: {_shown(error)}", stop=error.status_code in (401, 403, 404)) from None
        except openai.APITimeoutError:
            raise _Unanswered(f"no reply within {_TIMEOUT_S:.0f} s", stop=False) from None
        except openai.OpenAIError as error:
            raise _Unanswered(_shown(error), stop=True) from None
        except ValidationError:
            reply = _Reply()
        if reply.error is not None:
            raise _Unanswered(f"the server says: {_said(reply.error)}", stop=False)
        if not reply.choices:
            raise _Unanswered(f"what it sent is no chat completion: {outside.printable(raw.http_response.text)[:100]!r}", stop=False)
        choice = reply.choices[0]
        if choice.finish_reason == "error":
            raise _Unanswered("the server ended its reply with an error", stop=False)
        with self._lock:
            self.usage.requests += 1
            self.usage.prompt_tokens += (reply.usage and reply.usage.prompt_tokens) or 0
            self.usage.completion_tokens += (reply.usage and reply.usage.completion_tokens) or 0
        return choice.message.content or "", choice.finish_reason or ""

    def _file(self, messages: Messages, form: type[BaseModel]) -> Path:
        asked = outside.canonical_json([self.name, self.root, messages, form.model_json_schema()])
        return self.answers / f"{hashlib.sha256(asked.encode()).hexdigest()[:32]}.json"


@contextmanager
def opened(url: str, name: str, api_key: str, answers: Path) -> Iterator[ServedModel]:
    """A model, after its server was asked which it serves. Raises UserError when there is no server, no access, or no such model."""
    import openai

    fix = "start the server, or correct --endpoint, --model or the key"
    try:
        # The key goes into a header, and the address is read, before anything is sent.
        api_key.encode("ascii")
        address = urlsplit(url)
        if address.scheme not in ("http", "https") or address.port == 0:
            raise ValueError("no http address")
        client = openai.OpenAI(base_url=url, api_key=api_key or "none", timeout=_TIMEOUT_S, max_retries=_RETRIES)
    except ValueError as error:
        raise UserError(f"{url} or its key cannot be used: {_shown(error)}", "an address like http://127.0.0.1:8000/v1 and a key in ASCII", fix) from None
    with client:
        try:
            listed = client.with_options(max_retries=1, timeout=20.0).models.with_raw_response.list()
            served = {one.id: one for one in _List.model_validate_json(listed.http_response.content).data}
        except openai.OpenAIError as error:
            raise UserError(f"{url} does not answer: {_shown(error)}", "an OpenAI-compatible endpoint, ending in /v1", fix) from None
        except ValidationError:
            raise UserError(f"{url}/models is no list of models", "an OpenAI-compatible endpoint, ending in /v1", fix) from None
        if name not in served:
            raise UserError(f"{url} does not serve {name!r}", f"one of {', '.join(sorted(served)) or 'no model'}", fix)
        context = served[name].max_model_len or _CONTEXT_TOKENS
        if context < LEAST_CONTEXT:
            raise UserError(
                f"{name} has a context of {context:,} tokens",
                f"at least {LEAST_CONTEXT:,}: prompt, text and reply",
                "serve it with a larger serve.max_model_tokens",
            )
        yield ServedModel(name, url, served[name].root or "", answers, context, _client=client)


def tokens(messages: Messages) -> int:
    """About how many tokens a request has."""
    return sum(estimated_tokens(message["content"]) + 5 for message in messages)


def _said(error: Any) -> str:
    """The message of an error's body, or the body."""
    message = error.get("message") if isinstance(error, dict) else error
    return outside.printable(message if isinstance(message, str) else json.dumps(error))[:200]


def _shown(error: Exception) -> str:
    return outside.printable(str(error))[:200]
