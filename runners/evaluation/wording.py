"""Whether a text says something, in given words or inflected forms of them, and whether it asserts it or denies it.

Words are compared by stem, without articles and light prepositions, in order, within one sentence, with up to two other words
in between; numbers are compared as quantities ("25 times expenses" is "25x expenses"). This is a reading of words, not of
meaning: a fact needs every wording that a right answer may use. Left out on purpose: synonyms and embeddings, which would let
"bonds rise when rates rise" pass for its opposite.
"""

from __future__ import annotations

import re
from bisect import bisect_right
from dataclasses import dataclass
from functools import lru_cache

from runners.evaluation.lists import words
from runners.evaluation.numbers import Quantity, quantities
from runners.evaluation.plain import plain

#: Words that carry no claim; "not" is never one of them, nor are directions such as "over" and "under".
_LIGHT = words("light")
NEGATIONS = frozenset(["not", "never", "no", "nobody", "nothing", "without", "nor", "neither", "none", "hardly", "isnt", "instead"])
#: A negation followed by one of these denies something else ("not only", "no more than", "no doubt that").
_NOT_A_DENIAL = words("not_a_denial")
#: Claims within the reach of these are reported, not made ("it is a myth that bonds are safe").
_DISCLAIMERS = frozenset(["myth", "misconception", "false", "wrong", "incorrect", "untrue", "mistake", "mistaken", "incorrectly", "falsely", "mistakenly"])
_UNSURE = re.compile(
    r"\b(?:(?:am|are|'m|is)?\s*(?:not|n't)\s+(?:\w+\s+)?(?:sure|certain)"
    r"|(?:do not|don't|cannot|can't|can not)\s+(?:\w+\s+)?(?:know|recall|remember|confirm|verify)|no idea)\b",
    re.IGNORECASE,
)
#: What follows one of these is somebody's claim that the answer does not share.
_DISOWNED = re.compile(
    r"\b(?:nobody|no one|none|cannot|can't|can not|don't|not|won't)\s+(?:\w+\s+){0,2}?(?:promise|guarantee|say|claim|confirm|predict|know|tell)\b[^,;:]*$",
    re.IGNORECASE,
)
_TOKEN = re.compile(r"\d{3}\s?\(?[a-z]\)?(?![a-z])(?:\(\w\))?|[a-z0-9]+(?:'[a-z]+)?", re.IGNORECASE)
_SENTENCE_END = re.compile(
    r"(?<!\b[A-Z])(?<!\be\.g)(?<!\bi\.e)(?<!\bvs)(?<!\bMr)(?<!\bMs)(?<!\bDr)(?<!\bNo(?=\.\s\d))[.!?]+[\"')\]]*(?=\s|$)|\n\s*\n|\n(?=\s*(?:[-*•#|>]|\d+[.)]|[A-Z]))|;"
)
_CLAUSE_END = re.compile(r"[,:()–—]|\s-\s|\b(?:but|however|although|though|whereas|while|yet|because|since)\b", re.IGNORECASE)
_LOOK_BACK = 4
_GAP = 2


@dataclass(frozen=True)
class Token:
    """A word (by stem) or a quantity, where it is, and in which sentence and clause."""

    key: str
    start: int
    end: int
    sentence: int
    clause: int
    light: bool


@dataclass(frozen=True)
class Mention:
    """A place where a text has the words; ``denied`` says why it does not count as a claim, or is empty."""

    start: int
    end: int
    denied: str = ""


