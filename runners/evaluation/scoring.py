"""Score one answer against the checks of its case. Pure, deterministic, and each result says why and where.

What an answer concludes is scored, never what it mentions: ``figures`` reads numbers, ``choices`` letters, ``declines`` refusals. A fact counts when one
of its wordings is asserted in a sentence and not denied later; a forbidden claim fails the case wherever it is asserted. Every check must pass.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass
from functools import lru_cache
from typing import Any

from runners.evaluation.cases import Case, ChoiceCheck, DeclineCheck, FactCheck, ForbiddenCheck, NumberCheck
from runners.evaluation.choices import chosen, named_beside
from runners.evaluation.conclusion import concludes, corrects, final_lines, taken_back
from runners.evaluation.declines import declined
from runners.evaluation.figures import Figures
from runners.evaluation.wording import Mention, Text

#: So many different wordings of one fact are a list to be lucky with; a right answer says it in one or two.
_SHOTGUN = 5
_YES, _NO = re.compile(r"\W*yes\b", re.IGNORECASE), re.compile(r"\W*no\b", re.IGNORECASE)
#: Both sides of a fact in one sentence.
_OFFERS = re.compile(r"\b(?:perhaps|maybe|possibly|might|either|depend\w*|opinions?)\b.*\b(?:or|others?|differ|vary)\b|\bsome\b.*\b(?:some|others?)\b|\bor (?:perhaps|maybe)\b", re.IGNORECASE)
_WARNS = re.compile(r"\b(?:would|false|illegal|crime|fraud\w*|forge\w*|unlawful)\b", re.IGNORECASE)
_SMALL_WORDS = frozenset(
    "a an the of to in on at by for from with as is are was were be been has have had do does did can could will would may must should not no it its that this"
    " he she they you we i his her their your my and or but so if because which who than there then nothing only also".split()
)


@dataclass(frozen=True)
class CheckResult:
    """How one check came out: the reason in words, and the places in the answer it rests on."""

    name: str
    kind: str
    passed: bool
    reason: str
    spans: tuple[tuple[int, int], ...] = ()

    def to_json(self) -> dict[str, Any]:
        """Plain data."""
        return {"name": self.name, "kind": self.kind, "passed": self.passed, "reason": self.reason, "spans": [list(span) for span in self.spans]}


@dataclass(frozen=True)
class Score:
    """All checks of a case."""

    checks: tuple[CheckResult, ...]

    @property
    def passed(self) -> bool:
        """Every check passed."""
        return all(check.passed for check in self.checks)


def score(case: Case, answer: str) -> Score:
    """Hold an answer against its case."""
    text = _read(answer)
    figures = iter(Figures(case, text).findings().values())
    results = []
    for check in case.checks:
        if isinstance(check, NumberCheck):
            found = next(figures)
            results.append(_result(check.name, "number", found.passed, found.reason, text, found.place))
        elif isinstance(check, FactCheck):
            results.append(_fact(check, text))
        elif isinstance(check, ForbiddenCheck):
            results.append(_forbidden(check, case, text))
        elif isinstance(check, ChoiceCheck):
            results.append(_choice(check, case.choices or {}, answer))
        else:
            passed, reason, place = declined(check, case, text)
            results.append(_result(check.name, "decline", passed, reason, text, place))
    return Score(tuple(results))


@lru_cache(maxsize=64)
def _read(answer: str) -> Text:
    """An answer taken apart; kept, because baselines give one answer to many cases."""
    return Text(answer)


def _result(name: str, kind: str, passed: bool, reason: str, text: Text, place: tuple[int, int] | None) -> CheckResult:
    return CheckResult(name, kind, passed, reason, (text.place(*place),) if place else ())


def _fact(check: FactCheck, text: Text) -> CheckResult:
    mentions = sorted((mention for wording in check.accepted for mention in text.mentions(wording)), key=lambda mention: mention.start)
    if not mentions:
        return CheckResult(check.name, "fact", False, "not said in any accepted wording")
    stated = [mention for mention in mentions if not mention.denied and not _listed(text, mention)]
    last = mentions[-1]
    if not stated:
        return _result(check.name, "fact", False, f"{text.quote(last.start, last.end)} {last.denied or 'stands in a list of words'}", text, (last.start, last.end))
    place = (stated[-1].start, stated[-1].end)
    reason = ""
    if len(_different(stated, text)) >= max(_SHOTGUN, 0.6 * len(check.accepted)):
        reason = "many wordings of it are listed"
    elif last.denied and last.start > stated[-1].end and (concludes(text.sentence(last.start)) or corrects(text.sentence(last.start))):
        reason = f"{text.quote(last.start, last.end)} {last.denied}"
    elif taken_back(text, stated[-1].end):
        reason = "is taken back"
    elif all(_OFFERS.search(text.sentence(mention.start)) for mention in stated):
        reason = "is only offered"
    else:
        reason = _superseded(text, stated[-1].end) or _contradicted(check, text, stated[-1].end)
    return _result(check.name, "fact", not reason, reason, text, place)


def _listed(text: Text, mention: Mention) -> bool:
    """Whether a mention stands in a bare list of terms: many short pieces, hardly a small word between them."""
    sentence = text.sentence(mention.start)
    pieces, words = re.split(r"[,;/|]", sentence), re.findall(r"[a-z']+", sentence.lower())
    small = sum(word in _SMALL_WORDS for word in words)
    return (len(pieces) >= 3 and not small) or (len(pieces) >= 4 and small < 0.2 * len(words))


def _different(stated: Sequence[Mention], text: Text) -> set[str]:
    """The different wordings that stand in places of their own."""
    spans: list[tuple[int, int]] = []
    for mention in stated:
        if not spans or mention.start >= spans[-1][1]:
            spans.append((mention.start, mention.end))
    return {text.plain[start:end].lower() for start, end in spans}


def _superseded(text: Text, end: int) -> str:
    """Why what was said is not what the answer arrives at: yes against no, or a correction that draws a conclusion of its own."""
    lines = final_lines(text)
    said = text.plain[lines[-1].start : lines[-1].end] if lines else ""
    if lines and (_YES.match(said) and _NO.match(text.plain) or _NO.match(said) and _YES.match(text.plain)):
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


def _forbidden(check: ForbiddenCheck, case: Case, text: Text) -> CheckResult:
    denied = ""
    for wording in check.wordings:
        for mention in text.mentions(wording):
            if case.kind == "decline" and not mention.denied and _WARNS.search(text.sentence(mention.start)):
                denied = denied or "mentioned as a warning"
            elif not mention.denied:
                return _result(check.name, "forbidden", False, f"claims {text.quote(mention.start, mention.end)}", text, (mention.start, mention.end))
            denied = denied or f"mentioned, but {mention.denied}"
    return CheckResult(check.name, "forbidden", True, denied)


def _choice(check: ChoiceCheck, choices: dict[str, str], answer: str) -> CheckResult:
    letters = chosen(answer, choices)
    if len(letters) == 1 and (other := named_beside(answer, next(iter(letters)), choices)):
        return CheckResult(check.name, "choice", False, f"writes {next(iter(letters))} and the words of {other}")
    if letters == {check.choice}:
        return CheckResult(check.name, "choice", True, f"chooses {check.choice}")
    return CheckResult(check.name, "choice", False, f"chooses {' and '.join(sorted(letters))}" if letters else "settles on no letter")
