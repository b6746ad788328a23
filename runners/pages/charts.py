"""Charts as inline SVG: pure functions from numbers to markup, for the pages of ``runners/pages/page.py``.

Every chart is drawn three times, for a whole desktop page, a column and a phone, and the page's style shows the one that fits, so
that the text keeps its size. Each has a title and a description for screen readers, and its figures as a table below. Values
that are NaN or infinite are left out of the drawing, and the table shows them.

    charts.line_chart([charts.Series("training", [(1, 2.1), (2, 1.7)])], title="Loss by step", x_label="step")
"""

from __future__ import annotations

import html
import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

from runners.pages import page, svg
from runners.pages.page import Html, Status
from runners.pages.svg import BROAD, NARROW, WIDE, Format

#: Height of one row of a bar chart or a timeline, in SVG units.
ROW = 26
#: A line with more points than this is thinned for drawing: the lowest and the highest of each stretch stay.
MAX_POINTS = 400
_DASHES = ("", "7 4", "2 3", "10 3 2 3", "4 2", "1 4")


@dataclass(frozen=True)
class Series:
    """One line: a name and (x, y) points; ``marks`` draws a dot at each point."""

    name: str
    points: Sequence[tuple[float, float]]
    marks: bool = False


@dataclass(frozen=True)
class Interval:
    """A bar with the ends of its confidence interval."""

    label: str
    value: float
    low: float
    high: float
    status: Status = "none"
    note: str = ""


@dataclass(frozen=True)
class Bar:
    """A plain bar."""

    label: str
    value: float
    status: Status = "none"
    note: str = ""


@dataclass(frozen=True)
class Span:
    """One phase: when it started (seconds from the beginning of all) and how long it took."""

    name: str
    start_s: float
    seconds: float
    note: str = ""


def percent(value: float) -> str:
    """A fraction as a percentage."""
    return f"{100 * value:.1f}".removesuffix(".0") + " %"


def line_chart(
    series: Sequence[Series],
    *,
    title: str,
    x_label: str = "",
    y_label: str = "",
    from_zero: bool = False,
    limit: tuple[float, str] | None = None,
    x_format: Format = page.number,
    y_format: Format = page.number,
) -> Html:
    """Lines over a common x axis, told apart by colour and by dashes.

    Args:
        series: at most six are told apart.
        title: what the chart shows.
        x_label: under the x axis.
        y_label: above the y axis.
        from_zero: start the y axis at 0.
        limit: a horizontal line and its name, e.g. a bar to pass.
        x_format: how x values are written.
        y_format: how y values are written.
    """
    drawn = [Series(s.name, _thin([p for p in s.points if math.isfinite(p[0]) and math.isfinite(p[1])]), s.marks) for s in series]
    points = [point for s in drawn for point in s.points]
    ys = [y for _, y in points] + ([limit[0]] if limit else []) + ([0.0] if from_zero else [])
    described = "; ".join(f"{s.name}: from {y_format(s.points[0][1])} to {y_format(s.points[-1][1])} in {len(s.points)} points" for s in series if s.points)

    def draw(width: int) -> str:
        xs = [x for x, _ in points]
        y_ticks = svg.ticks(min(ys), max(ys), 5)
        left = 14 + max(svg.label_width(y_format(tick)) for tick in y_ticks)
        plot = svg.Plot(left, 26, width - 14, 246, _extent(xs), (min(*ys, y_ticks[0]), max(*ys, y_ticks[-1])))
        x_ticks = svg.ticks(min(xs), max(xs), 3 if width == NARROW else 7)
        if all(float(x).is_integer() for x in xs):  # there is no half step and no half request
            x_ticks = [tick for tick in x_ticks if float(tick).is_integer()]
        parts = svg.grid(plot, x_ticks, y_ticks, x_format, y_format, x_label, y_label)
        if limit:
            parts += [
                svg.path(f"M{plot.left:.1f} {plot.y(limit[0]):.1f}H{plot.right:.1f}", "limit"),
                svg.text(plot.right - 4, plot.y(limit[0]) - 5, limit[1], "end"),
            ]
        for index, line in enumerate(drawn):
            if line.points:
                path = "M" + "L".join(f"{plot.x(x):.1f} {plot.y(y):.1f}" for x, y in line.points)
                parts.append(svg.path(path, f"line s{index % 6 + 1}", _DASHES[index % 6]))
            for x, y in line.points if line.marks or len(line.points) == 1 else ():
                dot = f'<circle cx="{plot.x(x):.1f}" cy="{plot.y(y):.1f}" r="3.5" class="f{index % 6 + 1}"/>'
                parts.append(svg.group(f"{line.name}: {x_format(x)}, {y_format(y)}", dot))
        return svg.document(width, 292, title, described, parts)

    rows = [(s.name, x_format(x), y_format(y)) for s in series for x, y in _thin(list(s.points), 60)]
    legend = "".join(f"<li>{_sample(index)}{html.escape(s.name)}</li>" for index, s in enumerate(series))
    keys = f'<ul class="legend">{legend}</ul>' if len(series) > 1 else ""
    return _figure(title, draw if points else None, page.table(("series", x_label or "x", y_label or "y"), rows), keys)