class Text:
    """A text that was taken apart once, to be searched many times. Offsets are those of ``plain``; ``place`` and ``quote`` lead back to the original."""

    def __init__(self, original: str) -> None:
        self.original = original
        self.plain, self._places = plain(original)
        self.quantities = quantities(self.plain)
        self._sentences = [match.start() for match in _SENTENCE_END.finditer(self.plain)]
        self._clauses = [match.start() for match in _CLAUSE_END.finditer(self.plain)]
        self.tokens = _tokens(self.plain, self.quantities, self._sentences, self._clauses)

    def place(self, start: int, end: int) -> tuple[int, int]:
        """Where a stretch of the plain text stands in the original."""
        return self._places[start], self._places[end - 1] + 1 if end > start else self._places[start]

    def quote(self, start: int, end: int) -> str:
        """A stretch of the plain text as the original has it, in quotes."""
        first, last = self.place(start, end)
        return f"“{self.original[first:last].strip()}”"

    def bounds(self, position: int) -> tuple[int, int]:
        """Beginning and end of the sentence around a position, with its closing mark."""
        index = bisect_right(self._sentences, position)
        start = self._sentences[index - 1] + 1 if index else 0
        return start, self._sentences[index] + 1 if index < len(self._sentences) else len(self.plain)

    def sentence(self, position: int) -> str:
        """The sentence around a position, with its closing mark."""
        start, end = self.bounds(position)
        return self.plain[start:end]

    def not_asserted(self, position: int) -> str:
        """Why nothing in the sentence around a position is a claim, or an empty text."""
        sentence = self.sentence(position).strip()
        if sentence.endswith("?"):
            return "is part of a question"
        return "the answer says it is not sure" if _UNSURE.search(sentence) else ""

    def mentions(self, wording: str) -> list[Mention]:
        """All places that have the words of ``wording``, denied ones included. ``...`` in a wording matches up to eight words."""
        parts = [_wording(part) for part in re.split(r"\.\.\.|…", wording) if part.strip()]
        found = []
        for first in range(len(self.tokens)):
            last = self._match(first, parts)
            if last is not None:
                found.append(Mention(self.tokens[first].start, self.tokens[last].end, self._denied(first, last, parts)))
        return found

    def _match(self, first: int, parts: list[list[str]]) -> int | None:
        """Index of the last token of a match that begins at token ``first``."""
        position: int | None = None
        for number, part in enumerate(parts):
            for place, key in enumerate(part):
                gap = 0 if position is None else 8 if place == 0 and number else _GAP
                position = self._next(first if position is None else position + 1, key, gap, self.tokens[first].sentence, NEGATIONS.isdisjoint(part))
                if position is None:
                    return None
        return position

    def _next(self, start: int, key: str, gap: int, sentence: int, stops_at_negation: bool) -> int | None:
        passed = 0
        for index in range(start, len(self.tokens)):
            token = self.tokens[index]
            if token.sentence != sentence:
                return None
            if _same(token.key, key):
                return index
            if token.key in NEGATIONS and stops_at_negation:
                return None
            if token.key.startswith("#") and key.startswith("#"):
                return None  # another figure is no filler: "pays $1,500 * $6,000" is not "pays $6,000"
            if not token.light or gap == 0:
                passed += 1
                if passed > gap:
                    return None
        return None

    def _denied(self, first: int, last: int, parts: list[list[str]]) -> str:
        if reason := self.not_asserted(self.tokens[first].start):
            return reason
        # A wording with its own negation ("cannot be predicted") is matched with it; "not never" is nobody's style.
        if any(not NEGATIONS.isdisjoint(part) for part in parts):
            return ""
        before = [token for token in self.tokens[max(0, first - 2 * _LOOK_BACK) : first] if token.sentence == self.tokens[first].sentence]
        near = [token for token in before[-_LOOK_BACK:] if token.clause == self.tokens[first].clause]
        following = [*near, self.tokens[first]][1:]
        denials = sum(token.key in NEGATIONS and after.key not in _NOT_A_DENIAL for token, after in zip(near, following, strict=True))
        if denials % 2:
            return "is denied"
        if before and _DISOWNED.search(self.plain[before[0].start : self.tokens[first].start]):
            return "is denied"
        if any(token.key in _DISCLAIMERS for token in before[-6:]) and not any(token.key in NEGATIONS for token in before[-8:]):
            return "is called wrong"
        after_match = [token for token in self.tokens[last + 1 : last + 6] if token.sentence == self.tokens[last].sentence]
        if any(token.key in _DISCLAIMERS for token in after_match) and not any(token.key in NEGATIONS for token in after_match):
            return "is called wrong"
        return ""


