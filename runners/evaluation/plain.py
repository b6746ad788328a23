"""An answer as plain text: markup, LaTeX, typography and hidden reasoning taken out, and where each character stood in the original.

``\\boxed{360}`` becomes a line ``Answer: 360``, because that is what it says. Left out: mathematics that has to be evaluated.
"""

from __future__ import annotations

import re
from collections.abc import Callable

_TYPOGRAPHY = {ord(a): b for a, b in zip("’‘ʼ“”\u00a0\u202f\u2009\u2011\u2010", "'''\"\"   --", strict=True)}
_Replacement = str | Callable[[re.Match[str]], str]
#: In this order, on the text the ones before have left.
_RULES: tuple[tuple[re.Pattern[str], _Replacement], ...] = tuple(
    (re.compile(pattern, re.DOTALL), replacement)
    for pattern, replacement in (
        (r"<think(?:ing)?>.*?(?:</think(?:ing)?>|\Z)", ""),
        (r"\$(?=[^$\n]*[=\\^])([^$\n]+)\$(?!\d)", lambda match: match[1]),
        (r"(?<=\d)\{,\}(?=\d)", ","),
        (r"(?<=\d)\\[,!;:](?=\d{3}(?!\d))", ","),
        (r"\\([$%&#_])", lambda match: match[1]),
        (r"\\(?:text|textbf|mathrm|mathbf|operatorname|mbox)\s*\{([^{}]*)\}", lambda match: match[1]),
        (r"\^\s*\{([^{}]*)\}", lambda match: f"^{match[1]}"),
        (r"\\[dt]?frac\s*\{([^{}]*)\}\s*\{([^{}]*)\}", lambda match: f"({match[1]}) / ({match[2]})"),
        (r"\\boxed\s*\{((?:[^{}]|\{[^{}]*\})*)\}", lambda match: f"\nAnswer: {match[1]}\n"),
        (r"\\(?:times|cdot)(?![a-zA-Z])", "×"),
        (r"\\(?:approx|simeq)(?![a-zA-Z])", "≈"),
        (r"\\(?:left|right|displaystyle)(?![a-zA-Z])", ""),
        (r"\\[a-zA-Z]+(?=[\s{}^_$(]|\d|$)|\\[\[\]()\\,;:! ]", " "),
        (r"[{}~_`]", " "),
        (r"(?<=\d)\s*\*\s*(?=[\d$(])", " × "),
        (r"\*+", ""),
    )
)


def plain(original: str) -> tuple[str, list[int]]:
    """(plain text, the place in the original of each of its characters and of its end)."""
    text, places = original.translate(_TYPOGRAPHY), list(range(len(original) + 1))
    for pattern, replacement in _RULES:
        if pattern.search(text):
            text, places = _replaced(pattern, replacement, text, places)
    return text, places


def _replaced(pattern: re.Pattern[str], replacement: _Replacement, text: str, places: list[int]) -> tuple[str, list[int]]:
    parts: list[str] = []
    kept: list[int] = []
    end = 0
    for match in pattern.finditer(text):
        new = replacement if isinstance(replacement, str) else replacement(match)
        parts += [text[end : match.start()], new]
        kept += places[end : match.start()]
        # What a group keeps lies where it lay; what is only put in lies at the match's beginning.
        inner = match.start(1) if match.re.groups == 1 and match[1] else match.start()
        lead = new.find(match[1]) if match.re.groups == 1 and match[1] else len(new)
        kept += [places[min(match.end() - 1, max(match.start(), inner + number - lead))] for number in range(len(new))]
        end = match.end()
    return "".join([*parts, text[end:]]), [*kept, *places[end:]]
