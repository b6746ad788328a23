"""Markdown as blocks that know where they stand: headings, paragraphs, list items, tables, each with its span of characters.

markdown-it-py parses; this adds the spans, and what word processors leave: a bold line by itself counts as a heading, a line after • as an item.
"""

from __future__ import annotations

import functools
import re
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Literal

from markdown_it import MarkdownIt
from markdown_it.token import Token

Kind = Literal["heading", "paragraph", "item", "table", "code"]

_LINE = re.compile(r"[^\r\n]*(?:\r\n?|\n)|[^\r\n]+\Z")
_HASHES = re.compile(r"^\s*#{1,6}\s*")
_GLUED = re.compile(r"(#{1,6})([^#\s].*?)\s*#*\Z")
_ITEM = re.compile(r"(\s*)(?:[-*+•]|\d{1,3}[.)])\s+(.*)$")
_RULE = re.compile(r"\s*(?:-+|=+)\s*")
_KINDS: dict[str, Kind] = {"heading_open": "heading", "paragraph_open": "paragraph", "fence": "code", "table_open": "table"}
_BOLD_LINE = re.compile(r"\*\*([^*]+)\*\*:?\s*$")
_NUMBERED = re.compile(
    r"(\((?:FAQ|Q|Question)\W{0,2}\d+\w?\)|(?:[A-Z]\.)?(?:\d+\\?\.)+\d*|[A-Z](?:\.\d+)+|[IVX]+\\?\.|[A-Z]\d{0,2}\\?\.|\(\d{1,3}\)|(?:chapter|section|part)\s+\d+[:.]?|appendix\s+(?:[A-Z]|\d+)\b[:.]?|\d{1,2}(?=\s+[A-Z]))\s+",
    re.IGNORECASE,
)
#: A numbered line by itself, as plain text has its headings: "12.3. Ordering the headers".
_NUMBERED_LINE = re.compile(r"(?P<number>[1-9A-Z]\d?(?:\.\d{1,2}){1,4})\.?[ \t]+(?=[A-Z])[^\n]*[\w)\"”?]")
_FRONT_MATTER = re.compile(r"\A﻿?---\s*\n(.*?)\n---\s*(?:\n|\Z)", re.DOTALL)
_ESCAPED = re.compile(r"\\([\\`*_{}\[\]()#+\-.!~>=|$&<])")
_COMMENT = re.compile(r"<!--.*?-->\s*", re.DOTALL)
_REFERENCE = re.compile(r"(?<!\w)\[([^\[\]\n]+)\]\[[^\[\]\n]*\]")
_LINK = re.compile(r"!?\[([^\]]*)\]\((?:[^()\s]|\([^()]*\))*(?:\s+\"[^\"]*\")?\)")
#: Tags inside a line, and the code in which they are text.
_TAGS = re.compile(r"(`[^`\n]*`)|</?(?:a|b|br|code|details|div|em|font|i|img|kbd|p|small|span|strong|sub|summary|sup|u)\b[^<>]*>", re.IGNORECASE)
#: The mark of a quotation at a line's beginning, and the label of a note in it.
_QUOTED = re.compile(r"^[ \t]*(?:>[ \t]?)+(?:\[!\w+\][ \t]*\n?)?", re.MULTILINE)
#: A longer bold line is a sentence somebody stresses.
_HEADING_WORDS = 16


@dataclass(frozen=True)
class Block:
    """A piece of a document. ``text`` is raw Markdown; ``level`` is the heading's level or the item's indent; [start, end) are characters."""

    kind: Kind
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
    """The document as sections in order; the text before the first heading is a section without a path."""
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
    """Blocks in order, with their spans in ``text``. Of a list item, the first paragraph is the item; what follows inside it are blocks of their own."""
    spans = [(begin + line.start(), begin + line.start() + len(line.group().rstrip())) for line in _LINE.finditer(text[begin:])]
    depth, in_item, has_hashes = 1, False, not _numbers_headings(text)
    for token in _parser().parse(text[begin:]):
        if token.type == "list_item_open":
            in_item = True
        if token.map is None or token.type not in _KINDS:
            continue
        first, last = token.map[0], _last_line(spans, *token.map)
        start, end = spans[first][0], spans[last][1]
        kind, raw = _KINDS[token.type], text[start:end]
        if in_item and kind == "paragraph":
            item = _item(text, spans, first, end)
            # A question in bold that is all of a list's entry is the heading of what is indented below it.
            asks = _BOLD_LINE.fullmatch(item.text) and item.text.rstrip("* ").endswith("?")
            yield Block("heading", item.text, min(6, depth + 1), item.start, item.end) if asks else item
        elif kind in ("code", "table"):
            yield Block(kind, raw.strip(), 0, start, end)
        else:
            follows = text[slice(*spans[last + 1])].strip() if last + 1 < len(spans) else ""
            heading = _heading(token, raw.strip(), depth, alone=first == last and not follows, has_hashes=has_hashes)
            depth = heading[1] if heading and not _BOLD_LINE.match(raw.strip()) and bare_title(heading[0]) else depth
            if heading:
                yield Block("heading", heading[0], heading[1], start, end)
            else:
                yield from _bullets(text, spans[first : last + 1])
        in_item = False


