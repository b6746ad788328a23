"""Holds what a model wrote of a document against the document: the reason why a pair says more than the text it quotes, or nothing. Pure.

A sentence names the words it rests on. They must be in the text; and every figure, date, name, negation and comparison of the sentence must be in them, a
name at least in a heading above them. Left out: whether the text is right, and whether a sentence that only joins what its quotes say joins it rightly: a
second reading by the model judges that.
"""

from __future__ import annotations

import functools
import re
import unicodedata
from collections.abc import Iterable, Sequence
from pathlib import Path

import yaml

#: Least share of a sentence's content words that are in its quotes or the headings, and of a question's that are in the text.
SUPPORTED, ASKED = 0.6, 0.5
_LEAST_QUOTE_WORDS = 3
_LISTS = yaml.safe_load((Path(__file__).parent / "grounding.yaml").read_text())
_NUMBERS, _UNITS, _SIZES = _LISTS["numbers"], _LISTS["units"], _LISTS["sizes"]
_FRACTIONS, _EMPTY = (frozenset(_LISTS[name].split()) for name in ("fractions", "empty"))
_NEGATION, _DENIAL, _EXCEPTION, _CONDITION, _MUST, _MAY = (
    re.compile(_LISTS[name], re.IGNORECASE) for name in ("negation", "denial", "exception", "condition", "must", "may")
)
_BOUNDS = tuple((re.compile(pattern, re.IGNORECASE), name) for name, pattern in _LISTS["bounds"].items())
_COMPARISONS = tuple((re.compile(rf"\b(?:{said})\b", re.IGNORECASE), re.compile(rf"\b(?:{held})\b", re.IGNORECASE)) for said, held in _LISTS["comparisons"])
_MARKS = str.maketrans("‘’‚′“”„″–—‐‑−\xa0", "''''\"\"\"\"----- ")
_WORD = re.compile(r"[^\W_]+(?:'[^\W_]+)?")
#: Endings, so that "deductible" is "deduction" and "taxed" is "taxable".
_ENDING = re.compile(
    r"(?<=\w{3})(?:izations?|ations?|itions?|ments?|ables?|ibles?|ably|ibly|ions?|ings?|ances?|ences?|ied|ies|ers?|ors?|ed|es|'s|ly|ally|al|s|e|y)\Z"
)
#: A figure with what makes it another one: its currency, per cent, and the word for its size.
_FIGURE = re.compile(
    r"(?P<before>[$€£¥₹]|\b(?:usd|eur|gbp|inr|rs)\b\.?)?\s?(?<![\d.,])(?P<number>\d[\d,]*(?:\.\d+)?|\.\d+)"
    r"(?:\s?(?P<size>thousand|million|billion|trillion|lakhs?|crores?|bn|[kmb])(?!\w))?"
    r"(?:\s?-?(?P<after>%|(?:percent|per cent|percentage point|basis point|dollar|euro|pound|cent|day|week|month|year|hour|share)s?\b))?",
    re.IGNORECASE,
)
_ONE = re.compile(r"\bone[ -](?:year|month|week|day|hour|per ?cent|half|third|quarter|hundred|thousand|million)")
_MONTHS = ("January", "February", "March", "April", "May", "June", "July", "August", "September", "October", "November", "December")
#: A month is one beside a number or at the end of a phrase: "may" is a verb, "march" too.
_MONTH = re.compile(
    r"\b(Jan|Feb|Mar|Apr|May|Jun|Jul|Aug|Sep|Oct|Nov|Dec)[a-z]{0,6}\b(?=\.? \d)|(?<=\d )(Jan|Feb|Mar|Apr|May|Jun|Jul|Aug|Sep|Oct|Nov|Dec)[a-z]{0,6}\b"
)
_NAME = re.compile(r"(?<![\w'])(?:[A-Z][\w&]*[A-Za-z]|[a-z]+[A-Z]\w*|\d+[A-Z]\w*)")
#: A word that is a month wherever it stands with a capital.
_ONLY_MONTHS = re.compile(r"\b(?:January|February|April|June|July|August|September|October|November|December)\b")
#: Where a sentence ends inside a block, and where a block does: an empty line, or the next item, row or heading.
_ENDS = re.compile(r"[.!?][\"')\]]*\s+(?=[A-Z\"'(\[$€£\d-])")
_BLOCK = re.compile(r"\n\s*\n|\n(?=\s*(?:[-*|#>]|\d+[.)]\s))")
#: Endings that names seldom have: "Investors", "Saving", "Generally".
_COMMON = re.compile(r"(?:s|ing|ly|ed|one|body)\Z")
#: A "yes" or a "no" that answers by itself, and not "no tax" or "form No. 5"; after a question perhaps behind the mark of an answer.
_YES_NO = r"(yes|no)\b(?=\s*[,;:!]|\s+-|\s*\Z|\.(?!\s*\d))"
_ANSWERED = re.compile(rf"(?:\A|[.!?:]\s+){_YES_NO}", re.IGNORECASE)
_REPLIED = re.compile(rf"([^.!?]+\?)\s*(?:[-*>]\s+)?(?:A(?:nswer)?\s?[:.]\s*)?{_YES_NO}", re.IGNORECASE)
_WHETHER = re.compile(
    r"(?:am|is|are|was|were|do|does|did|can|could|may|might|must|should|shall|will|would|has|have|had)(?!n't)\b(?!.*\b(?:all|any|every|each|only|always|both|or)\b).*\?\Z",
    re.IGNORECASE,
)
_SENTENCE_END = re.compile(r"(?:\A|[.!?:]\s+|\n\s*(?:[-*]\s+)?|[\"(]\s*)\Z")


