"""Computed problems: pairs whose figures come from ``runners.finance``, with the steps shown.

``generate()`` is what ``elson data build`` calls for sources of kind ``problems``. Questions are written one by one (see ``problem_kinds/kind.py``), because
a template with another number teaches a model nothing and counts as a near-duplicate.
"""

from __future__ import annotations

from typing import Any

from runners.corpus.problem_kinds import credit, firm, household, investing, markets, ratios, retirement, tax, trading
from runners.corpus.problem_kinds.kind import Kind

KINDS: tuple[Kind, ...] = (
    *retirement.KINDS,
    *tax.KINDS,
    *investing.KINDS,
    *markets.KINDS,
    *trading.KINDS,
    *credit.KINDS,
    *household.KINDS,
    *firm.KINDS,
    *ratios.KINDS,
)


def generate(seed: int = 0) -> list[dict[str, Any]]:
    """All problems, in a fixed order.

    Args:
        seed: 0 gives the numbers as written; another seed moves amounts and rates by up to a tenth, the same seed always alike.

    Returns:
        Rows with id, question, answer, category, source, as_of, reference and kind.
    """
    return [row for kind in KINDS for row in kind.rows(seed)]
