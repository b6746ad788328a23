"""Quantities in running text: what number, in what unit, standing where.

Reads "$23,000", "USD 23 000", "23k", "$1.2 million", "twenty-three thousand dollars", "10 %", "ten percent", "50 basis
points", "59½", "1/3", "2:1", "1.5x", "18 months", "30-year", and ranges of these. Numbers that only number a list, and those
inside names ("401(k)", "S&P 500", "Form 1040", "section 529"), are not quantities.

Left out: other currencies are read as numbers without a unit, and fractions in words beyond halves, thirds, quarters.
"""

from __future__ import annotations

import re
from dataclasses import dataclass, replace
from typing import Literal

Unit = Literal["usd", "percent", "years", "days", "ratio", "none"]


@dataclass(frozen=True)
class Quantity:
    """A number in the text.

    ``written`` is the number before its unit was applied (18 for "18 months", whose value is 1.5 years); ``partner`` is the
    other end when it is one end of a range ("15-20 %", "between 5 and 15").
    """

    value: float
    unit: Unit
    start: int
    end: int
    written: float
    partner: float | None = None


_TEENS = "ten eleven twelve thirteen fourteen fifteen sixteen seventeen eighteen nineteen"
_ONES = {word: value for value, word in enumerate(re.split(" ", f"zero one two three four five six seven eight nine {_TEENS}"))}
_TENS = {word: 10 * value for value, word in enumerate(re.split(" ", "twenty thirty forty fifty sixty seventy eighty ninety"), 2)}
_SCALES = {"hundred": 100.0, "thousand": 1e3, "million": 1e6, "billion": 1e9, "trillion": 1e12}
_SUFFIXES = {"k": 1e3, "m": 1e6, "mm": 1e6, "mn": 1e6, "mil": 1e6, "b": 1e9, "bn": 1e9, "t": 1e12, "tn": 1e12} | _SCALES
_FRACTIONS = {"½": 0.5, "¼": 0.25, "¾": 0.75, "⅓": 1 / 3, "⅔": 2 / 3, "⅛": 0.125, "⅜": 0.375, "⅝": 0.625, "⅞": 0.875}
_SHARES = ("half", "third", "quarter", "fourth", "fifth", "sixth", "seventh", "eighth", "ninth", "tenth")
_PARTS = {"halve": 0.5} | {share: 1 / number for share, number in zip(_SHARES, (2, 3, 4, 4, 5, 6, 7, 8, 9, 10), strict=True)}

