"""Where an answer says what it concludes: final lines (``Answer: …``), and the words that mark a conclusion, a correction or a guess.

The prompt of every case asks for a last line ``Answer: …``, so an answer that has one is held to it. Without one, the statements of the text decide;
``figures`` and ``choices`` say how.
"""

from __future__ import annotations

import re
from dataclasses import dataclass

from runners.evaluation.lists import marks
from runners.evaluation.wording import Text

_FINAL_LINE = re.compile(
    r"(?:^|\n|(?<=[.!?:;]\s))[ \t]*(?:[#>|*-]+[ \t]*)?(?:(?:my|the|so|thus|therefore|hence|in short)[, ]+)*(?:(?:final|correct|right|short|best)[ \t]+)?"
    r"(?:answer|solution|result)[ \t]*(?P<colon>[:=]|\bis\b[ \t]*:?|\bwould be\b|(?=\n))[ \t]*(?P<said>[^\n]*)",
    re.IGNORECASE,
)
#: A sentence that says what follows from the rest; what takes back or replaces what was said before; what takes all of it back; what offers.
_CONCLUDES, _CORRECTS, _TAKES_BACK, _GUESSES = (marks(name) for name in ("concludes", "corrects", "takes_back", "guesses"))


@dataclass(frozen=True)
class FinalLine:
    """One explicit final answer: where it stands in the plain text, and whether it is a line of the asked form or a clause such as "the answer is …"."""

    start: int
    end: int
    said: str
    is_line: bool


def final_lines(text: Text) -> list[FinalLine]:
    """All explicit final answers, in order. A label with nothing behind it takes the next line."""
    found = []
    for match in _FINAL_LINE.finditer(text.plain):
        start, end = match.span("said")
        label = match["colon"].strip()[-1:] in (":", "=")
        if not match["said"].strip(" .*:"):
            following = re.compile(r"\s*([^\n]*)").match(text.plain, end)
            start, end = following.span(1) if following else (start, end)
        elif not label:
            end = min(text.bounds(start)[1], end)
        if text.plain[start:end].strip(" .*:"):
            found.append(FinalLine(start, end, text.plain[start:end], label))
    return found


def concludes(said: str) -> bool:
    """Whether a sentence marks itself as a conclusion."""
    return _CONCLUDES.search(said) is not None


def corrects(said: str) -> bool:
    """Whether a sentence sets itself against what was said before it."""
    return _CORRECTS.search(said) is not None


def guesses(said: str) -> bool:
    """Whether a sentence offers instead of stating."""
    return _GUESSES.search(said) is not None


def taken_back(text: Text, position: int) -> bool:
    """Whether something after this position takes back what stands before it."""
    return _TAKES_BACK.search(text.plain, position) is not None
