"""One form for every pair: what the many forms of question-and-answer files become, or the reason why a row is rejected."""

from __future__ import annotations

import functools
import hashlib
import json
import math
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from runners.corpus import turns
from runners.corpus.turns import Rejected

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
_CHATS = ("messages", "conversations", "conversation")
_RESERVED = {"id", "input", "history", "category", "source", *_CHATS, *(name for names in _NAMES.values() for name in names)}
#: What programs write for a value that is missing.
_MISSING = frozenset(("nan", "none", "null", "nil", "n/a", "#n/a", "<na>", "nat", "undefined"))


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
    try:
        return _pair_of(raw, source, category, categories, fields)
    except UnicodeEncodeError as error:
        raise Rejected(f"the text is not Unicode: a lone surrogate ({error.object[error.start : error.end]!a})") from None


def _pair_of(raw: Mapping[Any, Any], source: str, category: str | None, categories: Mapping[str, str], fields: Mapping[str, str]) -> Pair:
    row = {fields.get(str(key), str(key)): value for key, value in raw.items()} if fields else {str(key): value for key, value in raw.items()}
    question, answer, history = _from_chat(row) or _from_columns(row)
    named = "" if _is_missing(row.get("category")) else _text(row["category"], "category").strip()
    chosen = category or categories.get(named, named) or UNKNOWN
    extra = {key: value for key, value in row.items() if key not in _RESERVED and _is_plain(value)}
    pair = Pair(
        question.strip(),
        answer.strip(),
        chosen.lower() if chosen.lower() in DOMAINS else chosen,
        source if _is_missing(row.get("source")) or row["source"] == "" else _text(row["source"], "source"),
        tuple((role, content.strip()) for role, content in history),
        extra,
    )
    if not pair.question:
        raise Rejected("the question is empty")
    if not pair.answer:
        raise Rejected("the answer is empty")
    for name, text in (("question", pair.question), ("answer", pair.answer)):
        if _is_missing(text):
            raise Rejected(f"the {name} is {text!r}, what a program writes for a missing value")
    _check_text(pair)
    return pair


def _from_columns(row: Mapping[str, Any]) -> tuple[str, str, list[tuple[str, str]]]:
    question, answer = (_text(_first(row, names, key), key) for key, names in _NAMES.items())
    given = "" if _is_missing(row.get("input")) else _text(row["input"], "input").strip()
    history = turns.of(row["history"], "history") if row.get("history") else []
    if history and history[-1][0] != "assistant":
        raise Rejected("history must end with an assistant turn")
    return f"{question.strip()}\n\n{given}" if given else question, answer, history


def _from_chat(row: Mapping[str, Any]) -> tuple[str, str, list[tuple[str, str]]] | None:
    """The pair of a conversation: OpenAI's `messages`, ShareGPT's `conversations`, or TRL's `prompt` and `completion` as lists of turns."""
    name = next((name for name in _CHATS if row.get(name) is not None), "")
    value = row[name] if name else None
    if not name and isinstance(row.get("prompt"), list) and isinstance(row.get("completion"), list):
        name, value = "prompt and completion", [*row["prompt"], *row["completion"]]
    if not name:
        return None
    found = turns.of(value, name)
    if len(found) < 2 or found[-1][0] != "assistant":
        raise Rejected(f"{name} must end with a user turn and an assistant turn")
    return found[-2][1], found[-1][1], found[:-2]


def _first(row: Mapping[str, Any], names: tuple[str, ...], key: str) -> Any:
    for name in names:
        if row.get(name) is not None:
            return row[name]
    raise Rejected(f"there is no {key}: none of {', '.join(names)} among {', '.join(map(str, row))[:100] or 'no keys'}")


def _is_missing(value: Any) -> bool:
    """Whether a value is none, not a number, or a word that stands for one of these."""
    if isinstance(value, float):
        return not math.isfinite(value)
    return value is None or (isinstance(value, str) and len(value) < 12 and value.strip().lower() in _MISSING)


def _text(value: Any, name: str) -> str:
    if isinstance(value, str):
        return value
    if isinstance(value, float) and not math.isfinite(value):
        raise Rejected(f"the {name} is {value}, no text")
    if isinstance(value, int | float) and not isinstance(value, bool):
        return str(value)
    raise Rejected(f"{name} must be a text, found {type(value).__name__}")


def _is_plain(value: Any) -> bool:
    """Whether a value may be carried along: JSON of plain values. Raises UnicodeEncodeError for text that is not Unicode."""
    if isinstance(value, str):
        return value.isascii() or value.encode() is not None
    if isinstance(value, list):
        return all(map(_is_plain, value))
    if isinstance(value, dict):
        return all(isinstance(key, str) and _is_plain(key) and _is_plain(item) for key, item in value.items())
    if isinstance(value, float):
        return math.isfinite(value)
    return isinstance(value, int)


def _check_text(pair: Pair) -> None:
    """Raises UnicodeEncodeError for text that is not Unicode, Rejected for a NUL."""
    for text in (pair.question, pair.answer, pair.category, pair.source, *(content for _, content in pair.history)):
        if not text.isascii():
            text.encode()
    if "\x00" in pair.question or "\x00" in pair.answer:
        raise Rejected("the text holds a NUL character")