_WORD = "|".join([*_ONES, *_TENS, *_SCALES])
# "a" and "and" only inside ("a hundred and five"); a bare "one" is mostly a pronoun and is left to the caller to ignore.
_DIGIT_WORD = "zero|one|two|three|four|five|six|seven|eight|nine"
_SHARE = "half|halves|third|quarter|fourth|fifth|sixth|seventh|eighth|ninth|tenth"
# "seventeen and a half", "six and six tenths", "two thirds", "four point three", "one point nine three".
_WORDS = (
    rf"(?:(?:{_WORD}|an?(?=[ -](?:hundred|thousand|million|billion|trillion)\b))(?:(?:[ -]|[ -]and[ -])(?:{_WORD}))*"
    rf"(?:[ -]point(?:[ -](?:{_DIGIT_WORD}))+|[ -](?:and[ -](?:an?|{_DIGIT_WORD})[ -])?(?:{_SHARE})s?\b(?:[ -](?:hundred|thousand|million|billion)\b)?)?)"
)
_DIGITS = r"(?:\d{1,3}(?:,\d{3})+(?!\d)(?:\.\d+)?|\d{1,3}(?:[ \u00a0\u202f]\d{3})+(?![\d,])(?:\.\d+)?|\d+(?:\.\d+)?|\.\d+)"
_QUANTITY = re.compile(
    rf"""(?P<before>(?:US\$|USD\s?|U\.S\.\s?\$|\$)\s?)?
    (?P<sign>(?<![\w)\]])[-−–](?=[\d$.]))?(?P<before2>\$\s?)?
    (?:(?P<digits>{_DIGITS})
       (?:(?P<half>\s?[½¼¾⅓⅔⅛⅜⅝⅞]|[ -]1/2\b|\sand\sa\s(?:half|quarter|third)\b)|/(?P<over>\d+)(?![/\d]|[,.]\d)|:(?P<to>\d+(?:\.\d+)?)(?![:\d]))?
       (?:(?:\s?(?P<scale>thousand|million|billion|trillion|hundred|mil|mn|bn|tn)\b)|(?P<letter>(?:[kKMBT]|mm|MM|bn|m|b)(?![\w%])))?
     |(?P<part>[½¼¾⅓⅔⅛⅜⅝⅞])
     |\b(?P<words>{_WORDS})\b(?!-?(?:digit|way|fold)))
    (?P<after>
       \s?(?:%|percent(?:age\s+points?)?\b|per\s?cent\b|pct\b|(?:percentage\s+)?points?\b)
      |\s?(?:basis\s+points?|bps|bp)\b
      |(?:\s|-|\s?-\s?)?(?:(?:calendar|business|trading|working|full|consecutive)[ -])?(?:years?|yrs?|months?|weeks?|days?|hours?)\b(?:[ -]olds?\b)?
      |\s?(?:US\s)?(?:dollars?|USD|bucks)\b|\s?\$(?![\d\s]*\d)
      |\s?(?:cents?\b|¢)
      |\s?to\s(?:1|one)\b(?![.,]?\d)
      |\s?(?:x|×)(?![\w])|\s?times\b|-?fold\b
    )?""",
    re.VERBOSE | re.IGNORECASE,
)
#: Digits that belong to a name or count a list: never an answer by themselves.
_NOT_A_QUANTITY = re.compile(
    r"""(?:\b(?:401|403|457|529|501|1031|1035|702|16b|10b|72|83)\s?[-(]?\s?\(?(?:[a-z]\)?(?![a-z])|\(\w\)))(?:\([a-z0-9]\))*
      |\b(?:form|schedule|section|sec\.|§|irc|rule|title|regulation|series|chapter|publication|pub\.|part|asc|ifrs|ias|iso|pci\s?dss|fas|sfas|basel|article|step|case|example|option|question|no\.)\s?\#?(?:[a-z]-?)?\d[\w.()/-]*
      |\bS&P\s?\d+|\bRussell\s?\d+|\bNASDAQ[- ]?\d+|\b(?:NIKKEI|FTSE|DAX|CAC)\s?\d+|\b52/53
      |(?:(?<=\n)|\A)[ \t]*(?:\#+[ \t]*)?(?:\*\*)?\d{1,2}[.)](?=[\s*])
      |\b529(?=\s(?:plan|account|college|savings))|\b1031(?=\s(?:exchange|like))|(?<![$\d.,])\b10(?:99|40)\b(?:-[a-z]+)?(?!\s?(?:dollar|usd|%|percent|[.,]\d))|\bw-?[24]\b""",
    re.VERBOSE | re.IGNORECASE,
)
_IS_ONE = re.compile(r"(?:\b(?:is|be|equals)|[=:])\s+one(?:[.,;)\n]|$)", re.IGNORECASE)
_JOINT = re.compile(r"\s?(?:-|–|—|−|to|and|through)\s?", re.IGNORECASE)
_CHANGES = re.compile(
    r"\b(?:increas|ris|rose|fell|fall|drop|went|go(?:es|ing)?\b|reduc|grow|grew|cut|convert|mov|chang|lower|rais|jump|climb|declin|shift|step)\w*\W+(?:\w+\W+){0,5}from\W+$",
    re.IGNORECASE,
)


