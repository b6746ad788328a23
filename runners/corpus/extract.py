"""Pairs from documents, by their structure: a heading and its text, a term and its definition, the rows of a table.

Every pair carries where it came from: ``origin`` has the file, the path of headings and the span of characters. An answer is made of whole sentences, list
items and rows as they stand in the document; nothing is cut in the middle and nothing is written that is not there (but the words of the question).

A pair that would not be read with profit is refused by ``runners/corpus/gate.py``, with the reason.

Left out: understanding. What only a reader could tell from running text is for ``--endpoint`` (``runners/corpus/asking.py``), whose answers are held
against the text they quote.
"""

from __future__ import annotations

import functools
import re
from collections import Counter
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import yaml

from runners.corpus import chrome, citations, documents, gate, markdown, phrasing, topic
from runners.corpus.formats import Raw
from runners.corpus.markdown import Block, Section
from runners.corpus.pairs import DOMAINS
from runners.corpus.sources import Source

#: Words of the shortest definition and of the shortest section that answer something.
_DEFINITION_WORDS, _SECTION_WORDS = 6, 18
#: Whole blocks are added to a section's answer up to this many characters.
_SECTION_CHARACTERS = 3_000
_TERM_WORDS = 12
#: Sections with the same title from which it is no title.
_HEADS = 3
_TERM = re.compile(
    r"(?:\*\*|__)(?P<term>[^*\n]{2,120}?)(?P<inside>[:.]?)(?:\*\*|__)(?P<after>\s*(?:\([^)\n]{1,60}\))?\s*(?:[:–—]|-\s|\.\s)?)\s*(?P<text>.*)", re.DOTALL
)
#: A section's last paragraph that names its ground: it becomes the reference of the section's pairs and is no part of an answer.
_GROUND = re.compile(r"\**Sources?:\**\s+(?P<reference>\S.*)", re.DOTALL)
#: What a list of questions writes before an answer.
_ANSWER = re.compile(r"\A\**Answer:\**\s*(?=\S)", re.IGNORECASE)
#: A term's text that is the rest of a sentence about it, as lists of parameters have them: "must be a number".
_REST = re.compile(
    r"(?:must|should|shall|can|may|will|has|have|does|do|defaults?|optional|required|one of|based on|if (?:true|false|set|you|this|the))\b", re.IGNORECASE
)
#: A term's text that says when to take it, and not what it is.
_USE = re.compile(r"used? (?:this |it |them )?(?:when|if|where|for|in|unless)\b", re.IGNORECASE)
#: A paragraph that is only the label of the next one.
_LABEL = re.compile(r"(?:\W*(?:note|warning|tip|hint|caution|important|attention|danger|see also)\W*)", re.IGNORECASE)
#: A last sentence that says only where to read on.
_POINTER = re.compile(
    r"(?:(?:\A|(?<=[.!?)])\s|\n\s*)(?:[-*>]\s+)?(?:\**(?:note|tip|see also):?\**:?\s+)?(?:please )?"
    r"(?:see|refer to|check out|read more|read the [^.!?]* (?:to learn|for) more"
    r"|(?:for|to (?:read|learn|find out|see)) (?:more|further|additional|full|complete)\b"
    r"|you can (?:read|find|learn) more|more (?:information|details)|further (?:information|details))"
    r"(?:[^.!?\n]|[.!?](?=[\w/]))*[.!?:]?\s*)\Z",
    re.IGNORECASE,
)
#: The end of a line that another line of the same paragraph or list item goes on from; a quoted list keeps its lines.
_LISTED = re.compile(r"\s*\n\s*(?![-*+] )")
#: An aside that points to another place of the document.
_ASIDE = re.compile(
    r"\s*\((?:see|cf\.|as )?\s*(?:also )?(?:discussed|described|shown|mentioned|explained|below|above|section|chapter|figure|table|appendix)\b[^()\n]{0,60}\)",
    re.IGNORECASE,
)
_PLAIN_TERM = re.compile(r"(?P<term>[A-Z][^:.\n*]{1,80}?)(?::\s+|\s+[–—]\s+)(?P<text>[A-Z0-9\"“].*)", re.DOTALL)


@dataclass(frozen=True)
class Found:
    """A pair as extracted. ``term`` is what it explains; [start, end) the characters of the document it came from; ``reference`` its section's own ground.

    ``refused`` is why it is not kept, or an empty text.
    """

    question: str
    answer: str
    term: str
    kind: str
    path: tuple[str, ...]
    start: int
    end: int
    reference: str = ""
    refused: str = ""


