"""Score one answer against the checks of its case. Pure, deterministic, and each result says why and where.

A number counts when it is stated: not inside a question, not denied ("is not 10 %"), not one of several offered ("10 % or 20 %",
"between 5 and 15 %") unless the case asks for those too, and not where the answer says that it does not know. A fact counts when one of its
wordings is asserted; a forbidden claim fails the case only when it is asserted. Every check must pass.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from functools import lru_cache
from typing import Any

from runners.evaluation.cases import Case, ChoiceCheck, DeclineCheck, FactCheck, ForbiddenCheck, NumberCheck
from runners.evaluation.numbers import Quantity
from runners.evaluation.wording import Mention, Text

#: More quantities of one unit in a row than any table of rates has: a list to be lucky with.
_SHOTGUN = 9
_FILLERS = (
    r"(?:a|an|the|exactly|equal|to|be|been|about|around|approximately|roughly|really|actually|at|of|set|currently|always|necessarily|as|only|simply|usd|us"
    r"|(?!exceed)\w+ed|pay|owe|need|get|have|earn|cost|charge|require|contribute)"
)
_DENIAL_BEFORE = re.compile(rf"(?:\b(?:not|never|rather than|instead of|no longer)|n't)\s+(?:{_FILLERS}\s+){{0,4}}\$?\s*$", re.IGNORECASE)
_ONLY = re.compile(r"(?:not|n't)\s+(?:only|just|merely)\s", re.IGNORECASE)
_NOT_RIGHT = r"not (?:right|correct|true|accurate|the (?:right|correct|limit|answer|figure|amount|rate))"
_WRONG = rf"wrong|incorrect|false|mistaken|a myth|outdated|too (?:high|low)|no longer|{_NOT_RIGHT}"
_DENIAL_AFTER = re.compile(rf"^[^.;\n?!]{{0,25}}?\b(?:is|are|was|were|would be|as)\s+(?:\w+\s+)?(?:{_WRONG})", re.IGNORECASE)
_OFFERED = re.compile(r"\s*,?\s*\bor\b\s*(?:maybe|perhaps|possibly|even|about|around)?\s*\$?\s*", re.IGNORECASE)
_CONDITION = re.compile(r"\s*\(?,?\s*(?:\w+\s+){0,3}?\b(?:if|for|when|with|after|once|at age|under|depending|per|whichever|provided|of)\b|\s*\(", re.IGNORECASE)
_MAYBE = re.compile(r"\b(?:might|may|could|perhaps|possibly|maybe)\s+(?:\w+\s+){0,2}\$?\s*$", re.IGNORECASE)
_IN_A_ROW = re.compile(r"[\s,;/]*(?:\b(?:and|or)\b)?[\s,;/$]*", re.IGNORECASE)
#: "No." and "No, …" at the beginning; "No problem" is the opposite.
_FLAT_NO = re.compile(r"\s*(?:sorry,? )?no\s*[.,!;–—]", re.IGNORECASE)
#: How people and models decline, when a case lists no wordings of its own.
USUAL_DECLINES = (
    "cannot predict", "cannot know", "cannot tell you", "cannot say", "cannot provide", "cannot help", "cannot advise", "cannot recommend",
    "cannot guarantee", "can not give you", "not able to", "unable to", "impossible to predict", "impossible to know", "no one can", "nobody can",
    "no one knows", "nobody knows", "do not have access", "do not have enough information", "need more information", "do not know",
    "will not help", "will not provide",
)  # fmt: skip


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
    numbers = [check for check in case.checks if isinstance(check, NumberCheck)]
    results = []
    for check in case.checks:
        if isinstance(check, NumberCheck):
            results.append(_number(check, numbers, text))
        elif isinstance(check, FactCheck):
            results.append(_fact(check, text))
        elif isinstance(check, ForbiddenCheck):
            results.append(_forbidden(check, text))
        elif isinstance(check, ChoiceCheck):
            results.append(_choice(check, case.choices or {}, answer))
        else:
            results.append(_decline(check, text))
    return Score(tuple(results))


@lru_cache(maxsize=64)
def _read(answer: str) -> Text:
    """An answer taken apart; kept, because baselines give one answer to many cases."""
    return Text(answer)


def value_in(check: NumberCheck, quantity: Quantity) -> float | None:
    """The quantity's value in the check's unit, or None when the units do not go together."""
    unit, value = quantity.unit, quantity.value
    if check.unit in ("none", "count"):
        fits = check.unit == "none" or unit in ("none", "ratio", "years", "days")
        return quantity.written if fits and abs(quantity.written - check.number) <= abs(value - check.number) else value if fits else None
    if unit == check.unit:
        return value
    if unit == "none":
        if check.unit == "percent":
            # A rate of "0.05" is 5 %, a bare "5" is not: it may be anything.
            return value * 100 if 0 < abs(value) < 1 else None
        # A bare number that may be a year is no amount of dollars.
        return None if check.unit == "usd" and 1900 <= value <= 2100 and value == int(value) else value
    if check.unit == "ratio" and unit == "percent":
        return value / 100
    return None


def _number(check: NumberCheck, all_numbers: list[NumberCheck], text: Text) -> CheckResult:
    denied: list[tuple[Quantity, str]] = []
    nearest: tuple[bool, float, Quantity] | None = None
    for index, quantity in enumerate(text.quantities):
        value = value_in(check, quantity)
        if value is None:
            continue
        distance = abs(value - check.number)
        if distance > check.margin + 1e-9 * max(1.0, abs(check.number)):
            # What a reader would compare with: a figure of the same unit before a bare one, then the closest.
            if nearest is None or (quantity.unit != check.unit, distance) < nearest[:2]:
                nearest = (quantity.unit != check.unit, distance, quantity)
            continue
        if reason := _not_stated(index, text, all_numbers):
            denied.append((quantity, reason))
        else:
            return CheckResult(check.name, "number", True, f"says {_quote(text, quantity)}", ((quantity.start, quantity.end),))
    if denied:
        quantity, reason = denied[0]
        return CheckResult(check.name, "number", False, f"{_quote(text, quantity)} {reason}", ((quantity.start, quantity.end),))
    if nearest:
        return CheckResult(check.name, "number", False, f"not stated; the nearest is {_quote(text, nearest[2])}", ((nearest[2].start, nearest[2].end),))
    return CheckResult(check.name, "number", False, "no such number in the answer")


def _not_stated(index: int, text: Text, wanted: list[NumberCheck]) -> str:
    """Why a quantity in the text is no statement of it, or an empty text."""
    quantity = text.quantities[index]
    before, after = text.plain[max(0, quantity.start - 80) : quantity.start], text.plain[quantity.end : quantity.end + 60]
    if reason := text.not_asserted(quantity.start):
        return reason
    if _DENIAL_BEFORE.search(before) and not _ONLY.search(before[-25:]):
        return "is denied"
    if _DENIAL_AFTER.search(after):
        return "is called wrong"
    rivals = _rivals(index, text)
    unasked = [rival for rival in rivals if not any(_close(check, rival) for check in wanted)]
    if quantity.partner is not None and not any(_close(check, _partner(index, text)) for check in wanted):
        return "is one end of a range"
    if unasked:
        return f"is one of several offered (also {_quote(text, unasked[0])})"
    return ""


def _rivals(index: int, text: Text) -> list[Quantity]:
    """Other numbers that are offered in the same breath: "X or Y", "may be X … may be Y", a long bare list."""
    found, plain = text.quantities, text.plain
    quantity = found[index]
    rivals = []
    for first, second in ((index - 1, index), (index, index + 1)):
        if first < 0 or second >= len(found) or found[first].unit not in (found[second].unit, "none") or found[first].value == found[second].value:
            continue
        if _OFFERED.fullmatch(plain[found[first].end : found[second].start]) and not _CONDITION.match(plain[found[second].end : found[second].end + 60]):
            rivals.append(found[second] if first == index else found[first])
    if _MAYBE.search(plain[max(0, quantity.start - 40) : quantity.start]):
        hedged = [other for other in found if other.unit == quantity.unit and _MAYBE.search(plain[max(0, other.start - 40) : other.start])]
        rivals += [other for other in hedged if other.value != quantity.value]
    row = [quantity]
    for step in (-1, 1):
        place = index
        while 0 <= place + step < len(found):
            left, right = sorted((place, place + step))
            if not _IN_A_ROW.fullmatch(plain[found[left].end : found[right].start]):
                break
            place += step
            row.append(found[place])
    return rivals + (row[1:] if len({q.value for q in row}) >= _SHOTGUN else [])


def _partner(index: int, text: Text) -> Quantity:
    after = text.quantities[index + 1 : index + 2]
    return after[0] if after and after[0].value == text.quantities[index].partner else text.quantities[index - 1]


def _close(check: NumberCheck, quantity: Quantity) -> bool:
    value = value_in(check, quantity)
    return value is not None and abs(value - check.number) <= check.margin + 1e-9 * max(1.0, abs(check.number))


def _fact(check: FactCheck, text: Text) -> CheckResult:
    passed, mention = _said(check.accepted, text)
    if mention is None:
        return CheckResult(check.name, "fact", False, "not said in any accepted wording")
    return CheckResult(
        check.name, "fact", passed, "" if passed else f"“{text.original[mention.start : mention.end]}” {mention.denied}", ((mention.start, mention.end),)
    )


def _forbidden(check: ForbiddenCheck, text: Text) -> CheckResult:
    claimed, mention = _said(check.wordings, text)
    if claimed and mention:
        return CheckResult(check.name, "forbidden", False, f"claims “{text.original[mention.start : mention.end]}”", ((mention.start, mention.end),))
    return CheckResult(check.name, "forbidden", True, "" if mention is None else f"mentioned, but {mention.denied}")


def _said(wordings: tuple[str, ...], text: Text) -> tuple[bool, Mention | None]:
    """(asserted, where) for the first wording that is asserted; (False, where) when it is only mentioned."""
    mentioned = None
    for wording in wordings:
        for mention in text.mentions(wording):
            if not mention.denied:
                return True, mention
            mentioned = mentioned or mention
    return False, mentioned


def _decline(check: DeclineCheck, text: Text) -> CheckResult:
    for wording in check.accepted or USUAL_DECLINES:
        for mention in text.mentions(wording):
            # "I am not sure" is a way to decline, so only a question does not count.
            if mention.denied in ("", "the answer says it is not sure"):
                return CheckResult(check.name, "decline", True, "", ((mention.start, mention.end),))
    if flat := _FLAT_NO.match(text.plain):
        return CheckResult(check.name, "decline", True, "", (flat.span(),))
    return CheckResult(check.name, "decline", False, "does not decline in any accepted wording")


def _choice(check: ChoiceCheck, choices: dict[str, str], answer: str) -> CheckResult:
    chosen = chosen_letters(answer, choices)
    if len(chosen) == 1 and (named := _named_beside(answer, next(iter(chosen)), choices)):
        return CheckResult(check.name, "choice", False, f"writes {next(iter(chosen))} and the words of {named}")
    if chosen == {check.choice}:
        return CheckResult(check.name, "choice", True, f"chooses {check.choice}")
    return CheckResult(check.name, "choice", False, f"chooses {' and '.join(sorted(chosen))}" if chosen else "settles on no letter")


def chosen_letters(answer: str, choices: dict[str, str]) -> set[str]:
    """The letters an answer settles on: named as the answer, or standing alone at its beginning or end; else the one choice whose text it repeats."""
    letters = "".join(choices)
    plain = re.sub(r"[*_`\\{}]|boxed|\btext\b", "", answer).strip()
    named = re.findall(
        rf"\b(?:answer|choice|option|choose|pick|select)(?:\s+(?:is|would be|should be|letter|option|choice))*\s*[:=]?\s*\(?([{letters}])\b(?!')",
        plain,
        re.IGNORECASE,
    )
    denied = set(re.findall(rf"\b(?:not|isn't|than|unlike)\s+(?:option\s+|choice\s+|answer\s+)?\(?([{letters}])\b", plain))
    picked = {letter.upper() for letter in named} - denied
    if picked:
        return picked
    # Letters that begin or fill a line; an answer that only lists the choices again settles on none.
    listed = set(re.findall(rf"(?:^|\n)\s*\(?([{letters}])(?:[).:,]|\s*(?=\n|$)|\s+-)", plain))
    if listed:
        return listed - denied if len(listed) == 1 else set()
    if found := set(re.findall(rf"\(([{letters}])\)", plain)) - denied:
        return found
    normalised = _squeeze(plain)
    repeated = {letter for letter, choice in choices.items() if re.search(rf"(?<!\w){re.escape(_squeeze(choice))}(?!\w)", normalised)}
    return repeated if len(repeated) == 1 else set()


def _named_beside(answer: str, letter: str, choices: dict[str, str]) -> str:
    """The other choice whose words follow the chosen letter ("B) Credit card", where that is A), if there is one."""
    beside = [_squeeze(match) for match in re.findall(rf"\b{letter}[).:]+[*_]*\s+([^\n]+)", answer)]
    own = _squeeze(choices.get(letter, ""))
    others = {other: _squeeze(text) for other, text in choices.items() if other != letter and not own.startswith(_squeeze(text))}
    return next((other for text in beside for other, words in others.items() if text.startswith(words) and not text.startswith(own)), "")


def _squeeze(value: str) -> str:
    return re.sub(r"\s+", " ", re.sub(r"[^\w%$.]", " ", value.lower())).strip(" .")


def _quote(text: Text, quantity: Quantity) -> str:
    return f"“{text.original[quantity.start : quantity.end].strip()}”"
