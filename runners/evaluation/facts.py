"""Whether an answer states a fact, in one of its wordings, and still does so at its end.

A mention counts when it is asserted in a sentence: not denied, not one of a bare list of terms, not one of two sides that are offered. It must not be taken
back, be replaced by a correction with a conclusion of its own, or be contradicted by the last mention of it.

Where the question offers alternatives ("which is cheaper, the Aster or the Birch"), naming the right one says the fact too: alone at the beginning or in
the final line, or in one clause with a word of an accepted wording.
"""

from __future__ import annotations

import re
from collections.abc import Sequence

from runners.evaluation.cases import Case, FactCheck, ForbiddenCheck
from runners.evaluation.conclusion import concludes, corrects, final_lines, guesses, taken_back
from runners.evaluation.lists import words
from runners.evaluation.wording import NEGATIONS, Mention, Text, stems

#: So many different wordings of one fact are a list to be lucky with; a right answer says it in one or two.
_SHOTGUN = 5
_YES, _NO = re.compile(r"\W*yes\b", re.IGNORECASE), re.compile(r"\W*no\b", re.IGNORECASE)
#: Both sides of a fact in one sentence.
_OFFERS = re.compile(
    r"\b(?:perhaps|maybe|possibly|might|depend\w*|opinions?)\b.*\b(?:or|others?|differ|vary)\b|\bsome\b.*\b(?:some|others?)\b|\bor (?:perhaps|maybe)\b",
    re.IGNORECASE,
)
_SMALL_WORDS = words("small")


def fact(check: FactCheck, case: Case, text: Text) -> tuple[bool, str, tuple[int, int] | None]:
    """(states it, why not, where in the plain text)."""
    mentions = sorted((mention for wording in check.accepted for mention in text.mentions(wording)), key=lambda mention: mention.start)
    stated = [mention for mention in mentions if not mention.denied and not listed(text, mention)] or _named(check, case, text)
    if not stated:
        if not mentions:
            return False, "not said in any accepted wording", None
        last = mentions[-1]
        return False, f"{text.quote(last.start, last.end)} {last.denied or 'stands in a list of words'}", (last.start, last.end)
    last, place = (mentions or stated)[-1], (stated[-1].start, stated[-1].end)
    if len({text.plain[mention.start : mention.end].lower() for mention in _apart(stated)}) >= max(_SHOTGUN, 0.6 * len(check.accepted)):
        return False, "many wordings of it are listed", place
    if last.denied and last.start > stated[-1].end and (concludes(text.sentence(last.start)) or corrects(text.sentence(last.start))):
        return False, f"{text.quote(last.start, last.end)} {last.denied}", place
    if taken_back(text, stated[-1].end):
        return False, "is taken back", place
    if all(_OFFERS.search(text.sentence(mention.start)) for mention in stated):
        return False, "is only offered", place
    reason = _superseded(text, stated[-1].end) or _contradicted(check, text, stated[-1].end)
    return not reason, reason, place


def listed(text: Text, mention: Mention) -> bool:
    """Whether a mention stands in a bare list of terms: many short pieces, hardly a small word between them."""
    sentence = text.sentence(mention.start)
    pieces, words = re.split(r"[,;/|](?=\s)", sentence), re.findall(r"[a-z']+", sentence.lower())
    small = sum(word in _SMALL_WORDS for word in words)
    terse = len(pieces) >= 5 and len(words) <= 2.5 * len(pieces)
    return terse or (len(pieces) >= 3 and not small) or (len(pieces) >= 4 and small < 0.2 * len(words))


def _apart(stated: Sequence[Mention]) -> list[Mention]:
    """Those that stand in places of their own."""
    kept: list[Mention] = []
    for mention in stated:
        if not kept or mention.start >= kept[-1].end:
            kept.append(mention)
    return kept