@dataclass(frozen=True)
class Read:
    """A document as text. It begins, behind its front matter, at ``begin``; ``carried`` goes into each of its rows; ``damage`` is why none is kept."""

    name: str
    text: str
    begin: int
    subject: str
    title: str
    category: str
    carried: Mapping[str, Any]
    converted: bool
    damage: str

    def line(self, start: int) -> int:
        """The line of a character."""
        return self.text.count("\n", 0, start) + 1

    def raw(self, question: str, answer: str, origin: Mapping[str, Any], refused: str, **ground: str) -> Raw:
        """A pair as a row; ``origin`` has its heading and its span, and what else is known of where it came from."""
        whole = {"file": self.name, **origin} | ({"converted": True} if self.converted else {})
        row = {"question": question, "answer": answer, "origin": whole, **self.carried, **ground, "category": self.category}
        return Raw(self.name, self.line(origin["span"][0]), row, refused or self.damage or None)


def read(path: Path, name: str, source: Source) -> Read | Raw:
    """A document, or the reject of one that cannot be read."""
    try:
        text, converted = documents.read(path)
    except documents.Unreadable as error:
        return Raw(name, 0, error=f"the document cannot be read: {error}")
    try:
        facts, begin = _front_matter(text)
    except ValueError as error:
        return Raw(name, 1, error=str(error))
    return Read(
        name,
        text,
        begin,
        subject=str(facts.get("subject", "")),
        title=str(facts.get("title") or next((section.title for section in markdown.sections(text, begin) if section.path), "") or path.stem),
        category=facts.get("category") or source.category or _named(path),
        carried={key: value for key, value in facts.items() if key not in ("category", "subject", "title")},
        converted=converted,
        damage="the text of the PDF lost letters, or is full of formulas" if path.suffix.lower() == ".pdf" and topic.is_damaged(text) else "",
    )


def rows(path: Path, name: str, source: Source) -> Iterator[Raw]:
    """Every pair of a document as a row; a document that cannot be read is one reject. The line is that of the span's beginning."""
    document = read(path, name, source)
    if isinstance(document, Raw):
        yield document
        return
    count = 0
    for found in judged(document.text, document.begin, document.subject):
        count += 1
        ground = {"reference": found.reference} if found.reference else {}
        yield document.raw(found.question, found.answer, {"heading": list(found.path), "span": [found.start, found.end]}, found.refused, **ground)
    if not count:
        yield Raw(name, 0, error="the document has no headings, terms or tables from which pairs could be made")


def pairs(text: str, begin: int = 0, subject: str = "") -> list[Found]:
    """Every pair in a Markdown text that is worth keeping, in the order of their places; no two ask the same."""
    return [found for found in judged(text, begin, subject) if not found.refused]


def judged(text: str, begin: int = 0, subject: str = "") -> list[Found]:
    """Every pair in a Markdown text, those that are refused with their reason; no two of those kept ask the same."""
    largest = citations.largest_citation(text)
    sections = list(chrome.without(markdown.sections(text, begin)))
    heads = Counter(section.title for section in sections)
    name = "" if subject else topic.name_of(sections)
    found = [_cleaned(one, largest) for section in sections for one in _of_section(section, subject, name)]
    # A heading that comes again and again is the head of the pages.
    found = [
        replace(one, refused=one.refused or "the head of a page") if one.path and heads[one.path[-1]] > _HEADS and one.kind == "section" else one
        for one in found
    ]
    if name or topic.is_of_a_program(sections):
        found = [replace(one, refused=one.refused or _unnamed(one, subject or name)) for one in found]
    return _distinct(found)


def _unnamed(found: Found, name: str) -> str:
    """Why a pair of a text about a program, or about anything else that has a name, is not kept: its question does not say of what it asks.

    Of 411 pairs read in seven kinds of such texts, nearly all whose heading was a question were good or usable, four fifths of those about a doing ("writing
    a program"), three quarters of the others if they named the program, two fifths if they named a heading above or nothing, and one eighth of the terms.
    """
    if found.kind != "section":
        return "a line of a program's reference"
    own = bool(found.path) and found.question.lower().startswith(found.path[-1].lower().rstrip("?"))
    named = bool(name) and name.lower() in found.question.lower()
    return "" if own or named or found.question.startswith(phrasing.DOING) else "a question about a program that does not name it"


