"""One form for every pair: what the many forms of question-and-answer files become, or the reason why a row is rejected."""

from __future__ import annotations

import functools
import hashlib
import json
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

#: The domains of this project, the only categories a dataset has unless its sources file says ``categories: any``.
DOMAINS = (
    "retirement",
    "tax",
    "estate",
    "investing",
    "markets",
    "trading",
    "banking",
    "credit",
    "insurance",
    "education",
    "business",
    "wealth",
    "compliance",
    "credentials",
    "standards",
    "data",
    "technology",
    "literacy",
)
UNKNOWN = "uncategorized"
_NAMES = {"question": ("question", "instruction", "prompt"), "answer": ("answer", "output", "response", "completion")}
_RESERVED = {"id", "question", "instruction", "prompt", "answer", "output", "response", "completion", "input", "messages", "history", "category", "source"}
_ROLES = ("user", "assistant")


class Rejected(Exception):
    """A row that cannot become a pair; the text is the reason, for the rejects file."""


@dataclass(frozen=True)
class Pair:
    """A question with its answer. ``history`` is earlier turns as (role, content); ``extra`` is carried into the dataset as it is."""

    question: str
    answer: str
    category: str
    source: str
    history: tuple[tuple[str, str], ...] = ()
    extra: Mapping[str, Any] = field(default_factory=dict)

    @functools.cached_property
    def id(self) -> str:
        """16 hex digits of the content: question, answer and history."""
        content = json.dumps([self.question, self.answer, self.history], ensure_ascii=False)
        return hashlib.sha256(content.encode()).hexdigest()[:16]

    @property
    def asked(self) -> str:
        """Everything the user says: earlier turns and the question."""
        return "\n".join([*(content for role, content in self.history if role == "user"), self.question])

    def row(self) -> dict[str, Any]:
        """The pair as a row of the dataset."""
        history = [{"role": role, "content": content} for role, content in self.history]
        fixed = {"id": self.id, "question": self.question, "answer": self.answer, "category": self.category, "source": self.source, "history": history}
        return fixed | {key: value for key, value in sorted(self.extra.items()) if key not in fixed}


def pair_of(raw: Any, *, source: str, category: str | None, categories: Mapping[str, str], fields: Mapping[str, str]) -> Pair:
    """Bring a row in any of the known forms to a Pair.

    Args:
        raw: the row as read: plain, Alpaca or chat form.
        source: name for rows that carry none.
        category: fixed category of the source, or None.
        categories: category in the file -> category in the dataset.
        fields: name in the file -> name here.

    Raises:
        Rejected: the row is not a pair, with the reason.
    """
    if not isinstance(raw, Mapping):
        raise Rejected(f"a row must be an object, found {type(raw).__name__}")
    row = {fields.get(str(key), str(key)): value for key, value in raw.items()}
    question, answer, history = _from_chat(row["messages"]) if row.get("messages") is not None else _from_columns(row)
    named = _text(row.get("category"), "category") if row.get("category") is not None else ""
    chosen = category or categories.get(named, named) or UNKNOWN
    extra = {key: value for key, value in row.items() if key not in _RESERVED and _is_plain(value)}
    pair = Pair(
        question.strip(),
        answer.strip(),
        chosen.lower() if chosen.lower() in DOMAINS else chosen,
        _text(row["source"], "source") if row.get("source") else source,
        tuple((role, content.strip()) for role, content in history),
        extra,
    )
    if not pair.question:
        raise Rejected("the question is empty")
    if not pair.answer:
        raise Rejected("the answer is empty")
    _check_unicode(pair)
    return pair


def _from_columns(row: Mapping[str, Any]) -> tuple[str, str, list[tuple[str, str]]]:
    question, answer = (_text(_first(row, names, key), key) for key, names in _NAMES.items())
    given = _text(row["input"], "input").strip() if row.get("input") is not None else ""
    history = _turns(row["history"], "history") if row.get("history") else []
    if history and history[-1][0] != "assistant":
        raise Rejected("history must end with an assistant turn")
    return f"{question.strip()}\n\n{given}" if given else question, answer, history


def _from_chat(messages: Any) -> tuple[str, str, list[tuple[str, str]]]:
    turns = _turns(messages, "messages")
    if len(turns) < 2 or turns[-1][0] != "assistant":
        raise Rejected("messages must end with a user turn and an assistant turn")
    return turns[-2][1], turns[-1][1], turns[:-2]


def _turns(value: Any, name: str) -> list[tuple[str, str]]:
    """User and assistant turns, alternating; system turns are left out."""
    if not isinstance(value, list):
        raise Rejected(f"{name} must be a list of turns, found {type(value).__name__}")
    turns = []
    for turn in value:
        if not isinstance(turn, Mapping) or not isinstance(turn.get("content"), str) or not isinstance(turn.get("role"), str):
            raise Rejected(f"each turn of {name} must have a role and a content, found {str(turn)[:80]!r}")
        if turn["role"] != "system":
            turns.append((turn["role"], turn["content"]))
    if any(role != _ROLES[place % 2] for place, (role, _) in enumerate(turns)):
        raise Rejected(f"the turns of {name} must go user, assistant, user, …; found {', '.join(role for role, _ in turns)[:80]}")
    return turns


def _first(row: Mapping[str, Any], names: tuple[str, ...], key: str) -> Any:
    for name in names:
        if row.get(name) is not None:
            return row[name]
    raise Rejected(f"there is no {key}: none of {', '.join(names)} among {', '.join(map(str, row))[:100] or 'no keys'}")


def _text(value: Any, name: str) -> str:
    if isinstance(value, str):
        return value
    if isinstance(value, int | float) and not isinstance(value, bool):
        return str(value)
    raise Rejected(f"{name} must be a text, found {type(value).__name__}")


def _is_plain(value: Any) -> bool:
    """Whether a value may be carried along: JSON of plain values."""
    if isinstance(value, list):
        return all(_is_plain(item) for item in value)
    if isinstance(value, dict):
        return all(isinstance(key, str) and _is_plain(item) for key, item in value.items())
    if isinstance(value, float):
        return value == value and abs(value) != float("inf")
    return value is not None and isinstance(value, str | int | bool)


def _check_unicode(pair: Pair) -> None:
    try:
        "".join([pair.question, pair.answer, pair.category, pair.source, *(content for _, content in pair.history)]).encode()
        if pair.extra:
            json.dumps(pair.extra, ensure_ascii=False).encode()
    except UnicodeEncodeError as error:
        raise Rejected(f"the text is not Unicode: a lone surrogate ({error.object[error.start : error.end]!a})") from None
    if "\x00" in pair.question or "\x00" in pair.answer:
        raise Rejected("the text holds a NUL character")