def _named(check: FactCheck, case: Case, text: Text) -> list[Mention]:
    """Places that name the right one of the question's alternatives as the answer."""
    forbidden = {key for other in case.checks if isinstance(other, ForbiddenCheck) for wording in other.wordings for key in meaning(wording)}
    accepted = [meaning(wording) for wording in check.accepted]
    asked = meaning(case.told)
    said = set().union(*accepted)
    # A name of the right one is in most accepted wordings, in the question, and in no forbidden one; the other side has a name of its own.
    names = {key for key in (said - forbidden) & asked if sum(key in one for one in accepted) >= 0.3 * len(accepted)}
    others = (forbidden - said) & asked
    if re.match(r"nothing\s*[.,;!\n]", text.plain, re.IGNORECASE) and any("nothing" in wording for wording in check.accepted):
        return [Mention(0, len("nothing"))]
    if not names or not others:
        return []
    found = []
    for start, end in _clauses(text):
        keys = meaning(text.plain[start:end])
        named = keys & names and not keys & others and NEGATIONS.isdisjoint(re.findall(r"[a-z]+", text.plain[start:end].lower()))
        alone = len(re.findall(r"[A-Za-z]+", text.plain[start:end])) <= 3 and (start == 0 or any(line.start <= start < line.end for line in final_lines(text)))
        if named and (alone or keys & (said - names - asked)) and not guesses(text.sentence(start)) and not listed(text, Mention(start, end)):
            found.append(Mention(start, end))
    if found and any(meaning(line.said) & others and not meaning(line.said) & names for line in final_lines(text)):
        return []
    return found


def _clauses(text: Text) -> list[tuple[int, int]]:
    """The clauses of the text: between commas, full stops, colons, brackets and "but"."""
    stops = [match.span() for match in re.finditer(r"[.,;:!?()\n]+(?=\s|$|\()|\b(?:but|while|whereas|although|though)\b", text.plain)]
    starts, ends = [0, *(end for _, end in stops)], [*(start for start, _ in stops), len(text.plain)]
    trimmed = [(start + len(text.plain[start:end]) - len(text.plain[start:end].lstrip()), end) for start, end in zip(starts, ends, strict=True)]
    return [(start, end) for start, end in trimmed if start < end]


def _superseded(text: Text, end: int) -> str:
    """Why what was said is not what the answer arrives at: yes against no, or a correction that draws a conclusion of its own."""
    lines = final_lines(text)
    said = lines[-1].said if lines else ""
    if lines and ((_YES.match(said) and _NO.match(text.plain)) or (_NO.match(said) and _YES.match(text.plain))):
        return "says yes and no"
    tail = text.plain[text.bounds(max(0, end - 1))[1] : lines[-1].start if lines and lines[-1].is_line else len(text.plain)]
    for sentence in re.split(r"(?<=[.!?])\s+|\n+", tail):
        turn = re.search(r"\b(?:but|however|though|yet|still|nevertheless)\b", sentence, re.IGNORECASE)
        drawn = re.search(r"\b(?:and so|so|therefore|thus|hence|in the end|finally)\b(?! that)", sentence[turn.start() :] if turn else "", re.IGNORECASE)
        if turn and drawn:
            return f"turns: “{sentence.strip()[:60]}”"
    return ""


def _contradicted(check: FactCheck, text: Text, end: int) -> str:
    """A fact of the form "not X" after which the answer arrives at X."""
    for wording in check.accepted:
        positive = re.sub(r"\b(?:not|never|no longer|cannot|can't|mustn't)\b", lambda match: "can" if match[0].startswith("can") else "", wording)
        if positive != wording and len(positive.split()) <= 4:
            for mention in text.mentions(positive):
                said = text.sentence(mention.start)
                if mention.start >= end and not mention.denied and (concludes(said) or corrects(said)):
                    return f"then says {text.quote(mention.start, mention.end)}"
    return ""


def meaning(said: str) -> set[str]:
    """The stems of the words that carry meaning."""
    return stems(said, _SMALL_WORDS)
