"""What stands around a document's text: navigation, tables of contents, the turns of a pasted chat, the marks that an export leaves. It is taken out here."""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import replace

from runners.corpus.markdown import Block, Section

_USER = "you|user|human|me|prompt"
_ASSISTANT = r"assistant|chatgpt|gpt-?[\w.]*|claude|gemini|copilot|bard|grok|llama|perplexity|deepseek|ai|bot|model|response|system"
_WHO = rf"(?:(?P<user>{_USER})|(?P<assistant>{_ASSISTANT}))(?: said| wrote| responded)?"
_SPEAKER = re.compile(rf"[\W_]*{_WHO}\s*(?:\(.{{0,30}}\))?\s*[:：]?[\W_]*", re.IGNORECASE)
_TURN = re.compile(rf"[*_]*{_WHO}[*_]*\s*[:：][*_]*\s+(?P<text>\S.*)", re.IGNORECASE | re.DOTALL)
#: A line of a table of contents: leaders or a page number behind a title, or a link and nothing else.
_CONTENTS = re.compile(r"[^\n]{3,120}?(?:(?:\s*\.){3,}|\s*…+|\s*_{3,}|\t+)\s*\d{0,4}|[\d.]*\s*\[[^\]]+\]\([^)]*\)\s*\d{0,4}")
_BUTTONS = re.compile(
    r"(?:copy(?: code)?|share|regenerate(?: response)?|edit|like|dislike|show more|show less|sources?|search(?:ed)? \d+ sites?|thought for .{1,20}|\d+ ?/ ?\d+"
    r"|back to top|top|next|previous|prev|home|up|contents|index|skip to (?:main )?content|(?:next|prev(?:ious)?|up):.*|.{0,60}\[contents\].*"
    r"|home ?page|site ?map|contacts?|(?:this page )?(?:was )?last (?:updated|modified|changed|edited).{0,60}"
    r"|\d{1,4} [^\d.!?:\n]{3,50}|[^\d.!?:,\n]{3,50} \d{1,4}"
    r"|page \d+(?: of \d+)?|(?:chapter|section) \d+[:.].{0,60}\d+)",
    re.IGNORECASE,
)
MATH_OR_CODE = re.compile(r"(\$[^$\n]{1,200}\$|\\\(.*?\\\)|\\\[.*?\\\]|```.*?(?:```|\Z)|`[^`\n]*`)", re.DOTALL)


def without(sections: list[Section]) -> Iterator[Section]:
    """Sections without navigation, tables of contents, and all that a user says in a pasted chat.

    A chat is recognised by its speakers: from a label of the user's to the next one of the assistant's, everything is the user's.
    """
    chat = sum(_speaker(block.text) != "" for section in sections for block in section.blocks) + sum(_speaker(section.title) != "" for section in sections) >= 2
    users = False
    for section in sections:
        if chat and (speaker := _speaker(section.title)):
            users = speaker == "user"
            section.path = section.path[:-1]
        kept = list[Block]()
        for block in section.blocks:
            if chat and block.kind == "paragraph" and (speaker := _speaker(block.text)):
                users = speaker == "user"
                turn = _TURN.fullmatch(block.text)
                if turn and not users:
                    kept.append(replace(block, text=turn["text"]))
            elif not users and not _is_furniture(block):
                kept.append(block)
        if _is_contents(section.blocks):
            kept = []
        yield replace(section, blocks=kept)


def unescaped(text: str) -> str:
    """Without the backslashes that exports put before ordinary letters and marks; formulas and code keep theirs."""
    parts = MATH_OR_CODE.split(text)
    return "".join(part if place % 2 else re.sub(r"\\(?=[\W_]|$)|\\(?=[A-Z][a-z]+\b)|(?<=[a-z])\\", "", part) for place, part in enumerate(parts))


def _speaker(text: str) -> str:
    """ "user", "assistant" or an empty text: who a line says is speaking."""
    match = _SPEAKER.fullmatch(text.strip()) if len(text) < 60 else None
    match = match or _TURN.fullmatch(text.strip())
    return "" if match is None else "user" if match["user"] else "assistant"


def _is_furniture(block: Block) -> bool:
    return block.kind in ("paragraph", "item") and bool(_BUTTONS.fullmatch(block.text.strip(" *_[]()|»«<>")) or _CONTENTS.fullmatch(block.text.strip()))


def _is_contents(blocks: list[Block]) -> bool:
    """Whether most of a section's lines are those of a table of contents."""
    lines = [line.strip() for block in blocks if block.kind in ("item", "paragraph") for line in block.text.splitlines() if line.strip()]
    return len(lines) >= 3 and sum(bool(_CONTENTS.fullmatch(line.lstrip("-*• "))) for line in lines) >= 0.6 * len(lines)
