"""How far the run of a log is: the stage that began last, what moves in it, and the time that is left. A pure function of the log's lines."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from typing import Any

from runners.pages import page


@dataclass(frozen=True)
class Position:
    """``stage`` is ``3 of 9: train``; ``what`` moves, ``done`` of ``total``; a wait has no total, only the seconds that it has taken."""

    stage: str = ""
    what: str = ""
    done: float | None = None
    total: float | None = None
    unit: str = ""
    elapsed_s: float | None = None

    @property
    def left_s(self) -> float | None:
        """Seconds until ``what`` is done, at the speed so far."""
        if not (self.done and self.total and self.elapsed_s is not None):
            return None
        return max(0.0, self.elapsed_s / self.done * (self.total - self.done))

    @property
    def share(self) -> str:
        """``10 of 30 steps``, or for how long it has waited."""
        if self.total is None or self.done is None:
            return f"for {page.duration(self.elapsed_s)}" if self.elapsed_s is not None else ""
        return f"{self.done:g} of {self.total:g} {self.unit}".strip()

    @property
    def left(self) -> str:
        """``about 2 min 05 s left``; empty where nobody can know."""
        left = self.left_s
        return "" if left is None else f"about {page.duration(left)} left" if left else "done"

    def to_json(self) -> dict[str, Any]:
        """Plain data."""
        return {**asdict(self), "left_s": self.left_s}


def position(rows: Sequence[dict[str, Any]]) -> Position:
    """Where the run is. ``rows`` are lines of its log, each with a ``message``."""
    begins = [place for place, row in enumerate(rows) if row["message"].startswith("stage ")]
    stage = rows[begins[-1]]["message"].removeprefix("stage ") if begins else ""
    moving = next((row for row in reversed(rows[begins[-1] :] if begins else rows) if "done" in row), None)
    if moving is None:
        return Position(stage)
    done, total, elapsed_s = (_number(moving.get(name)) for name in ("done", "total", "elapsed_s"))
    return Position(stage, moving["message"], done, total, str(moving.get("unit", "")), elapsed_s)


def _number(value: Any) -> float | None:
    if isinstance(value, bool) or not isinstance(value, int | float) or abs(value) > 1e15 or math.isnan(value):
        return None
    return float(value)
