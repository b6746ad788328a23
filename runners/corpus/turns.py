"""Conversations as other programs write them (OpenAI, ShareGPT, TRL) as turns of a user and an assistant, or the reason why they are none.

What a tool returned is put below the user's turn: the answer rests on it, and the model is trained with user and assistant turns only.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Any

#: Names of the four roles in OpenAI's, ShareGPT's and others' files.
_ROLES = {
    **dict.fromkeys(("system", "developer"), "system"),
    **dict.fromkeys(("user", "human"), "user"),
    **dict.fromkeys(("assistant", "gpt", "chatgpt", "model", "bot"), "assistant"),
    **dict.fromkeys(("tool", "function", "observation", "tool_response"), "tool"),
    **dict.fromkeys(("function_call", "tool_call"), "call"),
}
_ORDER = ("user", "assistant")
Turns = list[tuple[str, str]]


class Rejected(Exception):
    """A row that cannot become a pair; the text is the reason, for the rejects file."""


def of(value: Any, name: str) -> Turns:
    """(role, text) of user and assistant, alternating; system turns are left out. Raises Rejected."""
    if not isinstance(value, list):
        raise Rejected(f"{name} must be a list of turns, found {type(value).__name__}")
    turns, calls, last = Turns(), dict[str, str](), ""
    for turn in value:
        role, content, last_calls = _read(turn, name)
        last = "call" if last_calls else role
        calls |= last_calls
        if role == "system" or last == "call":
            continue
        if role == "tool":
            if not turns or turns[-1][0] != "user":
                raise Rejected(f"a tool's result in {name} follows no user turn")
            call = calls.get(str(turn.get("tool_call_id", ""))) or turn.get("name") or next(reversed(calls.values()), "A tool")
            turns[-1] = ("user", f"{turns[-1][1].strip()}\n\n{call} returned:\n{content.strip()}")
        else:
            turns.append((role, content))
    if last == "call":
        raise Rejected(f"{name} ends with a call of a tool, not with an answer")
    if any(role != _ORDER[place % 2] for place, (role, _) in enumerate(turns)):
        raise Rejected(f"the turns of {name} must go user, assistant, user, …; found {', '.join(role for role, _ in turns)[:80]}")
    return turns


def _read(turn: Any, name: str) -> tuple[str, str, dict[str, str]]:
    """(role, text, calls of tools by id) of one turn in OpenAI's or ShareGPT's keys."""
    if not isinstance(turn, Mapping) or not isinstance(given := turn.get("role", turn.get("from")), str):
        raise Rejected(f"each turn of {name} must have a role and a content, found {str(turn)[:80]!r}")
    role = _ROLES.get(given.lower())
    if role is None:
        raise Rejected(f"a turn of {name} has the role {given[:40]!r}, which is none of {', '.join(_ROLES)}")
    content = turn.get("content", turn.get("value"))
    calls = _calls(turn) if role == "assistant" else {"": _call(content)} if role == "call" else {}
    if calls:
        return role, "", calls
    if content is None or not isinstance(content, str | list):
        raise Rejected(f"each turn of {name} must have a role and a content, found {str(turn)[:80]!r}")
    return role, content if isinstance(content, str) else _joined(content, name), {}


def _joined(parts: list[Any], name: str) -> str:
    """The text of content parts. Raises Rejected for a picture, a sound or a file: the model reads text."""
    texts = []
    for part in parts:
        kind = part.get("type") if isinstance(part, Mapping) else None
        text = part if isinstance(part, str) else part.get("text", part.get("refusal")) if isinstance(part, Mapping) else None
        if not isinstance(text, str) or kind not in (None, "text", "input_text", "output_text", "refusal"):
            raise Rejected(f"a turn of {name} has a part of type {str(kind or type(part).__name__)[:40]!r}; the model reads text only")
        texts.append(text)
    return "\n".join(texts)


def _calls(turn: Mapping[str, Any]) -> dict[str, str]:
    """Calls of tools in an assistant's turn: id -> "name(arguments)"."""
    listed = turn.get("tool_calls") or ([{"function": turn["function_call"]}] if turn.get("function_call") else [])
    if not isinstance(listed, list):
        return {}
    return {str(one.get("id", "")): _call(one.get("function", one)) for one in listed if isinstance(one, Mapping)}


def _call(value: Any) -> str:
    """A call as text, from the object or its JSON."""
    read = _loaded(value) if isinstance(value, str) else value
    if not isinstance(read, Mapping):
        return value.strip()[:200] if isinstance(value, str) else "A tool"
    arguments = read.get("arguments", read.get("parameters", ""))
    return f"{read.get('name', 'A tool')}({arguments if isinstance(arguments, str) else json.dumps(arguments, ensure_ascii=False)})"


def _loaded(text: str) -> Any:
    try:
        return json.loads(text)
    except (ValueError, RecursionError):
        return None