def flat(text: str) -> str:
    """A text on one line, with plain quotation marks and dashes: what "verbatim" compares."""
    return re.sub(r"\s+", " ", unicodedata.normalize("NFKC", text).translate(_MARKS)).strip()


def place(quote: str, shown: str) -> int:
    """Where a flat quote stands in a flat text as whole words and whole figures, or -1: "able to pay" is not in "unable to pay", "7,000" not in "17,000"."""
    begins = r"(?<![\w-])(?<!\d[.,])" if quote[:1].isalnum() else ""
    ends = r"(?!\w)(?![.,]\d)(?!\s?%)" if quote[-1:].isalnum() else ""
    found = re.search(begins + re.escape(quote) + ends, shown)
    return found.start() if found else -1


def whole(quote: str, text: str) -> str:
    """The sentences of a text that a quote is part of, on one line; a quote of a table, or one that is not there, as it is."""
    wanted, blocks = flat(quote), [line for block in _BLOCK.split(text) if (line := flat(block))]
    shown = " ".join(blocks)
    start = place(wanted, shown)
    if start < 0 or "|" in wanted:
        return wanted
    end, edges, at = start + len(wanted), [0], 0
    for block in blocks:
        edges.append(at := at + len(block) + 1)
    # The last character may end its sentence already.
    stops = sorted({*edges, *(match.end() for match in _ENDS.finditer(shown))})
    return shown[max(edge for edge in stops if edge <= start) : min((edge for edge in stops if edge >= end), default=len(shown))].strip()


def why_not(question: str, sentences: Sequence[tuple[str, Sequence[str]]], text: str, headings: Sequence[str]) -> str:
    """Why a pair says more than its document, or an empty text.

    Args:
        question: as the model wrote it.
        sentences: (sentence, its quotes) of the answer.
        text: what the model was shown.
        headings: the document's name and the headings above the text; names may come from them.
    """
    above, shown = " . ".join(map(flat, headings)), flat(text)
    for sentence, quotes in sentences:
        around = " . ".join(whole(quote, text) for quote in quotes)
        if reason := _unsupported(flat(sentence), [flat(quote) for quote in quotes], around, shown, above):
            return reason
    return _unasked(flat(question), shown, above) or _turned(flat(question), flat(sentences[0][0]))


def _unsupported(sentence: str, quotes: Sequence[str], around: str, shown: str, above: str) -> str:
    if not quotes:
        return "a sentence quotes nothing"
    for quote in quotes:
        if len(_WORD.findall(quote)) < _LEAST_QUOTE_WORDS:
            return "a quote has fewer than three words"
        if quote not in shown:
            return "a quote is not in the document"
        if place(quote, shown) < 0:
            return "a quote begins or ends inside a word or a figure"
    quoted = " . ".join(quotes)
    replies = [reply for quote in quotes for reply in _replies(quote, shown)]
    refused = [asked for asked, reply in replies if reply == "no"]
    return (
        _invented(sentence, quoted, "its quote")
        or _unnamed(sentence, f"{quoted} . {above}", "its quote", shown)
        # What a quote leaves out of its sentence may turn it round; what a question is answered "no" is denied.
        or _negated(_bounded(sentence), _bounded(" . not ".join([around, *refused]) if _NEGATION.search(sentence) else around))
        or _contradicted(sentence, around, replies)
        or _compared(_bounded(sentence), _bounded(quoted))
        or _foreign(sentence, f"{quoted} . {above}", SUPPORTED, "a sentence's words are in the text it quotes")
    )


