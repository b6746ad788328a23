"""Whether an answer concludes a figure. Every quantity of the text gets a role, and what is left over as a claim is compared.

A quantity is no claim when it stands in a question, is denied, is part of a sum, belongs to a comparison ("below the $500 cap"), to a reason, to an aside
in brackets or to an assumption, or only repeats a figure of the prompt. Then:

- with a final line, that line decides: the figure must be in it, and no other claim of the same unit;
- without one, the last claim decides. A figure at the beginning may be explained afterwards, as long as nothing corrects it, draws another conclusion, or
  answers what was asked with another figure;
- several figures must keep the order of the question, unless the words beside them say which is which.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property

from runners.evaluation.cases import Case, NumberCheck
from runners.evaluation.conclusion import FinalLine, concludes, corrects, final_lines, guesses, taken_back
from runners.evaluation.numbers import Quantity, quantities
from runners.evaluation.wording import Text, stem

_FILLERS = (
    r"(?:a|an|the|exactly|equal|to|be|been|about|around|approximately|roughly|really|actually|at|of|set|currently|always|necessarily|as|only|simply|usd|us"
    r"|(?!exceed)\w+ed|pay|owe|need|get|have|earn|cost|charge|require|contribute)"
)
_DENIED_BEFORE = re.compile(rf"(?:\b(?:not|never|rather than|instead of|no longer)|n't)\s+(?:{_FILLERS}\s+){{0,4}}\$?\s*$", re.IGNORECASE)
_ONLY = re.compile(r"(?:not|n't)\s+(?:only|just|merely)\s", re.IGNORECASE)
_NOT_RIGHT = r"not (?:right|correct|true|accurate|reached|relevant|the (?:right|correct|limit|answer|figure|amount|rate))"
_WRONG = rf"wrong|incorrect|false|mistaken|a myth|outdated|too (?:high|low)|no longer|{_NOT_RIGHT}"
_DENIED_AFTER = re.compile(rf"^[^.;\n?!]{{0,25}}?\b(?:is|are|was|were|would be|as|would)(?:n't reached|\s+(?:only\s+)?(?:hold|apply)\b|\s+(?:\w+\s+)?(?:{_WRONG}))", re.IGNORECASE)
_OPERATOR = r"[+×*/÷^·]|[-−–](?=\s)|\b(?:plus|minus|times|divided by|multiplied by)\b"
_OPERATOR_AFTER = re.compile(rf"[^\S\n]*[)\]%]*[^\S\n]*(?:{_OPERATOR}|\bless\b(?! than))", re.IGNORECASE)
_OPERATOR_BEFORE = re.compile(rf"(?:[+×*/÷^·(]\s*|[-−–]\s+|\b(?:plus|minus|times|divided by|multiplied by|less)\s+(?:the\s+|another\s+)?)[($\[]*\s*$", re.IGNORECASE)
_COMPARED = re.compile(
    r"(?:\b(?:from|over|above|below|under|than|per|against|versus|vs\.?|beyond|within|exceeds?|exceeded|than (?:\w+ ){1,4}of|out of|unlike|by|remaining|first|next|other|left of"
    r"|(?:lesser|lower|smaller|greater|larger|higher|smallest|largest|least|most) of(?:[^.;]{0,30}\bor)?)"
    r"|(?:[\d%]|half|third|fifth|quarter|part|rest|all|worth)\s+(?:out\s+)?of)\s+(?:the\s+|a\s+|an\s+|its\s+|his\s+|her\s+|their\s+|your\s+|about\s+|roughly\s+)?(?:\w+\s+)?\$?\s*$",
    re.IGNORECASE,
)
_LIMIT_AFTER = re.compile(r"\s*(?:cap|limit|ceiling|threshold|maximum|minimum|exclusion|exemption|allowance|bracket|floor|line)\b", re.IGNORECASE)
_ASSUMES = re.compile(
    r"\b(?:would|without|otherwise|if|suppose|had|under the (?:old|former|previous)|before (?:19|20)\d\d|until|used to|previously|formerly|for comparison|compared|proposed"
    r"|while|whereas|unlike|instead of|e\.g|for example|for instance|as a check)\b",
    re.IGNORECASE,
)
_BECAUSE = re.compile(r"[\w)%](?:,)?\s+(?:because|since|as|given that|due to)\s+[^.;]*$", re.IGNORECASE)
_OFFERED = re.compile(r"\s*,?\s*(?:\bor\b|/)\s*(?:maybe|perhaps|possibly|even|about|around)?\s*\$?\s*", re.IGNORECASE)
_CONDITION = re.compile(
    r"\s*\(?,?\s*(?:(?:only|but)\s+)?(?:if|when|once|at age|under|provided|unless|for (?:those|people|anyone|married|joint|single|a |an )|with (?:an|a) )", re.IGNORECASE
)
_IN_A_ROW = re.compile(r"[\s,;/|]*(?:\b(?:and|or)\b)?[\s,;/|$]*", re.IGNORECASE)
_NAME_BEFORE = re.compile(r"\b(?:year|step|level|tier|part|option|phase|stage|day|month|quarter|question|rule|article|column|row|age|in|by|since|until|of)\s+$", re.IGNORECASE)
_REPORTED = re.compile(
    r"\b(?:some|many|most|people|others|one|you|they|friends?|books?|calculators?|formulas?|websites?)\s+(?:\w+\s+){0,2}?(?:might|would|may|could|often)?\s*"
    r"(?:says?|thinks?|claims?|believes?|guess(?:es)?|expects?|assumes?|be tempted|quotes?)\b[^.;]*$",
    re.IGNORECASE,
)
_LIMITS = re.compile(r"\b(?:bracket|limit|cap|ceiling|threshold|exclusion|exemption|deduction|maximum|minimum|premium|factor|basis|hurdle|rate)\b", re.IGNORECASE)
_DATE_BEFORE = re.compile(r"\b(?:jan|feb|mar|apr|may|june?|july?|aug|sept?|oct|nov|dec)[a-z]*\.?\s+$", re.IGNORECASE)
_CODE_BEFORE = re.compile(r"\b[A-Z]{2}\d{2}(?: [A-Z0-9]{2,4})* ?$")
_NOTHING = re.compile(r"\b(?:nothing|none|nil|no (?:tax|loss|gain|penalty|payment|room|benefit|impairment|hours?|one))\b", re.IGNORECASE)


@dataclass(frozen=True)
class Finding:
    """How one number check came out; the place is in the plain text."""

    passed: bool
    reason: str
    place: tuple[int, int] | None = None


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


def matches(check: NumberCheck, quantity: Quantity) -> bool:
    """Whether a quantity is the check's number, within its tolerance."""
    value = value_in(check, quantity)
    return value is not None and abs(value - check.number) <= check.margin + 1e-9 * max(1.0, abs(check.number))


