"""How the texts of computed problems show figures: formats by name, and places in a text that name a figure and its format.

``fill("{payment:usd} a month", {"payment": 355.5})`` gives ``$355.50 a month``. A place never holds an expression: what is shown has a name, which a
question's values or a formula of ``problem_formulas`` gave it.
"""

from __future__ import annotations

import re
import string
from collections.abc import Callable, Mapping
from typing import Any

#: What a formula returns: the name of each figure, and the figure (a number, a word or a yes-or-no).
Figures = dict[str, Any]


def fill(text: str, figures: Mapping[str, Any]) -> str:
    """The text with its places filled.

    A place is ``{name}`` (as it is), ``{name:usd}``, ``whole``, ``pct`` or ``num`` (each with a number of decimals, ``pct1``), ``{name:count month}``,
    a format of Python (``{name:.4f}``), or a choice: ``{name:?text if true|text if false}``, whose texts may hold places.

    Raises:
        KeyError: a name that no figure has.
    """
    return "".join(literal + (_place(name, spec or "", figures) if name is not None else "") for literal, name, spec, _ in string.Formatter().parse(text))


def _place(name: str, spec: str, figures: Mapping[str, Any]) -> str:
    value = figures[name]
    if spec.startswith("?"):
        yes, no = _sides(spec[1:])
        return fill(yes if value else no, figures)
    if spec.startswith("count "):
        return count(value, spec.removeprefix("count "))
    if known := re.fullmatch(r"(usd|whole|pct|num)(\d?)", spec):
        return FORMATS[known[1]](value, *([int(known[2])] if known[2] else []))
    return format(value, spec)


def _sides(choice: str) -> tuple[str, str]:
    """The two texts of a choice: split at the first bar outside every place."""
    depth = 0
    for at, char in enumerate(choice):
        depth += (char == "{") - (char == "}")
        if char == "|" and not depth:
            return choice[:at], choice[at + 1 :]
    raise ValueError(f"a choice needs two texts with a bar between them: {choice}")


def usd(amount: float, digits: int = 2) -> str:
    """$1,234.56, or -$1,234.56."""
    return f"{'-' if round(amount, digits) < 0 else ''}${abs(amount):,.{digits}f}"


def whole(amount: float) -> str:
    """$1,235: rounded to the dollar."""
    return usd(amount, 0)


def pct(fraction: float, digits: int = 2) -> str:
    """6.5%: at most ``digits`` decimals, trailing zeros dropped; a rate given to three places (6.875%) keeps them."""
    if digits == 2 and abs(round(fraction * 100, 3) - fraction * 100) < 1e-9:
        digits = 3
    text = f"{fraction * 100:,.{digits}f}"
    return f"{text.rstrip('0').rstrip('.') if '.' in text else text}%"


def num(value: float, digits: int = 2) -> str:
    """1,234.5: at most ``digits`` decimals, trailing zeros dropped."""
    text = f"{value:,.{digits}f}"
    return text.rstrip("0").rstrip(".") if "." in text else text


def count(value: float, noun: str) -> str:
    """1 year, 2 years."""
    return f"{num(value, 0)} {noun}{'' if round(value) == 1 else 's'}"


def as_given(value: Any, unit: str) -> str:
    """A value as the person who asks writes it: dollars with cents only when there are any."""
    if unit[0] == "$":
        return whole(value) if float(value).is_integer() else usd(value)
    if unit[0] == "%":
        return pct(value, 4)
    return str(value) if unit[0] == "s" else num(value, 4)


def sentence(text: str) -> str:
    """With a capital, and with the article that the figure behind it needs: "a 8-year" is "an 8-year"."""
    text = article(text)
    return text[0].upper() + text[1:]


def article(text: str) -> str:
    """The numbers are filled in after the words were written, so "a 8" may stand there."""
    return re.sub(r"\b([Aa]) (?=\$?(?:8|11\b|18\b))", r"\1n ", text)


FORMATS: dict[str, Callable[..., str]] = {"usd": usd, "whole": whole, "pct": pct, "num": num}