def _of_section(section: Section, subject: str, name: str) -> Iterator[Found]:
    if any(phrasing.SKIPPED.fullmatch(title.rstrip(":")) for title in section.path):
        return
    last = section.blocks[-1] if section.blocks else None
    if last and last.kind == "paragraph" and (ground := _GROUND.fullmatch(last.text)):
        reference = phrasing.one_line(ground["reference"]).rstrip(".")
        yield from (replace(found, reference=reference) for found in _of_section(replace(section, blocks=section.blocks[:-1]), subject, name))
        return
    alone = len(section.blocks) == 1 and section.blocks[0].kind == "item" and _definition(section, 0, subject, name)
    if section.path and not alone and (found := _whole(section, subject, name)):
        yield found
    for place, block in enumerate(section.blocks):
        if block.kind == "table":
            yield from _of_table(block, section)
        elif block.kind in ("item", "paragraph") and (found := _definition(section, place, subject, name)):
            yield found


def _whole(section: Section, subject: str, name: str) -> Found | None:
    """The heading with the blocks below it, as many whole ones as fit."""
    blocks, size = list[Block](), 0
    for block in section.blocks:
        if block.kind in ("paragraph", "item") and (not re.search(r"[^\W\d_]{2}", plain := markdown.inline(block.text)) or _LABEL.fullmatch(plain.strip())):
            continue
        if blocks and size + len(block.text) > _SECTION_CHARACTERS:
            break
        blocks.append(block)
        size += len(block.text)
    while blocks and blocks[-1].text.rstrip("* ").endswith(":"):
        blocks.pop()
    answer = _written(blocks)
    if len(answer.split()) < _SECTION_WORDS:
        return None
    found = Found("", answer, phrasing.subject_of(section.title), "section", section.path, section.start, blocks[-1].end)
    return _asking(found, lambda: phrasing.asked(section.path, subject, answer, name))


def _asking(found: Found, question: Callable[[], str]) -> Found:
    """A pair with its question, or refused when none can be made."""
    try:
        return replace(found, question=question())
    except phrasing.Unclear as reason:
        return replace(found, question=" > ".join((*found.path, found.term)), refused=str(reason))


def _written(blocks: list[Block]) -> str:
    """Blocks as an answer: paragraphs apart, list items below each other, tables as they are."""
    out: list[str] = []
    base = min((block.level for block in blocks if block.kind == "item"), default=0)
    for place, block in enumerate(blocks):
        item = block.kind == "item"
        text = block.text if block.kind in ("table", "code") else _LISTED.sub(" ", markdown.inline(block.text)).strip()
        text = f"{' ' * (block.level - base)}- {text}" if item else text
        close = item and place and blocks[place - 1].kind == "item"
        out.append(("\n" if close else "\n\n" if out else "") + text)
    return "".join(out)


def _definition(section: Section, place: int, subject: str, name: str) -> Found | None:
    """A term in bold (or before a colon, in a list) with what follows it, and the list that belongs to it."""
    block = section.blocks[place]
    match = _TERM.match(block.text.strip()) or (_PLAIN_TERM.match(block.text.strip()) if block.kind == "item" else None)
    if match is None:
        return None
    marked = match.groupdict()
    if "inside" in marked and not marked["inside"] and not marked["after"].strip(" )(") and block.kind == "paragraph" and not _reads_on(marked["text"]):
        return None
    term, text = phrasing.subject_of(match["term"]), match["text"].strip()
    below = _below(section.blocks, place)
    if not term or len(term.split()) > _TERM_WORDS or not re.search(r"[^\W\d_]", term):
        return None
    if "inside" in marked and not marked["inside"] and not re.search(r"[:–—-]|\.", marked["after"]):
        # "**Global macro** funds take …": the term is the sentence's subject.
        body = f"{markdown.inline(match['term'])}{marked['after']} {text}".replace("  ", " ")
    else:
        body = text
    answer = _written([replace(block, text=body, kind="paragraph"), *below]) if body else _written(below)
    if len(answer.split()) < _DEFINITION_WORDS or (not below and body.rstrip().endswith(":")):
        return None
    end = below[-1].end if below else block.end
    found = Found("", _upper(answer), term, "definition", section.path, block.start, end)
    if _REST.match(answer.lstrip("-* ")):
        return replace(found, question=" > ".join((*section.path, term)), refused="the text is the rest of a sentence about its term")
    return _asking(found, lambda: phrasing.about(term, section.path, subject, name, use=bool(_USE.match(answer))))


