"""Figures that change by the year: the answers' dollar amounts are compared with ``data/dated_limits.yaml``.

An answer's amounts are parsed once; only if the table has one of them its sentences are looked at: those with that amount, and of the limits only those that
have it. So text full of figures costs little more than text without any.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Self

from pydantic import Field, model_validator

from runners.corpus.pairs import Pair
from runners.corpus.words import plain, words
from runners.fields import Strict

#: A sentence loses its last mark: a pattern that begins with it is found twice as fast as one that looks back at it.
_SENTENCE_END = re.compile(r"[.!?;]\s+|\n")
#: On one line, so that it stands in one sentence.
_AMOUNT = re.compile(r"\$[^\S\n]?(\d[\d,]*(?:\.\d+)?)[^\S\n]*(million|billion|[MBK]\b)?")
_YEAR = re.compile(r"\b20\d\d\b")
_SCALES = {"million": 1e6, "M": 1e6, "billion": 1e9, "B": 1e9, "K": 1e3}
Source = Annotated[str, Field(min_length=1)]


class Limit(Strict):
    """A figure that changes by the year. ``names``: wordings, each of words all of which must stand near each other; ``values``: year -> figure.

    ``source``: the page that has the figures of all years, or year -> document where each year's is another.
    """

    id: str
    names: tuple[str, ...] = Field(min_length=1)
    not_names: tuple[str, ...] = ()
    values: dict[int, float] = Field(min_length=1)
    source: Source | dict[int, Source]

    @model_validator(mode="after")
    def _each_year_has_its_source(self) -> Self:
        if isinstance(self.source, dict) and (other := sorted(self.source.keys() ^ self.values.keys())):
            raise ValueError(f"source and values of {self.id} differ in {', '.join(map(str, other))}: each year of values needs its source, and no other")
        return self


class DatedLimits(Strict):
    """The dated table."""

    version: int = Field(1, ge=1, le=1)
    checked: str
    limits: tuple[Limit, ...]


@dataclass(frozen=True)
class _Ready:
    """A limit as it is compared: its wordings as sets of words, and for each figure the years whose figure it is."""

    names: tuple[frozenset[str], ...]
    not_names: tuple[frozenset[str], ...]
    years_of: dict[float, frozenset[int]]
    years: frozenset[int]
    newest: float


class LimitIndex:
    """The table, ready for many answers."""

    def __init__(self, limits: Sequence[Limit]) -> None:
        self._by_amount: dict[float, list[_Ready]] = {}
        for limit in limits:
            ready = _ready(limit)
            for amount in ready.years_of:
                self._by_amount.setdefault(amount, []).append(ready)

    def findings(self, pair: Pair) -> dict[str, bool]:
        """``stale``: an earlier year's figure with no year beside it. ``wrong_limit``: a figure in one sentence with a year whose figure is another."""
        if "$" not in pair.answer or not (known_figures := {figure for figure, amount in _amounts(pair.answer) if amount in self._by_amount}):
            return {}
        stale = wrong = False
        asked: frozenset[str] | None = None
        for sentence in _SENTENCE_END.split(pair.answer):
            if not any(figure in sentence for figure in known_figures):
                continue
            amounts = {amount for _, amount in _amounts(sentence) if amount in self._by_amount}
            asked = frozenset(words(pair.asked)) if asked is None else asked
            said, years = frozenset(words(sentence)), {int(year) for year in _YEAR.findall(sentence)}
            for limit in {id(one): one for amount in amounts for one in self._by_amount[amount]}.values():
                if not _speaks_of(limit, asked, said):
                    continue
                known = [amount for amount in amounts if amount in limit.years_of]
                if years and len(known) == 1 and len(years) == 1:
                    year = next(iter(years))
                    wrong |= year in limit.years and year not in limit.years_of[known[0]]
                elif not years and limit.newest not in known:
                    around = {int(year) for year in _YEAR.findall(f"{pair.asked}\n{pair.answer}")} | {pair.extra.get("as_of")}
                    stale |= not any(limit.years_of[amount] & around for amount in known)
        return {"stale": stale, "wrong_limit": wrong}


def _ready(limit: Limit) -> _Ready:
    return _Ready(
        tuple(_sets(limit.names)),
        tuple(_sets(limit.not_names)),
        {value: frozenset(year for year, other in limit.values.items() if other == value) for value in limit.values.values()},
        frozenset(limit.values),
        limit.values[max(limit.values)],
    )


def _sets(names: Iterable[str]) -> Iterable[frozenset[str]]:
    return (frozenset(plain(name).split()) for name in names)


def _speaks_of(limit: _Ready, asked: frozenset[str], said: frozenset[str]) -> bool:
    """Whether the question and the sentence together speak of the limit, and the sentence alone of no rival."""
    if any(name <= said for name in limit.not_names):
        return False
    context = asked | said
    return any(name <= context for name in limit.names)


def _amounts(text: str) -> list[tuple[str, float]]:
    """(figure as written, dollars) of each amount: $23,500; $13.61 million."""
    return [(figure, round(float(figure.replace(",", "")) * _SCALES.get(scale, 1), 2)) for figure, scale in _AMOUNT.findall(text)]


def load(file: Path) -> tuple[Limit, ...]:
    """Read the dated table; an absent file is an empty one. Raises UserError naming the bad key."""
    if not file.exists():
        return ()
    return DatedLimits.from_yaml(file, "the form of data/dated_limits.yaml", text_keys=False).limits
