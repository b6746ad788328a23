"""The pieces that charts are drawn with: shapes as SVG text, round axis ticks, and how wide a label is."""

from __future__ import annotations

import hashlib
import html
import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass

NARROW, WIDE, BROAD = 360, 640, 1080
Format = Callable[[float], str]


def ticks(low: float, high: float, about: int) -> list[float]:
    """About so many round numbers that span ``low`` to ``high`` (steps of 1, 2, 2.5 or 5 times a power of ten)."""
    largest = max(abs(low), abs(high))
    if largest < 1e-250:
        low, high = 0.0, 1.0
    elif high - low <= 1e-9 * largest:
        low, high = low - abs(low) / 2, high + abs(high) / 2
    rough = (high - low) / max(1, about)
    power = 10.0 ** math.floor(math.log10(rough))
    step = next(f * power for f in (1, 2, 2.5, 5, 10) if f * power >= rough * 0.999)
    first, last = math.floor(low / step + 1e-9), math.ceil(high / step - 1e-9)
    digits = 12 - math.floor(math.log10(step))
    return [round(index * step, digits) for index in range(first, last + 1)]


@dataclass(frozen=True)
class Plot:
    """The drawing area in SVG units, and the data ranges it shows."""

    left: float
    top: float
    right: float
    bottom: float
    xs: tuple[float, float]
    ys: tuple[float, float]

    def x(self, value: float) -> float:
        """Horizontal place of a value."""
        return self.left + (self.right - self.left) * (value - self.xs[0]) / ((self.xs[1] - self.xs[0]) or 1)

    def y(self, value: float) -> float:
        """Vertical place of a value."""
        return self.bottom - (self.bottom - self.top) * (value - self.ys[0]) / ((self.ys[1] - self.ys[0]) or 1)


def document(width: int, height: float, title: str, description: str, parts: Sequence[str]) -> str:
    """A whole drawing, with its title and description for screen readers. Shown by the page's style where its width fits."""
    name = "c" + hashlib.sha256(f"{width}{title}{description}".encode()).hexdigest()[:10]
    kind = {NARROW: "narrow", WIDE: "wide", BROAD: "broad"}[width]
    labels = f'<title id="{name}t">{html.escape(title)}</title><desc id="{name}d">{html.escape(description)}</desc>'
    return f'<svg class="{kind}" viewBox="0 0 {width} {height:g}" role="img" aria-labelledby="{name}t {name}d">{labels}{"".join(parts)}</svg>'


def text(x: float, y: float, label: str, anchor: str = "start", kind: str = "") -> str:
    """A label; ``y`` is its base line, ``kind`` its class in the style."""
    return f'<text x="{x:.1f}" y="{y:.1f}" text-anchor="{anchor}"{f" class={kind!r}" if kind else ""}>{html.escape(label)}</text>'


def path(route: str, kind: str, dashes: str = "") -> str:
    """A line along an SVG path."""
    return f'<path d="{route}" class="{kind}"{f" stroke-dasharray={dashes!r}" if dashes else ""}/>'


def rect(x: float, y: float, width: float, height: float, kind: str) -> str:
    """A bar."""
    return f'<rect x="{x:.1f}" y="{y:.1f}" width="{width:.1f}" height="{height:.1f}" rx="2" class="{kind}"/>'


def group(tip: str, drawn: str) -> str:
    """Shapes that show ``tip`` when pointed at."""
    return f"<g><title>{html.escape(tip)}</title>{drawn}</g>"


def grid(plot: Plot, x_ticks: list[float], y_ticks: list[float], x_format: Format, y_format: Format, x_label: str, y_label: str) -> list[str]:
    """Horizontal lines, both axes' labels and names."""
    parts = []
    for tick in y_ticks:
        y = plot.y(tick)
        parts += [path(f"M{plot.left:.1f} {y:.1f}H{plot.right:.1f}", "grid"), text(plot.left - 6, y + 4, y_format(tick), "end", "soft")]
    for tick in x_ticks:
        # The ticks span the data, so the outermost may lie beyond the plot.
        if plot.left - 1 <= plot.x(tick) <= plot.right + 1:
            x = min(plot.x(tick), plot.right + 12 - label_width(x_format(tick)) / 2)
            parts.append(text(x, plot.bottom + 18, x_format(tick), "middle", "soft"))
    parts.append(path(f"M{plot.left:.1f} {plot.bottom:.1f}H{plot.right:.1f}", "axis"))
    parts.append(text((plot.left + plot.right) / 2, plot.bottom + 37, x_label, "middle", "soft"))
    parts.append(text(2, 12, y_label, "start", "soft"))
    return parts


def label_room(width: int, labels: list[str]) -> float:
    """Width of the column of labels left of horizontal bars."""
    return min((0.5 if width == NARROW else 0.42) * width, max((label_width(label) for label in labels), default=0.0) + 14)


def label_width(label: str) -> float:
    """Width of a label in SVG units at the style's 13 px, by classes of letters in the widest font the style falls back to (DejaVu Sans)."""
    ems = sum(0.36 if c in "iljtfrI.,:;'|!()[] /" else 0.95 if c in "mwMW@%…" else 0.8 if c.isupper() or c in "<>=+~−" else 0.62 for c in label)
    return 13 * ems


def cut(label: str, room: float) -> str:
    """The label, shortened to the room there is."""
    if label_width(label) <= room:
        return label
    while len(label) > 2 and label_width(label + "…") > room:
        label = label[:-1]
    return label.rstrip() + "…"
