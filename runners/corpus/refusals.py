"""Why a build is refused: no pair is left, junk beyond its share, benchmark questions in the pairs. Pure: facts in, the error or nothing out."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from runners.corpus.checks import FINDINGS
from runners.corpus.leaks import BenchmarkQuestions, Hit
from runners.errors import UserError

#: Reasons shown of many.
_SHOWN = 3


def counted(reasons: Mapping[str, int], shown: int = _SHOWN) -> str:
    """The most frequent reasons with their counts: "12 × the answer is empty, 3 × …"."""
    listed = [f"{count:,} × {reason}" for reason, count in sorted(reasons.items(), key=lambda item: (-item[1], item[0])) if count]
    return ", ".join(listed[:shown]) + (f" and {len(listed) - shown} more reasons" if len(listed) > shown else "")


def nothing_left(rejected: Mapping[str, int], dropped: Mapping[str, int], rejects: Path) -> UserError:
    """The error of a build that keeps no pair, with the reasons."""
    rows, pairs = sum(rejected.values()), sum(dropped.values())
    because = counted({**rejected, **{f"dropped: {name.replace('_', ' ')}": count for name, count in dropped.items()}})
    return UserError(
        f"no pair is left of {rows + pairs:,} rows: {because or 'the sources hold no rows'}",
        "at least one good pair",
        f"correct the rows, or name their columns with --field; every row with its reason is in {rejects}",
    )


def junk(kept: Mapping[str, Any], bounds: Mapping[str, float], report: Path) -> UserError | None:
    """The error of a build in which more pairs than allowed have a finding; None when it is clean enough."""
    pairs, found = kept["pairs"], kept["findings"]
    over = {name: found[name] for name in FINDINGS if name in bounds and found[name] > bounds[name] * pairs}
    if not over:
        return None
    names = ", ".join(f"{count:,} of {pairs:,} pairs ({100 * count / pairs:.1f} %) are {name} ({FINDINGS[name]})" for name, count in over.items())
    return UserError(
        names,
        ", ".join(f"at most {100 * bounds[name]:g} % {name}" for name in over),
        f"correct the sources, or pass --drop-junk to leave these pairs out, or raise data.refuse_beyond in the spec; see {report}",
    )


def leaked(cases: int, hit: Hit, benchmark: BenchmarkQuestions, report: Path) -> UserError:
    """The error of a build whose pairs hold benchmark questions; ``hit`` is an example."""
    example = f"case {benchmark.ids[hit.case]}: {benchmark.questions[hit.case]!r}"
    return UserError(
        f"{cases} of {len(benchmark.ids)} benchmark questions are in the training pairs, e.g. {example}",
        "none: a model that has seen the questions cannot be measured by them",
        f"elson data build --drop-leaks drops those pairs; see {report}",
    )