def _unasked(question: str, shown: str, above: str) -> str:
    """What a question presumes must be in the text too."""
    known = f"{shown} . {above}"
    return (
        _invented(question, known, "the document")
        or _unnamed(question, known, "the document")
        or _foreign(question, known, ASKED, "the question's words are in the document")
    )


def figures(text: str) -> set[tuple[str, str, str]]:
    """(number, size, unit) of every figure, also of those in words: "$5 million", "five", "50 percent", "half"."""
    found = set[tuple[str, str, str]]()
    for match in _FIGURE.finditer(text):
        number = match["number"].replace(",", "")
        number = number.rstrip("0").rstrip(".") if "." in number else number.lstrip("0") or "0"
        size, unit = (match["size"] or "").lower(), (match["before"] or match["after"] or "").lower().rstrip(".")
        number = f"0{number}" if number.startswith(".") else number
        found.add((number, _SIZES.get(size, size), _UNITS.get(unit) or _UNITS.get(unit.removesuffix("s")) or unit.removesuffix("s")))
    for word in _WORD.findall(text.lower()):
        if word in _NUMBERS or word in _FRACTIONS:
            found.add((_NUMBERS.get(word, word), "", ""))
    return found | ({("1", "", "")} if _ONE.search(text.lower()) else set())


def _invented(said: str, known: str, where: str) -> str:
    """A figure or a month that is not there, or is there with another unit."""
    have = figures(known)
    signs = {"year"} | {unit for _, _, unit in have} | {_UNITS[sign] for sign in _UNITS if not sign.isalpha() and sign in known}
    for number, size, unit in sorted(figures(said)):
        # A table has the unit in its head; a sentence may leave out a unit, and not change it.
        same = (number, size, unit) in have or ((number, size, "") in have and unit in signs)
        if not (same or (not unit and any((number, size) == other[:2] for other in have))):
            return f"the figure {' '.join(filter(None, (number, size, unit)))} is not in {where}"
    missing = _months(said) - {month for month in _MONTHS if re.search(rf"\b{month[:3]}", known, re.IGNORECASE)}
    return f"the date {min(missing)} is not in {where}" if missing else ""


def _months(text: str) -> set[str]:
    dated = {month for match in _MONTH.finditer(text) for month in _MONTHS if month.startswith(match[1] or match[2])}
    return dated | set(_ONLY_MONTHS.findall(text))


def _unnamed(said: str, known: str, where: str, shown: str = "") -> str:
    """A name that is not there: a word with a capital inside a sentence, or at its beginning if all of the document has no such word."""
    have = set(_WORD.findall(known.lower()))
    stems = set(map(_stem, have))
    for match in _NAME.finditer(said):
        word = match.group()
        plain = word.lower().replace("&", "")
        if plain in _EMPTY or plain in have or _stem(plain) in stems or word.upper() in _initials(known) or word in _MONTHS:
            continue
        begins = bool(_SENTENCE_END.search(said[: match.start()])) and not re.search(r"\w[A-Z]", word) and not re.match(r" [A-Z]", said[match.end() :])
        if not begins or not (_COMMON.search(plain) or _stem(plain) in set(map(_stem, _WORD.findall(shown.lower())))):
            return f"the name {word} is not in {where}"
    return ""


@functools.lru_cache(256)
def _initials(known: str) -> str:
    """First letters of all words, so that an abbreviation is found in what it abbreviates."""
    return "".join(word[0] for word in _WORD.findall(known)).upper()


def _bounded(text: str) -> str:
    for pattern, name in _BOUNDS:
        text = pattern.sub(name, text)
    return text


def _negated(said: str, quoted: str) -> str:
    """A negation or an exception that is added, dropped, or put to other words than in the quotes."""
    mine, theirs = _denied(said), _denied(quoted)
    if mine and not (theirs or _DENIAL.search(quoted)):
        return "a sentence denies what its quote does not"
    if mine and theirs and not any(set(one) & set(other) for one in mine for other in theirs):
        return "a sentence denies other words than its quote"
    if mine or _DENIAL.search(said):
        return ""
    words = {_stem(word) for word in _WORD.findall(said.lower())}
    if dropped := next((near[0] for near in theirs if words & set(near[:2])), ""):
        return f"a sentence drops the negation of its quote (not {dropped})"
    return "a sentence drops the exception of its quote" if _EXCEPTION.search(quoted) and not _CONDITION.search(said) else ""