def interval_bars(
    rows: Sequence[Interval],
    *,
    title: str,
    limit: float | None = None,
    limit_label: str = "bar",
    maximum: float | None = 1.0,
    written: Format = percent,
) -> Html:
    """Horizontal bars from 0 with confidence whiskers, and a line they are held against.

    Args:
        rows: drawn from top to bottom; a status colours the bar and puts its sign behind the value.
        title: what the chart shows.
        limit: the line to pass, in the units of the values.
        limit_label: its name.
        maximum: end of the axis; None takes the largest value.
        written: how values are written.
    """
    finite = [r for r in rows if all(math.isfinite(v) for v in (r.value, r.low, r.high))]
    described = "; ".join(f"{r.label} {written(r.value)}, between {written(r.low)} and {written(r.high)}" for r in finite[:30])
    chart = _RowChart([_Row(r.label, r.value, r.status, r.note, (r.low, r.high)) for r in finite], limit, limit_label, maximum, written)
    figures = page.table(("", "value", "low", "high", "note"), [(r.label, written(r.value), written(r.low), written(r.high), r.note) for r in rows])
    return _figure(title, (lambda width: chart.draw(width, title, described)) if finite else None, figures)


def bars(
    rows: Sequence[Bar],
    *,
    title: str,
    limit: float | None = None,
    limit_label: str = "bar",
    maximum: float | None = None,
    written: Format = page.number,
) -> Html:
    """Horizontal bars from 0; arguments as for :func:`interval_bars`."""
    finite = [r for r in rows if math.isfinite(r.value)]
    described = "; ".join(f"{r.label} {written(r.value)}" for r in finite[:30])
    chart = _RowChart([_Row(r.label, r.value, r.status, r.note, None) for r in finite], limit, limit_label, maximum, written)
    figures = page.table(("", "value", "note"), [(r.label, written(r.value), r.note) for r in rows])
    return _figure(title, (lambda width: chart.draw(width, title, described)) if finite else None, figures)


def histogram(
    values: Sequence[float],
    *,
    title: str,
    x_label: str = "",
    bins: int | None = None,
    marks: Mapping[str, float] | None = None,
    x_format: Format = page.number,
) -> Html:
    """Counts of values in equal, round steps (about the square root of their number), with named positions marked.

    ``marks`` are vertical lines, e.g. ``{"p50": 812.0, "p95": 1900.0}``.
    """
    finite = [v for v in values if math.isfinite(v)]
    marked = sorted(((v, k) for k, v in (marks or {}).items() if math.isfinite(v)), reverse=True)
    edges = svg.ticks(min(finite), max(finite), bins or min(40, max(5, math.ceil(math.sqrt(len(finite)))))) if finite else [0.0, 1.0]
    counts = [0] * (len(edges) - 1)
    for value in finite:
        counts[min(len(counts) - 1, max(0, math.floor((value - edges[0]) / (edges[1] - edges[0]))))] += 1
    extent = f" from {x_format(min(finite))} to {x_format(max(finite))}" if finite else ""
    described = "; ".join([f"{len(finite)} values{extent}", *(f"{name} {x_format(value)}" for value, name in reversed(marked))])

    def draw(width: int) -> str:
        y_ticks = [tick for tick in svg.ticks(0, max(counts), 4) if tick == int(tick)]
        above = 16 * len(marked)
        left = 14 + svg.label_width(_whole(y_ticks[-1]))
        plot = svg.Plot(
            left,
            26 + above,
            width - 14,
            226 + above,
            (min([edges[0], *(v for v, _ in marked)]), max([edges[-1], *(v for v, _ in marked)])),
            (0, max(max(counts), y_ticks[-1])),
        )
        parts = svg.grid(plot, svg.ticks(*plot.xs, 3 if width == NARROW else 7), y_ticks, x_format, _whole, x_label, "count")
        for index, count in enumerate(counts):
            x, y = plot.x(edges[index]), plot.y(count)
            bar = svg.rect(x + 0.5, y, max(1.0, plot.x(edges[index + 1]) - x - 1), plot.bottom - y, "f1")
            parts.append(svg.group(f"{x_format(edges[index])} to {x_format(edges[index + 1])}: {count}", bar))
        for index, (value, name) in enumerate(marked):
            x, y = plot.x(value), 26 + 16 * index
            end = x > (plot.left + plot.right) / 2
            parts += [
                svg.path(f"M{x:.1f} {plot.bottom:.1f}V{y - 8}", "limit"),
                svg.text(x + (-5 if end else 5), y, f"{name} {x_format(value)}", "end" if end else "start"),
            ]
        return svg.document(width, 272 + above, title, described, parts)

    rows = [(f"{x_format(edges[i])} to {x_format(edges[i + 1])}", count) for i, count in enumerate(counts)]
    return _figure(title, draw if finite else None, page.table((x_label or "range", "count"), rows))


