"""Markdown as blocks that know where they stand: headings, paragraphs, list items, tables, each with its span of characters.

Only what extraction needs of Markdown: no rendering, no nested quotes. A bold line by itself counts as a heading, since word processors export them so.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Literal

_HEADING = re.compile(r"(#{1,6})\s*(.*?)\s*#*\s*$")
_ITEM = re.compile(r"(\s*)(?:[-*+•]|\d{1,3}[.)])\s+(.*)$")
_RULE = re.compile(r"\s*(?:[-*_]\s*){3,}$")
_BOLD_LINE = re.compile(r"\*\*([^*]+)\*\*:?\s*$")
_NUMBERED = re.compile(r"((?:\d+\\?\.)+\d*|[IVX]+\\?\.|[A-Z]\\?\.|(?:chapter|section|part)\s+\d+[:.]?)\s+", re.IGNORECASE)
_FRONT_MATTER = re.compile(r"\A﻿?---\s*\n(.*?)\n---\s*(?:\n|\Z)", re.DOTALL)
_ESCAPED = re.compile(r"\\([\\`*_{}\[\]()#+\-.!~>=|$&<])")
_LINK = re.compile(r"!?\[([^\]]*)\]\((?:[^()\s]|\([^()]*\))*(?:\s+\"[^\"]*\")?\)")
#: A longer bold line is a sentence somebody stresses.
_HEADING_WORDS = 16


@dataclass(frozen=True)
class Block:
    """A piece of a document. ``text`` is raw Markdown; ``level`` is the heading's level or the item's indent; [start, end) are characters."""

    kind: Literal["heading", "paragraph", "item", "table", "code"]
    text: str
    level: int
    start: int
    end: int


@dataclass
class Section:
    """A heading with the blocks below it, up to the next heading; ``path`` is the headings above it and its own."""

    path: tuple[str, ...]
    level: int
    start: int
    blocks: list[Block] = field(default_factory=list)

    @property
    def title(self) -> str:
        """The section's own heading, clean."""
        return self.path[-1] if self.path else ""


def front_matter(text: str) -> tuple[str, int]:
    """(YAML between the leading dashes or an empty text, number of characters it takes)."""
    match = _FRONT_MATTER.match(text)
    return (match.group(1), match.end()) if match else ("", 0)


def sections(text: str, begin: int = 0) -> list[Section]:
    """The document as sections in order; what stands before the first heading is a section without a path."""
    found, current = [Section((), 0, begin)], list[tuple[int, str]]()
    for block in blocks(text, begin):
        if block.kind != "heading":
            found[-1].blocks.append(block)
            continue
        title = bare_title(block.text)
        if not title:
            continue
        while current and current[-1][0] >= block.level:
            current.pop()
        current.append((block.level, title))
        found.append(Section(tuple(name for _, name in current), block.level, block.start))
    return [section for section in found if section.path or section.blocks]


def blocks(text: str, begin: int = 0) -> Iterator[Block]:
    """Blocks in order, with their spans in ``text``."""
    lines, position, held, depth = [], begin, list[tuple[int, str]](), 1
    for line in text[begin:].splitlines(keepends=True):
        lines.append((position, line))
        position += len(line)

    def flush() -> Iterator[Block]:
        if held:
            start = held[0][0]
            yield Block("paragraph", "".join(line for _, line in held).strip(), 0, start, held[-1][0] + len(held[-1][1].rstrip()))
            held.clear()

    at = 0
    while at < len(lines):
        start, line = lines[at]
        bare = line.strip()
        heading = _HEADING.match(line) if line.startswith("#") else None
        bold = _BOLD_LINE.match(bare) if not held and _stands_alone(lines, at) else None
        if not bare or _RULE.match(bare):
            yield from flush()
        elif bare.startswith("```"):
            yield from flush()
            last = next((i for i in range(at + 1, len(lines)) if lines[i][1].strip().startswith("```")), len(lines) - 1)
            yield Block("code", text[start : lines[last][0] + len(lines[last][1])].strip(), 0, start, lines[last][0] + len(lines[last][1].rstrip()))
            at = last
        elif heading or (bold and len(bare.split()) <= _HEADING_WORDS and not bare.rstrip("*: ").endswith((".", ";", ","))):
            yield from flush()
            title = heading.group(2) if heading else bare
            level = len(heading.group(1)) if heading else _level_of(bare, depth)
            depth = level if heading and bare_title(title) else depth
            yield Block("heading", title, level, start, start + len(line.rstrip()))
        elif bare.startswith("|"):
            yield from flush()
            last = at
            while last + 1 < len(lines) and lines[last + 1][1].strip().startswith("|"):
                last += 1
            end = lines[last][0] + len(lines[last][1].rstrip())
            yield Block("table", text[start:end], 0, start, end)
            at = last
        elif item := _ITEM.match(line.rstrip("\n")):
            yield from flush()
            last = at
            while last + 1 < len(lines) and _continues(lines[last + 1][1]):
                last += 1
            end = lines[last][0] + len(lines[last][1].rstrip())
            inner = text[start + item.start(2) : end]
            yield Block("item", inner, len(item.group(1).expandtabs(4)), start, end)
            at = last
        else:
            held.append((start, line))
        at += 1
    yield from flush()


def _stands_alone(lines: list[tuple[int, str]], at: int) -> bool:
    return at + 1 >= len(lines) or not lines[at + 1][1].strip()


def _continues(line: str) -> bool:
    """Whether a line goes on with the list item above it."""
    return bool(line.strip()) and line[0] in " \t" and not _ITEM.match(line.rstrip("\n")) and not line.strip().startswith(("|", "#"))


def _level_of(bold: str, depth: int) -> int:
    """Level of a bold line: by its number (2. is a chapter, 2.1 a part of it), else one below the last real heading."""
    number = re.match(r"\*\*((?:\d+\\?\.)+\d*)", bold)
    return 1 + len([part for part in number.group(1).replace("\\", "").split(".") if part]) if number else min(6, depth + 1)


def bare_title(text: str) -> str:
    """A heading's words: no marks, no number; empty when nothing is left."""
    title = inline(text).strip().strip("*_#: ").strip()
    title = _NUMBERED.sub("", title, count=1) if _NUMBERED.match(title) else title
    return title if re.search(r"[^\W_]", title) else ""


def inline(text: str) -> str:
    """Inline Markdown without links, escapes and emphasis marks around whole phrases; bold and code are left to the reader."""
    text = _LINK.sub(r"\1", text)
    text = re.sub(r"(\*\*|__)(?=\S)(.+?)(?<=\S)\1", r"\2", text, flags=re.DOTALL)
    text = re.sub(r"(?<![\w*])\*(?=\S)([^*\n]+?)(?<=\S)\*(?![\w*])", r"\1", text)
    return _ESCAPED.sub(r"\1", text)


def table_rows(text: str) -> tuple[list[str], list[list[str]]]:
    """(header cells, rows of cells) of a pipe table; no header when the second line is no rule."""
    lines = [[cell.strip() for cell in re.split(r"(?<!\\)\|", line.strip().strip("|"))] for line in text.splitlines()]
    if len(lines) < 3 or not all(re.fullmatch(r":?-{2,}:?", cell) for cell in lines[1]):
        return [], []
    width = len(lines[0])
    return lines[0], [row for row in lines[2:] if len(row) == width]