class Figures:
    """The number checks of one case held against one answer."""

    def __init__(self, case: Case, text: Text) -> None:
        self.case, self.text = case, text
        self.checks = [check for check in case.checks if isinstance(check, NumberCheck)]
        self.lines = final_lines(text)

    def findings(self) -> dict[int, Finding]:
        """By the position of the check among the case's number checks."""
        found = {number: self._finding(check) for number, check in enumerate(self.checks)}
        if all(finding.passed for finding in found.values()) and len(self.checks) > 1 and (swapped := self._swapped(found)):
            found[0] = Finding(False, swapped, found[0].place)
        return found

    def _finding(self, check: NumberCheck) -> Finding:
        stated = [(index, quantity) for index, quantity in enumerate(self.text.quantities) if matches(check, quantity)]
        if not stated:
            return self._missing(check)
        reasons = {index: self._no_claim(index) for index, _ in stated}
        if all(reasons.values()):
            index, quantity = stated[0]
            return Finding(False, f"{self._quote(quantity)} {reasons[index]}", (quantity.start, quantity.end))
        if taken_back(self.text, stated[-1][1].end):
            return Finding(False, "is taken back", (stated[-1][1].start, stated[-1][1].end))
        if self.lines:
            return self._by_line(check)
        return self._by_statements(check, [index for index, _ in stated if not reasons[index]])

    # -- with a final line -------------------------------------------------------------------------------------------------------------------

    def _by_line(self, check: NumberCheck) -> Finding:
        """The last final line decides; earlier ones and what comes after it must not conclude something else."""
        last = self.lines[-1]
        inside = self._inside(last.start, last.end)
        good = [index for index in inside if matches(check, self.text.quantities[index]) and not self._no_claim(index)]
        rivals = [index for index in inside if self._rival(check, index) and not self._excused_in_line(index, last)]
        if not good and not rivals and len(self.case.checks) > 1 and not _NOTHING.search(self.text.plain, last.start, last.end):
            return self._by_statements(check, [i for i, q in enumerate(self.text.quantities) if matches(check, q) and not self._no_claim(i)])
        said = self.text.plain[last.start : last.end].strip()
        if rivals:
            rival = self.text.quantities[rivals[0]]
            return Finding(False, f"the final answer says {self._quote(rival)}", (rival.start, rival.end))
        if not good:
            return Finding(False, f"the final answer is “{said[:80]}”", (last.start, last.end))
        chosen = self.text.quantities[good[0]]
        for line in self.lines[:-1]:
            others = self._inside(line.start, line.end)
            if not any(matches(check, self.text.quantities[index]) for index in others):
                for index in others:
                    if self._rival(check, index) and not self._excused_in_line(index, line):
                        return Finding(False, f"concludes {self._quote(self.text.quantities[index])} and {self._quote(chosen)}", (chosen.start, chosen.end))
        for index in self._inside(last.end, len(self.text.plain)):
            said = self.text.sentence(self.text.quantities[index].start)
            if self._rival(check, index) and not self._excuse(index) and (concludes(said) or corrects(said)):
                return Finding(False, f"concludes {self._quote(chosen)} and then {self._quote(self.text.quantities[index])}", (chosen.start, chosen.end))
        return Finding(True, f"concludes {self._quote(chosen)}", (chosen.start, chosen.end))

    def _excused_in_line(self, index: int, line: FinalLine) -> bool:
        """Figures beside the answer in its line: denied, compared with, in brackets, part of a sum, or repeated from the question."""
        quantity = self.text.quantities[index]
        if self._offered(index):
            return False
        before = self.text.plain[line.start : quantity.start]
        named = quantity.unit == "none" and _NAME_BEFORE.search(before) is not None
        return bool(named or self._denied(index) or self._operand(index) or self._compared(index) or self._bracketed(index) or self._given(index))

    # -- without one -------------------------------------------------------------------------------------------------------------------------

    def _by_statements(self, check: NumberCheck, good: Sequence[int]) -> Finding:
        if not good:
            return self._missing(check)
        target = self.text.quantities[good[-1]]
        place = (target.start, target.end)
        bounds = [self.text.bounds(self.text.quantities[index].start) for index in good]
        if all(guesses(self.text.plain[start:end]) and self._other_claims(check, start, end) for start, end in bounds):
            return Finding(False, f"{self._quote(target)} is one of several offered", place)
        if self._within_a_range(check, target):
            return Finding(False, f"{self._quote(target)} lies in a range that is offered", place)
        after = [index for index in self._inside(target.end, len(self.text.plain)) if self._rival(check, index) and not self._excuse(index)]
        first = next((i for i in range(len(self.text.quantities)) if not self._no_claim(i) and (i in good or (self._rival(check, i) and not self._excuse(i)))), -1)
        leads = first in good
        nothing = _NOTHING.search(self.text.plain, target.end) if abs(check.number) > check.margin else None
        if nothing and concludes(before := self._clause_before(nothing.start())) and self.text.sentence(nothing.start()) != self.text.sentence(target.start) and before:
            return Finding(False, f"concludes {self._quote(target)} and then “{nothing[0]}”", place)
        explained = leads or concludes(self._clause_before(target.start))
        related = self._related(target) if after else set()
        for index in after:
            rival = self.text.quantities[index]
            said, same = self._clause_before(rival.start), self.text.bounds(rival.start) == self.text.bounds(target.start)
            turned = concludes(said) or corrects(self.text.sentence(rival.start)) or guesses(said)
            explains = index in related or self._is_a_limit(rival) or (same and self._after_equals(index))
            if not explained or turned or not explains or (self._answers(rival) and not same):
                return Finding(False, f"says {self._quote(target)}, but then {self._quote(rival)}", place)
        if before := self._before(check, good[-1]):
            return Finding(False, f"says {self._quote(before)}, and {self._quote(target)} only beside it", place)
        return Finding(True, f"says {self._quote(target)}", place)

    def _before(self, check: NumberCheck, index: int) -> Quantity | None:
        """A rival that was stated as the answer before the wanted figure is mentioned: "$510, though some get $360"."""
        target = self.text.quantities[index]
        start = self.text.bounds(target.start)[0]
        for other in self._inside(0, target.start):
            rival = self.text.quantities[other]
            if not self._rival(check, other) or self._excuse(other):
                continue
            if rival.start >= start and re.search(r"\b(?:al)?though\b|\bwhile\b|\bwhereas\b", self.text.plain[rival.end : target.start], re.IGNORECASE):
                return rival
            said = self.text.sentence(target.start)
            marked = concludes(self._clause_before(target.start)) or corrects(said) or self._shares(target) or len(re.findall(r"[a-z]{3,}", said)) < 2
            stated = re.search(r"\b(?:is|are|comes to|equals)\s+\$?$", self.text.plain[: rival.start])
            if rival.start < self.text.bounds(0)[1] <= target.start and stated and self._shares(rival) and not marked and not self._is_a_limit(rival):
                return rival
        return None

    def _related(self, target: Quantity) -> set[int]:
        """Figures from which the wanted one is computed in one step with another figure of the answer or the prompt, or which are computed from it so."""
        figures = [quantity.value for quantity in (*self.text.quantities, *self._prompted)]
        rates = [quantity.value / 100 for quantity in (*self.text.quantities, *self._prompted) if quantity.unit == "percent"]
        known, found = [target.value], set[int]()
        for _ in range(2):
            for index, quantity in enumerate(self.text.quantities):
                if index not in found and any(_one_step(quantity.value, value, [*figures, *rates]) for value in known):
                    found.add(index)
            known += [self.text.quantities[index].value for index in found]
        return found

    def _is_a_limit(self, quantity: Quantity) -> bool:
        """Whether a sentence gives a rule's limit or rate, and the question did not ask for one."""
        after = re.match(r"\s+(?:is|was) (?:an?|the) (?:\w+ ){0,2}\w+", self.text.plain[quantity.end : quantity.end + 40])
        named = {stem(word.lower()) for word in _LIMITS.findall(self._clause_before(quantity.start) + (after[0] if after else ""))}
        return bool(named - self._asked)

    def _shares(self, quantity: Quantity) -> bool:
        return bool({stem(word) for word in re.findall(r"[a-z]{3,}", self.text.sentence(quantity.start).lower())} & self._asked)

    def _within_a_range(self, check: NumberCheck, target: Quantity) -> bool:
        """Whether the answer offers a range around the figure, with neither end asked for, given, or part of a sum."""
        for index, quantity in enumerate(self.text.quantities):
            if quantity.partner is not None and value_in(check, quantity) is not None and not matches(check, quantity):
                around = min(quantity.value, quantity.partner) < target.value < max(quantity.value, quantity.partner)
                if around and not self._given(index) and not self._operand(index) and not self._operand(self.text.quantities.index(self._partner(index))):
                    return True
        return False

    def _answers(self, rival: Quantity) -> bool:
        """Whether the sentence of a rival speaks of what was asked, so that it answers the question too."""
        return self._shares(rival) or re.match(r"\W*(?:it|that|this|you|he|she|they|i)\b", self.text.sentence(rival.start), re.IGNORECASE) is not None

    @cached_property
    def _asked(self) -> set[str]:
        sentences = [sentence for sentence in re.split(r"(?<=[.?!])\s", self.case.question) if sentence.rstrip().endswith("?")]
        common = set("what much many does have that this from with which year will more most they them than each amount dollars percent"
            " the and are was for how has his her its per you your can one out not but all get does did who due had".split())
        return {stem(word) for word in re.findall(r"[a-z]{3,}", " ".join(sentences).lower()) if word not in common}

    def _clause_before(self, position: int) -> str:
        return self.text.plain[self.text.bounds(position)[0] : position]

    def _other_claims(self, check: NumberCheck, start: int, end: int) -> bool:
        return any(self._rival(check, index) and not self._operand(index) for index in self._inside(start, end)) or any(
            self._rival(check, index) and guesses(self.text.sentence(self.text.quantities[index].start)) for index in range(len(self.text.quantities))
        )

    # -- roles -------------------------------------------------------------------------------------------------------------------------------

    def _no_claim(self, index: int) -> str:
        """Why the wanted figure is no statement of it here, or an empty text."""
        quantity = self.text.quantities[index]
        if reason := self.text.not_asserted(quantity.start):
            return reason
        if self._denied(index):
            return "is denied"
        if self._operand(index):
            return "is only part of a sum"
        if _REPORTED.search(self._clause_before(quantity.start)):
            return "is only reported"
        if quantity.partner is not None and not any(matches(check, self._partner(index)) for check in self.checks):
            return "is one end of a range"
        if rivals := self._offered(index):
            return f"is one of several offered (also {self._quote(rivals[0])})"
        return ""

    def _rival(self, check: NumberCheck, index: int) -> bool:
        """Whether a quantity could be taken for an answer to this check and is none."""
        quantity = self.text.quantities[index]
        value = value_in(check, quantity)
        before = self.text.plain[max(0, quantity.start - 40) : quantity.start]
        if value is None or any(matches(other, quantity) for other in self.checks) or _DATE_BEFORE.search(before) or _CODE_BEFORE.search(before):
            return False
        if quantity.unit == "none" and check.unit not in ("none", "count", "ratio"):
            return check.unit == "usd" and (abs(value) >= 100 or not abs(check.number) >= 100) and self._after_equals(index)
        if check.unit in ("none", "count", "days", "years"):
            year = quantity.unit == "none" and 1900 <= quantity.written <= 2100 and not 1900 <= check.number <= 2100
            return not year and quantity.unit not in ("usd", "percent")
        return True

    def _excuse(self, index: int) -> bool:
        """Whether a figure that is not the wanted one explains it instead of replacing it."""
        quantity = self.text.quantities[index]
        said, before = self.text.sentence(quantity.start), self._clause_before(quantity.start)
        if self.text.not_asserted(quantity.start) or self._denied(index) or self._operand(index) or self._compared(index) or self._bracketed(index):
            return True
        if self._given(index) and not self._offered(index):
            return True
        if self._on_condition(index) or self._leads_to_another(index) or self._is_the_rest(index):
            return True
        if concludes(before) or corrects(said):
            return False
        return bool(_ASSUMES.search(before) or _BECAUSE.search(before) or (quantity.unit == "none" and _NAME_BEFORE.search(before)))

    def _leads_to_another(self, index: int) -> bool:
        """Whether the sentence goes on to the figure of a check: then this one is a step on the way."""
        end = self.text.bounds(self.text.quantities[index].start)[1]
        later = self._inside(self.text.quantities[index].end, end)
        return len(self.checks) > 1 and any(matches(check, self.text.quantities[other]) for other in later for check in self.checks)

    def _is_the_rest(self, index: int) -> bool:
        """Whether a figure is what is left beside the wanted one in the same sentence: to 100 %, or to a figure of the prompt."""
        rest, start = self.text.quantities[index], self.text.bounds(self.text.quantities[index].start)[0]
        whole = [100.0] if rest.unit == "percent" else [given.value for given in self._prompted if given.unit == rest.unit]
        wanted = [quantity for quantity in self.text.quantities[:index] if quantity.start >= start and any(matches(check, quantity) for check in self.checks)]
        return not concludes(self._clause_before(rest.start)) and any(abs(quantity.value + rest.value - one) < 1e-6 * one for quantity in wanted for one in whole)

    def _denied(self, index: int) -> bool:
        quantity = self.text.quantities[index]
        before, after = self.text.plain[max(0, quantity.start - 80) : quantity.start], self.text.plain[quantity.end : quantity.end + 60]
        return bool((_DENIED_BEFORE.search(before) and not _ONLY.search(before[-25:])) or _DENIED_AFTER.search(after))

    def _operand(self, index: int) -> bool:
        quantity = self.text.quantities[index]
        before, after = self.text.plain[max(0, quantity.start - 30) : quantity.start], self.text.plain[quantity.end : quantity.end + 20]
        signed = re.search(r"[=≈:]\s*[+−–-]\s*\$?$", before)
        return bool(_OPERATOR_AFTER.match(after)) or bool(_OPERATOR_BEFORE.search(before) and not before.endswith("(") and not signed)

    def _on_condition(self, index: int) -> bool:
        """Whether a figure is for other circumstances ("$30,500 if you are 50 or older")."""
        return _CONDITION.match(self.text.plain, self.text.quantities[index].end) is not None

    def _after_equals(self, index: int) -> bool:
        return re.search(r"[=≈:]\s*$", self.text.plain[: self.text.quantities[index].start]) is not None

    def _compared(self, index: int) -> bool:
        quantity = self.text.quantities[index]
        before = self._clause_before(quantity.start)
        return bool(_COMPARED.search(before) or _LIMIT_AFTER.match(self.text.plain[quantity.end : quantity.end + 30]))

    def _bracketed(self, index: int) -> bool:
        start, quantity = self.text.bounds(self.text.quantities[index].start)[0], self.text.quantities[index]
        line = self.text.plain[start : quantity.start]
        return line.count("(") > line.count(")") and ")" in self.text.plain[quantity.end : quantity.end + 120]

    def _given(self, index: int) -> bool:
        """Whether a figure is repeated from the prompt; where the wanted one is in the prompt itself, repeating is no excuse."""
        quantity = self.text.quantities[index]
        if any(matches(check, given) for check in self.checks for given in self._prompted):
            return False
        return any(abs(given.value - quantity.value) < 1e-9 * max(1.0, abs(given.value)) and quantity.unit in (given.unit, "none") for given in self._prompted)

    @cached_property
    def _prompted(self) -> list[Quantity]:
        return quantities(" \n ".join([*(turn.content for turn in self.case.history), self.case.passage or "", self.case.question]))

    def _offered(self, index: int) -> list[Quantity]:
        """Other figures that are offered in the same breath: "X or Y", a bare row of them."""
        found, plain = self.text.quantities, self.text.plain
        quantity = found[index]
        rivals = []
        for first, second in ((index - 1, index), (index, index + 1)):
            if first < 0 or second >= len(found) or found[first].unit not in (found[second].unit, "none") or found[first].value == found[second].value:
                continue
            between = plain[found[first].end : found[second].start]
            if _OFFERED.fullmatch(between) and not self._on_condition(second):
                rivals.append(found[second] if first == index else found[first])
        row = [] if _DATE_BEFORE.search(plain[max(0, quantity.start - 12) : quantity.start]) else [quantity]
        for step in (-1, 1):
            place = index
            while row and 0 <= place + step < len(found) and found[place + step].unit == quantity.unit:
                left, right = sorted((place, place + step))
                between = plain[found[left].end : found[right].start]
                if _DATE_BEFORE.search(plain[max(0, found[left].start - 12) : found[left].start]) or ("or" in between and self._on_condition(right)):
                    break
                if not _IN_A_ROW.fullmatch(plain[found[left].end : found[right].start]):
                    break
                place += step
                row.append(found[place])
        rivals += [other for other in row if other.value != quantity.value] if len({other.value for other in row}) > 2 or len(self.checks) < 2 else []
        return [rival for rival in rivals if not any(matches(check, rival) for check in self.checks)]

    # -- which is which ------------------------------------------------------------------------------------------------------------------------

    def _swapped(self, found: dict[int, Finding]) -> str:
        """Why two figures of one unit are each other's, or an empty text."""
        for one in range(len(self.checks)):
            for two in range(one + 1, len(self.checks)):
                first, second = self.checks[one], self.checks[two]
                if first.unit == second.unit and (reason := self._exchanged(first, second)):
                    return reason
        return ""

    def _exchanged(self, first: NumberCheck, second: NumberCheck) -> str:
        start, end = (self.lines[-1].start, self.lines[-1].end) if self.lines else (0, len(self.text.plain))
        inside = [self.text.quantities[index] for index in self._inside(start, end) if not self._operand(index)]
        ones, twos = [q for q in inside if matches(first, q)], [q for q in inside if matches(second, q)]
        if not ones or not twos:
            return ""
        one, two = ones[-1], twos[-1]
        names = self._names()
        mine, other = names.get(first.name, set()), names.get(second.name, set())
        beside_one, beside_two = self._beside(one, two), self._beside(two, one)
        right = bool(beside_one & (mine - other)) + bool(beside_two & (other - mine))
        wrong = bool(beside_one & (other - mine)) + bool(beside_two & (mine - other))
        if wrong > right:
            return f"{self._quote(one)} and {self._quote(two)} are exchanged"
        if one.start > two.start and not right:
            return f"{self._quote(two)} and {self._quote(one)} come in the other order than asked"
        return ""

    def _names(self) -> dict[str, set[str]]:
        """The stems that tell the checks apart: those of the label, and of the part of the question that asks for each."""
        parts = re.split(r",?\s+(?:and|versus|than)\s+(?=how|what|which|the|its|when|in|if|on|from|for|\w+ )", self.case.question.rsplit(". ", 1)[-1])
        asked = parts[-len(self.checks) :] if len(parts) >= len(self.checks) else [""] * len(self.checks)
        return {check.name: {_key(w) for w in _words(check.label)} | {_key(w) for w in _words(part)} for check, part in zip(self.checks, asked, strict=True)}

    def _beside(self, quantity: Quantity, other: Quantity) -> set[str]:
        """The stems of the clause that a figure stands in, up to the other figure or the nearest stop."""
        start, end = self.text.bounds(quantity.start)
        if other.end <= quantity.start:
            start = max(start, other.end)
        else:
            end = min(end, other.start)
        before = re.split(r"[,;:.](?=\s)|\band\b|\bbut\b", self.text.plain[start : quantity.start])[-1]
        after = re.split(r"[,;.](?=\s|$)|\band\b|\bbut\b", self.text.plain[quantity.end : end])[0]
        return {_key(word) for word in _words(f"{before} {after}")}

    # -- small things --------------------------------------------------------------------------------------------------------------------------

    def _missing(self, check: NumberCheck) -> Finding:
        fitting = [(quantity, value) for quantity in self.text.quantities if (value := value_in(check, quantity)) is not None and not matches(check, quantity)]
        if not fitting:
            return Finding(False, "no such number in the answer")
        # What a reader would compare with: a figure of the same unit before a bare one, then the closest.
        quantity, _ = min(fitting, key=lambda pair: (pair[0].unit != check.unit, abs(pair[1] - check.number)))
        return Finding(False, f"not stated; the nearest is {self._quote(quantity)}", (quantity.start, quantity.end))

    def _inside(self, start: int, end: int) -> list[int]:
        return [index for index, quantity in enumerate(self.text.quantities) if start <= quantity.start < end]

    def _partner(self, index: int) -> Quantity:
        after = self.text.quantities[index + 1 : index + 2]
        return after[0] if after and after[0].value == self.text.quantities[index].partner else self.text.quantities[index - 1]

    def _quote(self, quantity: Quantity) -> str:
        return self.text.quote(quantity.start, quantity.end)


def _one_step(one: float, result: float, others: Sequence[float]) -> bool:
    """Whether one figure and another give the result by +, −, × or ÷, or the result and another give the one."""
    for other in others:
        made = [one + other, one - other, other - one, one * other, *([one / other] if other else []), *([other / one] if one else [])]
        if other not in (0, 1, one, result) and any(abs(value - result) <= 5e-4 * abs(result) for value in made) and abs(one - result) > 1e-9:
            return True
    return False


def _words(said: str) -> list[str]:
    return [word for word in re.findall(r"[a-z]+", said.lower()) if len(word) > 3 and word not in ("what", "much", "many", "does", "that", "with", "each", "year")]


def _key(word: str) -> str:
    return stem(word)[:6]