def timeline(spans: Sequence[Span], *, title: str) -> Html:
    """When each phase ran, from top to bottom, with its length written beside it."""
    end = max((s.start_s + s.seconds for s in spans), default=0.0) or 1.0
    described = "; ".join(f"{s.name} took {page.duration(s.seconds)}" for s in spans[:30])

    def draw(width: int) -> str:
        left = svg.label_room(width, [s.name for s in spans])
        plot = svg.Plot(left, 8, width - 14, 8 + ROW * len(spans), (0, end), (0, 1))
        parts = []
        for tick in _clock_ticks(end, 3 if width == NARROW else 6):
            at = min(plot.x(tick), plot.right + 12 - svg.label_width(_clock(tick)) / 2)
            parts += [svg.path(f"M{plot.x(tick):.1f} {plot.top}V{plot.bottom}", "grid"), svg.text(at, plot.bottom + 17, _clock(tick), "middle", "soft")]
        for index, span in enumerate(spans):
            y, x, after = plot.top + ROW * index + 13, plot.x(span.start_s), plot.x(span.start_s + span.seconds)
            length, took = max(2.0, after - x), page.duration(span.seconds)
            if after + svg.label_width(took) + 8 < plot.right:
                beside = svg.text(x + length + 6, y + 4, took)
            elif length > svg.label_width(took) + 8:
                beside = svg.text(after - 6, y + 4, took, "end", "inside")
            else:
                beside = svg.text(x - 6, y + 4, took, "end")
            tip = f"{span.name}: {took}, from {page.duration(span.start_s)}{' · ' + span.note if span.note else ''}"
            drawn = svg.text(left - 8, y + 4, svg.cut(span.name, left - 12), "end") + svg.rect(x, y - 9, length, 18, f"f{index % 6 + 1}") + beside
            parts.append(svg.group(tip, drawn))
        return svg.document(width, plot.bottom + 26, title, described, parts)

    rows = [(s.name, page.duration(s.start_s), page.duration(s.seconds), s.note) for s in spans]
    return _figure(title, draw if spans else None, page.table(("phase", "after", "took", "note"), rows))


@dataclass(frozen=True)
class _Row:
    label: str
    value: float
    status: Status
    note: str
    ends: tuple[float, float] | None


