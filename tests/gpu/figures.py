"""The table of the suite: what was measured beside what the planner says, and which figures are too far off."""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path

#: A figure that is further from the plan than this fails the suite.
TOLERANCE = 0.15


@dataclass(frozen=True)
class Figure:
    """One measured value. ``planned`` is the planner's, or None where the planner says nothing of it."""

    name: str
    measured: float
    unit: str
    planned: float | None = None
    note: str = ""
    held: bool = True

    @property
    def off(self) -> float | None:
        """Measured over planned, minus 1."""
        return None if not self.planned else self.measured / self.planned - 1

    @property
    def wrong(self) -> bool:
        """Whether the figure is held to the plan and too far from it."""
        return self.held and self.off is not None and abs(self.off) > TOLERANCE


@dataclass
class Table:
    """Figures in the order they were measured."""

    title: str = ""
    figures: list[Figure] = field(default_factory=list)
    #: Written after each figure, so that a run that is cut off leaves what it measured.
    file: Path | None = None

    def add(self, name: str, measured: float, unit: str, planned: float | None = None, note: str = "", *, held: bool = True) -> None:
        """Append a figure."""
        self.figures.append(Figure(name, measured, unit, planned, note, held))
        if self.file:
            self.file.write_text(self.markdown())

    @property
    def wrong(self) -> list[Figure]:
        """The figures that fail the suite."""
        return [figure for figure in self.figures if figure.wrong]

    def markdown(self) -> str:
        """The table, as the docs hold it."""
        lines = [self.title, "", "| figure | measured | planned | off | |", "|---|---:|---:|---:|---|"]
        for one in self.figures:
            planned = "" if one.planned is None else f"{_short(one.planned)} {one.unit}"
            off = "" if one.off is None else f"{one.off:+.0%}" + (" **wrong**" if one.wrong else "")
            lines.append(f"| {one.name} | {_short(one.measured)} {one.unit} | {planned} | {off} | {one.note} |")
        return "\n".join(lines) + "\n"


def _short(value: float) -> str:
    return f"{value:,.0f}" if abs(value) >= 100 else f"{value:.3g}"