@lru_cache(maxsize=4096)
def stem(word: str) -> str:
    """A rough stem: plural, -ing, -ed, -ly and a final e go; -ise is -ize. Both sides are cut alike, so odd stems do no harm."""
    if len(word) <= 3 or not word.isalpha():
        return word
    if word.endswith("ies") and len(word) > 4:
        word = word[:-3] + "y"
    elif word.endswith(("sses", "shes", "ches", "xes", "zes")):
        word = word[:-2]
    elif word.endswith("s") and not word.endswith(("ss", "us", "is")):
        word = word[:-1]
    word = re.sub(r"isation", "ization", word)
    word = re.sub(r"is(e|ed|es|ing)$", r"iz\1", word) if len(word) > 5 else word
    for ending, least in (("ing", 6), ("ed", 5), ("ly", 6)):
        if word.endswith(ending) and len(word) >= least:
            word = word[: -len(ending)]
            if len(word) > 3 and word[-1] == word[-2] and word[-1] not in "lsz":
                word = word[:-1]
            break
    if word.endswith("i") and len(word) > 3:
        word = word[:-1] + "y"
    return word[:-1] if word.endswith("e") and len(word) > 3 else word


def stems(said: str, without: frozenset[str] = frozenset(), least: int = 3) -> set[str]:
    """The stems of the words of at least so many letters, but for some words."""
    return {stem(word) for word in re.findall(rf"[a-z]{{{least},}}", said.lower()) if word not in without}


def _tokens(text: str, found: list[Quantity], sentences: list[int], clauses: list[int]) -> list[Token]:
    tokens: list[Token] = []

    def add(key: str, start: int, end: int, light: bool = False) -> None:
        tokens.append(Token(key, start, end, bisect_right(sentences, start), bisect_right(clauses, start), light))

    def add_words(start: int, end: int) -> None:
        for match in _TOKEN.finditer(text, start, end):
            for key in _keys(match[0]):
                add(key, match.start(), match.end(), key in _LIGHT)

    position = 0
    for quantity in found:
        add_words(position, quantity.start)
        add(_quantity_key(quantity), quantity.start, quantity.end)
        position = quantity.end
    add_words(position, len(text))
    return tokens


def _keys(word: str) -> list[str]:
    """The stems of a word: contractions are taken apart, a negation comes out as "not"."""
    word = word.lower()
    if word in ("cannot", "can't"):
        return ["can", "not"]
    if word == "won't":
        return ["will", "not"]
    if word.endswith("n't"):
        return [stem(word[:-3]), "not"]
    if "'" in word:
        word = word.split("'")[0]
    if re.match(r"\d{3}\s?\(?[a-z]", word):
        word = re.sub(r"[\s()]", "", word)
    return [word if word in _LIGHT else "no" if word == "none" else stem(word)]


def _quantity_key(quantity: Quantity) -> str:
    return f"#{quantity.value:.6g} {quantity.unit}"


def _same(found: str, wanted: str) -> bool:
    """Equal stems, or equal quantities of which one may lack its unit."""
    if found == wanted:
        return True
    if not (found.startswith("#") and wanted.startswith("#")):
        return False
    (found_value, found_unit), (wanted_value, wanted_unit) = found.split(" "), wanted.split(" ")
    return found_value == wanted_value and "none" in (found_unit, wanted_unit)


@lru_cache(maxsize=4096)
def _cached_wording(wording: str) -> tuple[str, ...]:
    text, _ = plain(wording)
    tokens = _tokens(text, quantities(text), [], [])
    return tuple(token.key for token in tokens if not token.light) or tuple(token.key for token in tokens)


def _wording(wording: str) -> list[str]:
    return list(_cached_wording(wording))