def _denied(text: str) -> list[list[str]]:
    """For each negation, the stems of the next content words of its clause."""
    found = list[list[str]]()
    for match in _NEGATION.finditer(text):
        clause = re.split(r"[.,;:()]|\b(?:but|unless|because|although|if)\b", text[match.end() :], maxsplit=1)[0]
        if clause.startswith(" only"):
            continue
        near = [_stem(word) for word in _WORD.findall(clause.lower()) if word not in _EMPTY][:5]
        if near:
            found.append(near)
    return found


def _replies(quote: str, shown: str) -> list[tuple[str, str]]:
    """(question, "yes" or "no") of each question in a flat quote that the text answers so, in the quote or right behind it."""
    start = place(quote, shown)
    return [(asked.strip(), reply.lower()) for asked, reply in _REPLIED.findall(f"{quote}{shown[start + len(quote) :][:20]}" if quote.endswith("?") else quote)]


def _contradicted(said: str, quoted: str, replies: Sequence[tuple[str, str]]) -> str:
    """A "yes" for a "no" or the reverse; or a sentence that asserts what its quote asks and the text answers "no"."""
    mine, theirs = ({word.lower() for word in _ANSWERED.findall(text)} for text in (said, quoted))
    theirs |= {reply for _, reply in replies}
    for one, other in (("yes", "no"), ("no", "yes")):
        if one in mine and theirs == {other}:
            return f"a sentence says {one!r} where its quote says {other!r}"
    denies = "no" in mine or _NEGATION.search(said) or _DENIAL.search(said)
    dropped = any(reply == "no" and _content(asked) <= _content(said) for asked, reply in replies)
    return "a sentence drops the 'no' of its quote" if dropped and not denies else ""


def _turned(question: str, first: str) -> str:
    """Whether the first sentence of an answer says "yes" and denies what was asked, or "no" and asserts it. Left out: questions that deny, or ask how many."""
    lead = _ANSWERED.match(first)
    if not lead or not _WHETHER.match(question) or _NEGATION.search(question) or _DENIAL.search(question):
        return ""
    said = first[lead.end() :]
    asked, stems = _content(question), _content(said)
    if lead[1].lower() == "yes":
        denies = any(asked & set(near[:2]) for near in _denied(_bounded(said)))
        return "the answer says 'yes' and then denies what is asked" if denies else ""
    denies = bool(_NEGATION.search(said) or _DENIAL.search(said) or _CONDITION.search(said))
    return "the answer says 'no' and then what is asked" if asked <= stems and figures(question) <= figures(said) and not denies else ""


def _compared(said: str, quoted: str) -> str:
    """A comparison, a bound or an obligation that the quotes do not have."""
    for mine, theirs in _COMPARISONS:
        if (match := mine.search(said)) and not theirs.search(quoted):
            return f"a sentence says {match.group().lower().replace('_', ' ')!r} and its quote does not"
    if _MUST.search(said) and _MAY.search(quoted) and not (_MUST.search(quoted) or _MAY.search(said) or _NEGATION.search(said)):
        return "a sentence says 'must' where its quote says 'may'"
    return ""


def _foreign(said: str, known: str, least: float, what: str) -> str:
    content = [stem for word in _WORD.findall(said.lower()) if word not in _EMPTY and (stem := _stem(word))]
    have = {_stem(word) for word in _WORD.findall(known.lower())}
    if not content:
        return "a sentence says nothing" if least == SUPPORTED else "the question asks nothing"
    share = sum(stem in have for stem in content) / len(content)
    return f"only {100 * share:.0f} % of {what}" if share < least else ""


def _content(text: str) -> set[str]:
    """The stems of the words that carry a claim."""
    return {_stem(word) for word in _WORD.findall(text.lower()) if word not in _EMPTY}


@functools.lru_cache(20_000)
def _stem(word: str) -> str:
    """A word without its ending, so that "deductible" is "deduction"; a number as it is."""
    return _ENDING.sub("", word, count=1)


def place_of(quotes: Iterable[str], texts: Sequence[str]) -> int:
    """The first of some texts that holds the first of the quotes that is in any; 0 when they only hold it together."""
    flats = [flat(text) for text in texts]
    return next((place for quote in quotes for place, text in enumerate(flats) if flat(quote) in text), 0)
