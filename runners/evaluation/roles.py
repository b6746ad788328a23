"""The role of each quantity in an answer: a claim, or something beside one. ``figures`` decides by the claims."""

from __future__ import annotations

import re
from functools import cached_property

from runners.evaluation.cases import Case, NumberCheck
from runners.evaluation.conclusion import concludes, corrects, final_lines
from runners.evaluation.lists import any_of, marks, words
from runners.evaluation.numbers import Quantity, quantities
from runners.evaluation.wording import Text, stem, stems

_DENIED_BEFORE = re.compile(rf"(?:\b(?:not|never|rather than|instead of|no longer)|n't)\s+(?:{any_of('fillers')}\s+){{0,4}}\$?\s*$", re.IGNORECASE)
_ONLY = re.compile(r"(?:not|n't)\s+(?:only|just|merely)\s", re.IGNORECASE)
_NOT_RIGHT = r"not (?:right|correct|true|accurate|reached|relevant|the (?:right|correct|limit|answer|figure|amount|rate))"
_WRONG = rf"wrong|incorrect|false|mistaken|a myth|outdated|too (?:high|low)|no longer|{_NOT_RIGHT}"
_DENIED_AFTER = re.compile(
    rf"^[^.;\n?!]{{0,25}}?\b(?:is|are|was|were|would be|as|would)(?:n't reached|\s+(?:only\s+)?(?:hold|apply)\b|\s+(?:\w+\s+)?(?:{_WRONG}))", re.IGNORECASE
)
_OPERATOR = r"[+×*/÷^·]|[-−–](?=\s)|\b(?:plus|minus|times|divided by|multiplied by)\b"
_OPERATOR_AFTER = re.compile(rf"[^\S\n]*[)\]%]*[^\S\n]*(?:{_OPERATOR}|\bless\b(?! than))", re.IGNORECASE)
_OPERATOR_BEFORE = re.compile(
    r"(?:[+×*/÷^·(]\s*|[-−–]\s+|\b(?:plus|minus|times|divided by|multiplied by|less)\s+(?:the\s+|another\s+)?)[($\[]*\s*$", re.IGNORECASE
)
_COMPARED = re.compile(
    rf"(?:\b{any_of('compared')}|(?:[\d%]|half|third|fifth|quarter|part|rest|all|worth)\s+(?:out\s+)?of)\s+"
    r"(?:the\s+|a\s+|an\s+|its\s+|his\s+|her\s+|their\s+|your\s+|about\s+|roughly\s+)?(?:\w+\s+)?\$?\s*$",
    re.IGNORECASE,
)
_LIMIT_AFTER = re.compile(rf"\s*{any_of('limit_after')}\b", re.IGNORECASE)
_ASSUMES = marks("assumes")
_BECAUSE = re.compile(r"[\w)%](?:,)?\s+(?:because|since|as|given that|due to)\s+[^.;]*$", re.IGNORECASE)
_OFFERED = re.compile(r"\s*,?\s*(?:\bor\b|/)\s*(?:maybe|perhaps|possibly|even|about|around)?\s*\$?\s*", re.IGNORECASE)
_CONDITION = re.compile(
    r"\s*\(?,?\s*(?:(?:only|but)\s+)?(?:if|when|once|at age|under|provided|unless|for (?:those|people|anyone|married|joint|single|a |an )|with (?:an|a) )",
    re.IGNORECASE,
)
_IN_A_ROW = re.compile(r"[\s,;/|]*(?:\b(?:and|or)\b)?[\s,;/|$]*", re.IGNORECASE)
NAME_BEFORE = re.compile(
    r"\b(?:year|step|level|tier|part|option|phase|stage|day|month|quarter|question|rule|article|column|row|age|in|by|since|until|of)\s+$", re.IGNORECASE
)
_REPORTED = re.compile(
    r"\b(?:(?:some|many|most|people|others|they|friends?|books?|calculators?|formulas?|websites?)\s+(?:\w+\s+){0,2}?(?:says?|claims?|quotes?|thinks?|believes?)"
    r"|(?:you|one|we|some|many|people)\s+(?:\w+\s+)?(?:might|would|may|could|often)\s+(?:think|believe|guess|expect|assume|say|be tempted))\b[^.;]*$",
    re.IGNORECASE,
)
_LIMITS = marks("limits")
_DATE_BEFORE = re.compile(r"\b(?:jan|feb|mar|apr|may|june?|july?|aug|sept?|oct|nov|dec)[a-z]*\.?\s+$", re.IGNORECASE)
_CODE_BEFORE = re.compile(r"\b[A-Z]{2}\d{2}(?: [A-Z0-9]{2,4})* ?$")
#: Words of a question that do not tell what it asks for.
_COMMON = words("common")


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