@dataclass(frozen=True)
class _RowChart:
    """Horizontal bars, with or without whiskers."""

    rows: list[_Row]
    limit: float | None
    limit_label: str
    maximum: float | None
    written: Format

    def draw(self, width: int, title: str, described: str) -> str:
        top = self.maximum or max([r.ends[1] if r.ends else r.value for r in self.rows] + [self.limit or 0.0]) or 1.0
        left, above = svg.label_room(width, [r.label for r in self.rows]), 24 if self.limit is not None else 6
        right = width - 12 - max(svg.label_width(self.behind(r)) for r in self.rows)
        plot = svg.Plot(left, above, right, above + ROW * len(self.rows), (0, top), (0, 1))
        parts = self.background(plot, width, top)
        for index, row in enumerate(self.rows):
            y = plot.top + ROW * index + 13
            length = max(1.0, min(plot.x(row.value), plot.right) - plot.left)
            drawn = svg.text(plot.left - 8, y + 4, svg.cut(row.label, plot.left - 12), "end") + svg.rect(plot.left, y - 9, length, 18, f"bar f{row.status}")
            tip = f"{row.label}: {self.written(row.value)}"
            if row.ends and row.ends[1] > row.ends[0]:
                low, high = plot.x(max(0.0, row.ends[0])), plot.x(min(row.ends[1], top))
                drawn += svg.path(f"M{low:.1f} {y}H{high:.1f}M{low:.1f} {y - 4}v8M{high:.1f} {y - 4}v8", "whisker")
                tip += f" [{self.written(row.ends[0])} to {self.written(row.ends[1])}]"
            parts.append(svg.group(tip + (f" · {row.note}" if row.note else ""), drawn + svg.text(width - 4, y + 4, self.behind(row), "end")))
        return svg.document(width, plot.bottom + 24, title, described, parts)

    def background(self, plot: svg.Plot, width: int, top: float) -> list[str]:
        parts = []
        for tick in svg.ticks(0, top, 2 if width == NARROW else 5):
            if tick <= top * 1.0001:
                parts += [
                    svg.path(f"M{plot.x(tick):.1f} {plot.top}V{plot.bottom}", "grid"),
                    svg.text(plot.x(tick), plot.bottom + 17, self.written(tick), "middle", "soft"),
                ]
        if self.limit is not None:
            x, name = plot.x(self.limit), f"{self.limit_label} {self.written(self.limit)}"
            middle = min(x, width - 4 - svg.label_width(name) / 2)
            parts += [svg.path(f"M{x:.1f} {plot.top - 4}V{plot.bottom}", "limit"), svg.text(middle, 14, name, "middle")]
        return parts

    def behind(self, row: _Row) -> str:
        sign = page.SIGNS[row.status] if row.status in ("good", "bad", "warn") else ""
        return f"{self.written(row.value)} {sign}".strip()


def _figure(title: str, draw: Callable[[int], str] | None, figures: str, legend: str = "") -> Html:
    caption = f"<figcaption>{html.escape(title)}</figcaption>"
    if draw is None:
        return Html(f'<figure class="chart">{caption}<p class="intro">Nothing was measured.</p></figure>')
    return Html(f'<figure class="chart">{caption}{draw(BROAD)}{draw(WIDE)}{draw(NARROW)}{legend}{page.details("Figures as a table", figures)}</figure>')


def _sample(index: int) -> str:
    return f'<svg viewBox="0 0 26 10" aria-hidden="true">{svg.path("M1 5H25", f"line s{index % 6 + 1}", _DASHES[index % 6])}</svg>'


def _whole(value: float) -> str:
    return page.number(int(value))


def _extent(values: list[float]) -> tuple[float, float]:
    low, high = min(values), max(values)
    return (low, high) if high > low else (low - 0.5, high + 0.5)


def _thin(points: list[tuple[float, float]], most: int = MAX_POINTS) -> list[tuple[float, float]]:
    """At most about ``most`` points: the first, the last, and of each stretch the lowest and the highest."""
    if len(points) <= most:
        return points
    stretch = math.ceil(2 * len(points) / most)
    kept = {0, len(points) - 1}
    for start in range(0, len(points), stretch):
        indices = range(start, min(start + stretch, len(points)))
        kept |= {min(indices, key=lambda i: points[i][1]), max(indices, key=lambda i: points[i][1])}
    return [points[i] for i in sorted(kept)]


def _clock(seconds: float) -> str:
    return "0" if not seconds else f"{seconds:g} s" if seconds % 60 else f"{seconds / 60:g} min" if seconds % 3600 else f"{seconds / 3600:g} h"


def _clock_ticks(end: float, about: int) -> list[float]:
    steps = (0.1, 0.2, 0.5, 1, 2, 5, 10, 15, 30, 60, 120, 300, 600, 900, 1800, 3600, 7200, 14400, 43200, 86400)
    step = next((s for s in steps if end / s <= about), steps[-1])
    return [round(index * step, 3) for index in range(int(end / step) + 1)]