@functools.cache
def _parser() -> MarkdownIt:
    # Without indented code, quotes, HTML and references: word processors indent for looks, and the reader of a block wants its raw lines.
    return MarkdownIt("commonmark").enable("table").disable(["code", "blockquote", "html_block", "reference"])


def _last_line(spans: list[tuple[int, int]], first: int, end: int) -> int:
    """The last line of [first, end) that is not blank."""
    return next((line for line in range(min(end, len(spans)) - 1, first, -1) if spans[line][1] > spans[line][0]), first)


def _numbers_headings(text: str) -> bool:
    """Whether a text numbers its headings and marks them in no other way: there, # begins a comment of a configuration or a script."""
    alone = [part.strip() for part in re.split(r"\n[ \t]*\n", text)]
    numbered = len([part for part in alone if _NUMBERED_LINE.fullmatch(part)])
    return numbered > len([part for part in alone if part.startswith("#")])


def _heading(token: Token, raw: str, depth: int, *, alone: bool, has_hashes: bool) -> tuple[str, int] | None:
    """(words, level) of a heading: marked by # or underlined, or a bold line by itself; None for a paragraph.

    A rule right below a paragraph underlines it in Markdown; of a long one or a sentence it is taken for a rule.
    """
    if alone and (numbered := _NUMBERED_LINE.fullmatch(raw)) and _is_short(raw):
        return raw, min(6, numbered["number"].count(".") + 1)
    if token.type == "heading_open" and token.markup.startswith("#"):
        if not has_hashes:
            return None
        return _HASHES.sub("", raw).rstrip("# "), int(token.tag[1])
    if token.type == "heading_open":
        words = raw.rpartition("\n")[0].strip()
        return (words, int(token.tag[1])) if _is_short(words) and "\n" not in words else None
    if alone and (glued := _GLUED.match(raw)):
        return glued[2], len(glued[1])
    return (raw, _level_of(raw, depth)) if alone and _BOLD_LINE.match(raw) and _is_short(raw) else None


def _is_short(words: str) -> bool:
    return len(words.split()) <= _HEADING_WORDS and not words.rstrip("*: ").endswith((".", ";", ","))


def _item(text: str, spans: list[tuple[int, int]], first: int, end: int) -> Block:
    start = spans[first][0]
    marked = _ITEM.match(text[start : spans[first][1]])
    indent, inner = (len(marked.group(1).expandtabs(4)), text[start + marked.start(2) : end]) if marked else (0, text[start:end].strip())
    return Block("item", inner, indent, start, end)


def _bullets(text: str, spans: list[tuple[int, int]]) -> Iterator[Block]:
    """A paragraph, in which lines that begin with the sign • are items: exports of word processors leave it, Markdown does not know it."""
    begin = 0
    for line in [*(number for number, span in enumerate(spans) if text[slice(*span)].lstrip().startswith("•")), len(spans)]:
        if line > begin:
            start, end = spans[begin][0], spans[line - 1][1]
            bullet = text[slice(*spans[begin])].lstrip().startswith("•")
            if bullet:
                yield _item(text, spans, begin, end)
            elif raw := text[start:end].strip():
                underline = raw.rpartition("\n")
                yield Block("paragraph", underline[0] if _RULE.fullmatch(underline[2]) and underline[0] else raw, 0, start, end)
        begin = line


def _level_of(bold: str, depth: int) -> int:
    """Level of a bold line: by its number (2. is a chapter, 2.1 a part of it), else one below the last real heading."""
    number = re.match(r"\*\*((?:\d+\\?\.)+\d*)", bold)
    return 1 + len([part for part in number.group(1).replace("\\", "").split(".") if part]) if number else min(6, depth + 1)


def bare_title(text: str) -> str:
    """A heading's words: no marks, no number; empty when nothing is left."""
    title = inline(text).strip().strip("*_#:¶§ ").replace("`", "").strip()
    title = _NUMBERED.sub("", title, count=1) if _NUMBERED.match(title) else title
    return title.lstrip("-–— ") if re.search(r"[^\W_]", title) else ""


def inline(text: str) -> str:
    """Inline Markdown without links, escapes and emphasis marks around whole phrases; bold and code are left to the reader."""
    text = _TAGS.sub(r"\1", _LINK.sub(r"\1", _QUOTED.sub("", text)))
    text = re.sub(r"(\*\*|__)(?=\S)(.+?)(?<=\S)\1", r"\2", text, flags=re.DOTALL)
    text = re.sub(r"(?<![\w*])\*(?=\S)([^*\n]+?)(?<=\S)\*(?![\w*])", r"\1", text)
    return _ESCAPED.sub(r"\1", text)


def without_marks(text: str) -> str:
    """A text without HTML comments, and with the words of links to references that are elsewhere in the document."""
    return _REFERENCE.sub(r"\1", _COMMENT.sub("", text)).strip()


def table_rows(text: str) -> tuple[list[str], list[list[str]]]:
    """(header cells, rows of cells) of a pipe table; no header when the second line is no rule."""
    lines = [[cell.strip() for cell in re.split(r"(?<!\\)\|", line.strip().strip("|"))] for line in text.splitlines()]
    if len(lines) < 3 or not all(re.fullmatch(r":?-{2,}:?", cell) for cell in lines[1]):
        return [], []
    width = len(lines[0])
    return lines[0], [row for row in lines[2:] if len(row) == width]