class Roles:
    """The quantities of one answer, as a case reads them; they are named by their index in the text."""

    def __init__(self, case: Case, text: Text) -> None:
        self.case, self.text = case, text
        self.checks = [check for check in case.checks if isinstance(check, NumberCheck)]
        self.lines = final_lines(text)

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
        turned = concludes(before) or re.search(r"\b(?:though|however|but|yet)\b", said, re.IGNORECASE) is not None
        if self._given(index) and not self._offered(index) and not turned:
            return True
        if self._on_condition(index) or self._leads_to_another(index) or self._is_the_rest(index):
            return True
        if concludes(before) or corrects(said):
            return False
        return bool(_ASSUMES.search(before) or _BECAUSE.search(before) or (quantity.unit == "none" and NAME_BEFORE.search(before)))

    def _leads_to_another(self, index: int) -> bool:
        """Whether the sentence goes on to the figure of a check: then this one is a step on the way."""
        end = self.text.bounds(self.text.quantities[index].start)[1]
        later = self._inside(self.text.quantities[index].end, end)
        return len(self.checks) > 1 and any(matches(check, self.text.quantities[other]) for other in later for check in self.checks)

    def _is_the_rest(self, index: int) -> bool:
        """Whether a figure is what is left beside the wanted one in the same sentence: to 100 %, or to a figure of the prompt."""
        rest = self.text.quantities[index]
        start = max((match.end() for match in re.finditer(r"[.!?]\s", self.text.plain[: rest.start])), default=0)
        whole = [100.0] if rest.unit == "percent" else [given.value for given in self._prompted if given.unit == rest.unit]
        wanted = [quantity for quantity in self.text.quantities[:index] if quantity.start >= start and any(matches(check, quantity) for check in self.checks)]
        return not concludes(self._clause_before(rest.start)) and any(
            abs(quantity.value + rest.value - one) < 1e-6 * one for quantity in wanted for one in whole
        )

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
        scales = (1.0, 1e3, 1e6, 1e9)  # a table in millions says 6.0 for $6,000,000
        same = [given for given in self._prompted if quantity.unit in (given.unit, "none") or given.unit == "none"]
        return any(abs(given.value * scale - quantity.value) < 1e-9 * max(1.0, abs(quantity.value)) for given in same for scale in scales)

    @cached_property
    def _prompted(self) -> list[Quantity]:
        return quantities(self.case.told)

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
        if len(row) == 2 and ";" in plain[min(other.end for other in row) : max(other.start for other in row)]:
            row = []  # two statements, not a list
        rivals += [other for other in row if other.value != quantity.value] if len({other.value for other in row}) > 2 or len(self.checks) < 2 else []
        return [rival for rival in rivals if not any(matches(check, rival) for check in self.checks)]

    @cached_property
    def _asked(self) -> set[str]:
        sentences = [sentence for sentence in re.split(r"(?<=[.?!])\s", self.case.question) if sentence.rstrip().endswith("?")]
        return stems(" ".join(sentences), _COMMON)

    def _shares(self, quantity: Quantity) -> bool:
        return bool(stems(self.text.sentence(quantity.start)) & self._asked)

    def _is_a_limit(self, quantity: Quantity) -> bool:
        """Whether a sentence gives a rule's limit or rate, and the question did not ask for one."""
        after = re.match(r"\s+(?:is|was) (?:an?|the) (?:\w+ ){0,2}\w+", self.text.plain[quantity.end : quantity.end + 40])
        named = {stem(word.lower()) for word in _LIMITS.findall(self._clause_before(quantity.start) + (after[0] if after else ""))}
        return bool(named - self._asked)

    def _clause_before(self, position: int) -> str:
        return self.text.plain[self.text.bounds(position)[0] : position]

    def _inside(self, start: int, end: int) -> list[int]:
        return [index for index, quantity in enumerate(self.text.quantities) if start <= quantity.start < end]

    def _partner(self, index: int) -> Quantity:
        after = self.text.quantities[index + 1 : index + 2]
        return after[0] if after and after[0].value == self.text.quantities[index].partner else self.text.quantities[index - 1]

    def _quote(self, quantity: Quantity) -> str:
        return self.text.quote(quantity.start, quantity.end)
