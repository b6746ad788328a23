"""Where an answer says what it concludes: final lines (``Answer: …``), and the words that mark a conclusion, a correction or a guess.

The prompt of every case asks for a last line ``Answer: …``, so an answer that has one is held to it. Without one, the statements of the text decide;
``figures`` and ``choices`` say how.
"""

from __future__ import annotations

import re
from dataclasses import dataclass

from runners.evaluation.wording import Text

_FINAL_LINE = re.compile(
    r"(?:^|\n|(?<=[.!?:;]\s))[ \t]*(?:[#>|*-]+[ \t]*)?(?:(?:my|the|so|thus|therefore|hence|in short)[, ]+)*(?:(?:final|correct|right|short|best)[ \t]+)?"
    r"(?:answer|solution|result)[ \t]*(?P<colon>[:=]|\bis\b[ \t]*:?|\bwould be\b|(?=\n))[ \t]*(?P<said>[^\n]*)",
    re.IGNORECASE,
)
#: A sentence that says what follows from the rest.
_CONCLUDES = re.compile(
    r"\b(?:so|therefore|thus|hence|consequently|accordingly|in (?:the end|conclusion|sum|short|summary)|finally|ultimately"
    r"|as a result|this means|that means|which (?:means|leaves|gives|makes|brings)|that leaves|(?:it|that|this) leaves|the (?:correct|right|actual"
    r"|true|real)|in fact|is what)\b",
    re.IGNORECASE,
)
#: What comes after one of these takes back or replaces what was said before.
_CORRECTS = re.compile(
    r"\b(?:but|however|though|although|yet|still|nevertheless|nonetheless|actually|instead|correction|(?<![a-z] )wait|on second thought|rather"
    r"|in reality|except that"
    r"|must be|has to be|one must|should be)\b",
    re.IGNORECASE,
)
_TAKES_BACK = re.compile(
    r"\b(?:(?:that|this|it|which|the (?:above|former|first|previous)(?: \w+)?|all of (?:that|this|it)|none of (?:that|this|it|these)|everything above)\s+"
    r"(?:is|was|would be|are)\s+(?:\w+\s+)?(?:wrong|false|incorrect|untrue|a mistake|mistaken|nonsense|not (?:so|true|right|correct|the case|what))"
    r"|(?:that|this) does not (?:apply|hold)|none of (?:that|this|it|these) (?:applies|holds|is (?:so|true))|the opposite (?:is|holds|applies)"
    r"|quite the opposite"
    r"|(?:it(?:'s| is)|that(?:'s| is)|take|go with) one of (?:these|them|those|the (?:two|three))|scratch that|(?:disregard|ignore|forget) (?:that"
    r"|this|the above|all)|i (?:take|took) (?:that|it|this) back|i was wrong|i was joking|just kidding)\b",
    re.IGNORECASE,
)
_GUESSES = re.compile(
    r"\b(?:depend(?:s|ing)|possibl[ey]|perhaps|maybe|might|may|could|either|neither|somewhere|between|in the (?:range|neighbou?rhood)|not sure"
    r"|can(?:no|')t (?:tell|say)|guess"
    r"|plausible|candidates?|one of (?:these|them|the two|the)|arguabl[ey]|argued|pick either|both are|unclear|varies|opinions?"
    r"|some\b.{0,60}\b(?:some|others?)|likely|think)\b",
    re.IGNORECASE,
)


@dataclass(frozen=True)
class FinalLine:
    """One explicit final answer: where it stands in the plain text, and whether it is a line of the asked form or a clause such as "the answer is …"."""

    start: int
    end: int
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
            found.append(FinalLine(start, end, label))
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
