"""Where a model comes from, as boxes and arrows from data to dollars: one row on a desktop, one column on a phone."""

from __future__ import annotations

import html
from collections.abc import Sequence
from dataclasses import dataclass

from runners.pages import svg
from runners.pages.page import Html, Status
from runners.pages.svg import BROAD, NARROW, WIDE

_HEIGHT, _LINE = 101, 17
#: Between boxes, along the arrows and beside each other.
_GAP, _BESIDE = 24, 10


@dataclass(frozen=True)
class Node:
    """One box: what it is, its name, up to two facts, and the indices of the boxes it is made from."""

    kind: str
    name: str
    facts: tuple[str, ...] = ()
    parents: tuple[int, ...] = ()
    status: Status = "none"


def drawing(nodes: Sequence[Node], *, title: str) -> Html:
    """The boxes in columns by how far they are from their origin. ``nodes`` come after their parents."""
    depth: list[int] = []
    for node in nodes:
        depth.append(1 + max((depth[parent] for parent in node.parents), default=-1))
    described = "; ".join(f"{node.kind} {node.name}" + (f" from {', '.join(nodes[p].name for p in node.parents)}" if node.parents else "") for node in nodes)

    def draw(width: int) -> str:
        ranks = [[index for index, rank in enumerate(depth) if rank == level] for level in range(max(depth, default=0) + 1)]
        stacked = width < BROAD
        beside_gap, below_gap = (_BESIDE, _GAP) if stacked else (_GAP, _BESIDE)
        # Side by side are the boxes of one rank where ranks are stacked, else the ranks.
        boxes = [(width - 4 - beside_gap * (across - 1)) / across for across in ((len(rank) if stacked else len(ranks)) for rank in ranks)]
        place: dict[int, tuple[float, float]] = {}
        for level, rank in enumerate(ranks):
            for position, index in enumerate(rank):
                along, beside = (position, level) if stacked else (level, position)
                place[index] = (2 + along * (boxes[level] + beside_gap), 2 + beside * (_HEIGHT + below_gap))
        height = max(y for _, y in place.values()) + _HEIGHT + 4
        parts = [
            _arrow(place[parent], place[index], boxes[depth[parent]], boxes[depth[index]], stacked=stacked)
            for index, node in enumerate(nodes)
            for parent in node.parents
        ]
        parts += [_box(node, *place[index], boxes[depth[index]]) for index, node in enumerate(nodes)]
        return svg.document(width, height, title, described, parts)

    return Html(f'<figure class="chart"><figcaption>{html.escape(title)}</figcaption>{draw(BROAD)}{draw(WIDE)}{draw(NARROW)}</figure>')


def _arrow(start: tuple[float, float], end: tuple[float, float], box: float, target: float, *, stacked: bool) -> str:
    if stacked:
        x1, y1, x2, y2 = start[0] + box / 2, start[1] + _HEIGHT, end[0] + target / 2, end[1]
        route, head = f"M{x1:.1f} {y1:.1f}C{x1:.1f} {y1 + 20:.1f} {x2:.1f} {y2 - 24:.1f} {x2:.1f} {y2 - 6:.1f}", "m-4 -2l4 7l4 -7"
    else:
        x1, y1, x2, y2 = start[0] + box, start[1] + _HEIGHT / 2, end[0], end[1] + _HEIGHT / 2
        route, head = f"M{x1:.1f} {y1:.1f}C{x1 + 20:.1f} {y1:.1f} {x2 - 24:.1f} {y2:.1f} {x2 - 6:.1f} {y2:.1f}", "m-2 -4l7 4l-7 4"
    return svg.path(route + head, "arrow")


def _box(node: Node, x: float, y: float, width: float) -> str:
    room = width - 12
    said = [(node.kind, "soft"), *((part, "") for part in _lines(node.name, room)), *((fact, "soft") for fact in node.facts[:2])]
    # Soft lines are smaller: there is room for more.
    lines = [svg.text(x + 7, y + 19 + _LINE * row, svg.cut(line, room * (13 / 12 if kind else 1)), kind=kind) for row, (line, kind) in enumerate(said)]
    tip = " · ".join((node.kind, node.name, *node.facts))
    return svg.group(tip, svg.rect(x, y, width, _HEIGHT, f"box {node.status}") + "".join(lines))


def _lines(name: str, room: float) -> list[str]:
    """A name in one line, or in two that break after a dash where there is one."""
    if svg.label_width(name) <= room:
        return [name]
    ends = [place for place in range(1, len(name)) if svg.label_width(name[:place]) <= room]
    dashes = [place for place in ends if name[place - 1] in "-_./ "]
    end = max(dashes or ends, default=len(name))
    return [name[:end], name[end:]]