def quantities(text: str) -> list[Quantity]:
    """All quantities of a text, in order. Years of months are fractions (18 months = 1.5 years), weeks are days."""
    hidden = [match.span() for match in _NOT_A_QUANTITY.finditer(text)]
    found: list[Quantity] = []
    for match in _QUANTITY.finditer(text):
        if any(start < match.end() and match.start() < end for start, end in hidden) or _inside_a_word(text, match):
            continue
        value = _value(match)
        if value is None and (match["words"] or "").lower() == "one" and _IS_ONE.search(text, match.start() - 12 if match.start() > 12 else 0, match.end() + 1):
            value = 1.0  # "the digit is one."
        if value is not None:
            found.append(Quantity(*_with_unit(match, value), match.start(), match.end(), value))
    return _ranges(text, _with_cents(text, found))


def _with_cents(text: str, found: list[Quantity]) -> list[Quantity]:
    """ "Four dollars and 42 cents" and "one dollar sixty-one" are one amount."""
    joined: list[Quantity] = []
    for second in found:
        first = joined[-1] if joined else None
        between = text[first.end : second.start].strip(" ,") if first else ""
        cents = re.search(r"cents?$|¢$", text[second.start : second.end], re.IGNORECASE)
        words = second.unit == "none" and second.written == int(second.written) and text[second.start].isalpha()
        dollars = first is not None and first.unit == "usd" and re.search(r"dollars?$", text[first.start : first.end], re.IGNORECASE)
        if first and dollars and second.written < 100 and ((cents and between in ("", "and")) or (words and not between)):
            value = first.value + second.written / 100
            joined[-1] = replace(first, value=value, written=value, end=second.end)
            continue
        joined.append(second)
    return joined


def _inside_a_word(text: str, match: re.Match[str]) -> bool:
    before, after = text[match.start() - 1 : match.start()], text[match.end() : match.end() + 1]
    if match["words"] or match["part"]:
        return False
    glued = bool(before) and (before.isalpha() or before in "_#") and not match["before"]
    # "12-b", "3rd", "4x4": digits that run on into letters are a name; an ordinal is no quantity either.
    return glued or (bool(after) and after.isalpha() and not match["after"] and not match["letter"] and not match["scale"])


def _value(match: re.Match[str]) -> float | None:
    if match["words"]:
        value = words_to_number(match["words"])
        # "one" alone is a pronoun, "a hundred" is a number; with a unit ("one year") it counts.
        if value is None or (value == 1 and not match["after"]):
            return None
        return value
    if match["part"]:
        return _FRACTIONS[match["part"]]
    if re.fullmatch(r"0\d{4,}", match["digits"]):
        return None  # a code, not a number
    value = float(re.sub(r"[, \u00a0\u202f]", "", match["digits"]))
    if match["half"]:
        value += _FRACTIONS.get(match["half"].strip(), next((part for name, part in _PARTS.items() if name in match["half"]), 0.5))
    if match["over"]:
        if float(match["over"]) == 0:
            return None
        value /= float(match["over"])
    if match["to"]:
        if float(match["to"]) == 0:
            return None
        value /= float(match["to"])
    scale = (match["scale"] or match["letter"] or "").lower()
    return (-1 if match["sign"] else 1) * value * _SUFFIXES.get(scale, 1.0)


def _with_unit(match: re.Match[str], value: float) -> tuple[float, Unit]:
    after = (match["after"] or "").strip(" -").lower()
    if "basis" in after or after.startswith("bp"):
        return value / 100, "percent"
    if after.startswith(("%", "per", "pct", "point")):
        return value, "percent"
    if after.startswith(("cent", "¢")):
        return value / 100, "usd"
    if match["before"] or match["before2"] or after.startswith(("us", "dollar", "buck", "$")):
        return value, "usd"
    for name, factor, unit in (
        ("year", 1.0, "years"),
        ("yr", 1.0, "years"),
        ("month", 1 / 12, "years"),
        ("week", 7.0, "days"),
        ("day", 1.0, "days"),
        ("hour", 1 / 24, "days"),
    ):
        if re.search(rf"\b{name}", after):
            return value * factor, "years" if unit == "years" else "days"
    if after in ("x", "×", "times", "fold", "to 1", "to one") or match["to"]:
        return value, "ratio"
    return value, "none"


