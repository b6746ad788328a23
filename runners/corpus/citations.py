"""Take citation marks out of a text: bracketed numbers, footnotes, superscripts, and the bare numbers that exports glue to the last word.

A bare number is the difficult one: ``the capital.12 Next`` is a citation, ``a rate of 3.12`` is not. It is taken for a mark only when it follows a
closing mark after a letter (or after a year), is before a space or the end, is no larger than the document's own count of sources, and the document
has several of them.
"""

from __future__ import annotations

import re

_BRACKETED = re.compile(
    r"\s?(?:\[(?:\d{1,3}(?:\s?[,–-]\s?\d{1,3})*)\](?!\()|\[\^[\w-]+\](?!:)|【[^】]*】|\[citation needed\]|\[cite[:_][^\]]*\])", re.IGNORECASE
)
_FOOTNOTE = re.compile(r"^\[\^[\w-]+\]:.*(?:\n[ \t]+.*)*\n?", re.MULTILINE)
_SUPERSCRIPT = re.compile(r"(?<=[^\W\d_.][.,;:!?)\"”’])[¹²³⁰⁴-⁹]+|(?<=[^\W\d_]{3})[¹²³⁰⁴-⁹]+(?=[\s.,;:]|$)|<sup>\[?\d{1,3}\]?</sup>")
_GLUED = re.compile(r"((?:[^\W\d_]|[)\]\"”’%$*`]|\b(?:19|20)\d\d)[.,;:!?]?[)\"”’*]{0,2}[.,;:!?]?[)\"”’*]{0,2}[.!?,;:\"”’)])(\d{1,3}(?:,\d{1,3})*)(?=\s|$|\))")
_SOURCES = re.compile(r"^(?:#{1,6}\s*)?\**(?:works cited|references|bibliography|sources|endnotes|notes)\**\s*$", re.IGNORECASE | re.MULTILINE)
#: "No.5", "Sec.12", "Fig.3": the number belongs to the word.
_ABBREVIATED = re.compile(
    r"\b(?:no|nos|sec|secs|fig|figs|vol|ch|art|pp?|rule|reg|pub|form|part|para|ver?|eq|st|jan|feb|mar|apr|jun|jul|aug|sept?|oct|nov|dec)\.$", re.IGNORECASE
)
#: Fewer bare numbers in a whole document are a coincidence.
_LEAST = 3
_LARGEST = 400


def largest_citation(document: str) -> int:
    """The largest bare citation number a document may have: how many sources it lists, or 0 when it has no such marks."""
    marks = [int(number) for match in _GLUED.finditer(document) for number in match.group(2).split(",")]
    if len(marks) < _LEAST:
        return 0
    heading = _SOURCES.search(document)
    listed = [int(number) for number in re.findall(r"^\s*\[?(\d{1,3})[\].)]", document[heading.end() :], re.MULTILINE)] if heading else []
    return max(listed, default=0) or min(max(marks), _LARGEST)


def without(text: str, largest: int) -> str:
    """A text without its citation marks; ``largest`` is the document's :func:`largest_citation`."""
    text = _FOOTNOTE.sub("", text)
    text = _SUPERSCRIPT.sub("", _BRACKETED.sub("", text))
    return _GLUED.sub(lambda match: _unglued(match, largest), text) if largest else text


def _unglued(match: re.Match[str], largest: int) -> str:
    numbers = [int(number) for number in match.group(2).split(",")]
    before = match.string[max(0, match.start() - 8) : match.end(1)]
    # After a full stop a new sentence begins: "ASN.1 values" is a name.
    goes_on = match.group(1)[-1] in ".!?" and re.match(r"\s+[a-z]", match.string[match.end() :])
    if max(numbers) > largest or min(numbers) < 1 or _ABBREVIATED.search(before) or goes_on:
        return match.group()
    return match.group(1)