def _upper(answer: str) -> str:
    """An answer with a capital at its beginning: the question names what it defines, so it is not named again."""
    return answer[:1].upper() + answer[1:]


def _reads_on(text: str) -> bool:
    """Whether a sentence goes on after its bold beginning: a verb in lower case follows."""
    return bool(re.match(r"[a-z(]", text))


def _below(blocks: list[Block], place: int) -> list[Block]:
    """The items indented below a term, or the list that follows a term which ends its line with a colon."""
    block, out = blocks[place], []
    for other in blocks[place + 1 :]:
        if other.kind != "item" or (block.kind == "item" and other.level <= block.level):
            break
        if block.kind == "paragraph" and not block.text.rstrip().endswith(":"):
            break
        out.append(other)
    return out


def _of_table(block: Block, section: Section) -> Iterator[Found]:
    """One pair a row: its first cell is the term, the others answer under the names of their columns."""
    header, body = markdown.table_rows(block.text)
    if len(header) < 2 or not all(header[1:]):
        return
    position = block.start
    for row in body:
        term = phrasing.subject_of(row[0])
        start = block.text.find(row[0], position - block.start) + block.start if row[0] else -1
        values = [(phrasing.one_line(name).strip("* "), phrasing.one_line(cell)) for name, cell in zip(header[1:], row[1:], strict=True) if cell]
        if not term or start < position or not values:
            continue
        line_end = block.text.find("\n", start - block.start)
        end = block.end if line_end < 0 else block.start + line_end
        start = max(block.text.rfind("\n", 0, start - block.start) + 1, 0) + block.start
        position = end
        answer = "\n".join(f"- {name}: {cell}" for name, cell in values) if len(values) > 1 else _upper(values[0][1])
        found = Found("", answer, term, "row", section.path, start, end)
        yield _asking(found, functools.partial(phrasing.of_row, term, [name for name, _ in values], section.path))


def _cleaned(found: Found, largest: int) -> Found:
    """Without what exports and citations leave, and refused when the gate says so."""
    bare = _ASIDE.sub("", _ANSWER.sub("", chrome.unescaped(markdown.without_marks(found.answer))))
    answer = re.sub(r"[ \t]+$", "", citations.without(bare, largest), flags=re.MULTILINE).strip()
    while (shorter := _POINTER.sub("", answer).rstrip()) != answer:
        answer = shorter
    question = re.sub(r"\s+", " ", citations.without(chrome.unescaped(found.question), largest)).strip()
    term = citations.without(chrome.unescaped(found.term), largest).strip()
    return replace(found, question=question, answer=answer, term=term, refused=found.refused or gate.reason(question, answer))


def _distinct(found: list[Found]) -> list[Found]:
    """A question asked in two places names its section in both; what then still repeats is refused."""
    times = Counter(one.question.lower() for one in found if not one.refused)
    out, seen = [], set[str]()
    for one in found:
        question, refused = one.question, one.refused
        if (
            times[question.lower()] > 1
            and one.kind != "section"
            and one.path
            and phrasing.named_by(one.path[-1])
            and phrasing.subject_of(one.path[-1]).lower() not in question.lower()
        ):
            question = f"{question.rstrip('?')} in {phrasing.subject_of(one.path[-1])}?"
        if not refused:
            refused = "the document asks the same in another place" if question.lower() in seen else ""
            seen.add(question.lower())
        out.append(replace(one, question=question, refused=refused))
    return out


def _front_matter(text: str) -> tuple[Mapping[str, Any], int]:
    """(facts, where the document begins). Raises ValueError when the block is no mapping."""
    written, length = markdown.front_matter(text)
    if not length:
        return {}, 0
    try:
        facts = yaml.safe_load(written)
    except yaml.YAMLError as error:
        raise ValueError(f"the front matter is not YAML: {str(error)[:150]}") from None
    if not isinstance(facts, dict):
        # Two rules at the top of a text that has no front matter.
        return {}, 0
    return facts, length


def _named(path: Path) -> str:
    """The domain a file or its folder is named after, or an empty text."""
    return next((name for name in (path.stem.lower(), path.parent.name.lower()) if name in DOMAINS), "")