def words_to_number(words: str) -> float | None:
    """``twenty-three thousand`` -> 23000.0; None for what is no number ("three two")."""
    total, group, last = 0.0, 0.0, 1e30
    written = re.split(r"[ -]+", words.lower())
    if len(written) > 2 and written[-1] in _SCALES and written[-2].removesuffix("s") in _PARTS:
        before = words_to_number(" ".join(written[:-1]))
        return None if before is None else before * _SCALES[written[-1]]
    share = written[-1].removesuffix("s")
    if len(written) > 1 and share in _PARTS:
        count = 1 if written[-2] in ("a", "an") else _ONES.get(written[-2])
        before = words_to_number(" ".join(written[: written.index("and")])) if written[-3:-2] == ["and"] else 0.0 if len(written) == 2 else None
        return None if count is None or before is None else before + count * _PARTS[share]
    if "point" in written:
        point = written.index("point")
        before = words_to_number(" ".join(written[:point]))
        return None if before is None else before + float("0." + "".join(str(_ONES[digit]) for digit in written[point + 1 :]))
    for word in written:
        if word == "and":
            continue
        if word in ("a", "an"):
            group += 1
        elif word == "hundred":
            group = (group or 1) * 100
        elif word in _SCALES:
            if _SCALES[word] >= last:
                return None
            last = _SCALES[word]
            total, group = total + (group or 1) * last, 0.0
        elif word in _TENS:
            if group % 100:
                return None
            group += _TENS[word]
        elif word in _ONES:
            if group % 10 or (group % 100 and _ONES[word] > 9):
                return None
            group += _ONES[word]
        else:
            return None
    return total + group


def _ranges(text: str, found: list[Quantity]) -> list[Quantity]:
    """Join the ends of ranges: both get a partner, and the first takes the unit after the second."""
    for index in range(len(found) - 1):
        first, second = found[index], found[index + 1]
        if not text[first.end : second.start] and second.value < 0:
            second = replace(second, value=-second.value, written=-second.written)  # "15-20": the dash was read as a sign
        elif not _JOINT.fullmatch(text[first.end : second.start]):
            continue
        if _is_range(text, first, second):
            first = _given_unit(text, first, second)
            found[index], found[index + 1] = replace(first, partner=second.value), replace(second, unit=first.unit, partner=first.value)
    return found


def _is_range(text: str, first: Quantity, second: Quantity) -> bool:
    joint, before = text[first.end : second.start].strip().lower(), text[max(0, first.start - 60) : first.start]
    if joint == "and" and not re.search(r"\bbetween\W+$", before, re.IGNORECASE):
        return False
    if joint in ("to", "and", "through") and _CHANGES.search(before):
        return False
    # "$5 - $3 = $2" is a sum, 2024-2025 are years, "2 to 1" is a ratio.
    sum_or_span = (
        second.written <= first.written or re.match(r"\s*=", text[second.end :]) or (first.unit == second.unit == "none" and 1900 <= first.value <= 2100)
    )
    return not sum_or_span and first.partner is None and (first.unit in ("none", second.unit) or second.unit == "none")


def _given_unit(text: str, first: Quantity, second: Quantity) -> Quantity:
    """The first end, with the unit and the scale that are only written behind the second ("3 to 6 months", "$15 to 20 million")."""
    behind, value = text[second.start : second.end].lower(), first.value
    if first.unit == "none":
        factors = {"month": 1 / 12, "week": 7.0, "hour": 1 / 24, "basis": 0.01, "bp": 0.01}
        value *= next((factor for name, factor in factors.items() if name in behind), 1.0)
    scale = re.search(r"\d\s?(k|m|mm|mn|b|bn|thousand|million|billion|trillion)\b", behind)
    if scale and not re.search(r"[a-z]", text[first.start : first.end].lower().replace("usd", "")):
        value *= _SUFFIXES[scale[1]]
    unit = second.unit if first.unit == "none" else first.unit
    return replace(first, value=value, unit=unit)
