"""Self-contained HTML pages: the frame, tables, tiles and small parts that every report of elson is put together from.

A page needs nothing from outside and no script: it opens from a bucket, a mail or a CI artifact, in light and dark, from
360 px wide. Reports show text that models and strangers wrote, so all text is escaped unless it is an ``Html``, and a
content security policy refuses whatever might get past that. Charts are in ``runners/pages/charts.py``.

    from runners.pages import charts, page
    page.page("Training", [page.section("Loss", charts.line_chart([...], title="Loss by step"))])
"""

from __future__ import annotations

import base64
import hashlib
import html
import math
import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

#: good and bad are told apart by a sign as well as by colour.
Status = Literal["good", "bad", "warn", "info", "none"]
SIGNS: dict[Status, str] = {"good": "✓", "bad": "✗", "warn": "!", "info": "i", "none": ""}


#: Rows of a table that are shown before somebody asks for more, and that reach paper; those after them are marked ``later``.
PRINTED_ROWS = 15
#: The look of all pages; it is in each of them.
STYLE = Path(__file__).with_name("page.css")


class Html(str):
    """Text that is markup already; everything else is escaped where it enters a page."""

    __slots__ = ()


@dataclass(frozen=True)
class Tile:
    """One large figure: what it is, its value, and a line on it."""

    label: str
    value: Any
    note: str = ""
    status: Status = "none"


def text(value: Any) -> Html:
    """Escape a value for a page: ``Html`` as it is, None as a dash, numbers in short form."""
    if isinstance(value, Html):
        return value
    if value is None:
        return Html('<span class="absent" title="not measured">–</span>')
    if isinstance(value, bool):
        return Html("yes" if value else "no")
    return Html(html.escape(number(value) if isinstance(value, (int, float)) else str(value)))


def number(value: float, digits: int = 4) -> str:
    """A number as people read it: thousands separated, ``digits`` significant ones, no exponent between 1e-4 and 1e15."""
    if isinstance(value, int) or math.isinf(value) or math.isnan(value):
        return f"{value:,}"
    if value and not 1e-4 <= abs(value) < 1e15:
        return f"{value:.{digits - 1}e}"
    decimals = max(0, digits - 1 - math.floor(math.log10(abs(value)))) if value else 0
    written = f"{value:,.{decimals}f}"
    return written.rstrip("0").rstrip(".") if "." in written else written


def cut(value: str, length: int = 300) -> str:
    """A text for one cell of a table: of a longer one the beginning."""
    return value if len(value) <= length else value[: length - 1] + "…"


def duration(seconds: float) -> str:
    """Seconds as people read them: ``0.42 s``, ``12.3 s``, ``4 min 05 s``, ``2 h 10 min``."""
    if seconds < 60:
        return f"{seconds:.2f} s" if seconds < 10 else f"{seconds:.1f} s"
    whole = round(seconds)
    return f"{whole // 60} min {whole % 60:02d} s" if whole < 3600 else f"{whole // 3600} h {whole % 3600 // 60:02d} min"


def page(title: str, sections: Iterable[str] | str, subtitle: str = "", *, above: str = "", refresh_s: int = 0) -> str:
    """The whole document. ``sections`` is markup from :func:`section` and its neighbours, one string or several.

    A list of contents is made from the sections' headings when there are at least three. ``above`` is markup over the title (where one is);
    ``refresh_s`` lets the page load itself again, for work that goes on.
    """
    body = sections if isinstance(sections, str) else "\n".join(sections)
    headings = re.findall(r'<section id="([^"]+)"><h2>(.*?)</h2>', body)
    links = "".join(f'<a href="#{slug}">{re.sub("<[^>]+>", "", heading)}</a>' for slug, heading in headings)
    contents = f'<nav aria-label="Contents">{links}</nav>' if len(headings) >= 3 else ""
    script = "".join(file.read_text() for mark, file in _SCRIPTS.items() if mark in body)
    allowed = f"'sha256-{base64.b64encode(hashlib.sha256(script.encode()).digest()).decode()}'" if script else "'none'"
    policy = f"default-src 'none'; style-src 'unsafe-inline'; img-src data:; script-src {allowed}; base-uri 'none'; form-action 'none'"
    below = f'<p class="subtitle">{text(subtitle)}</p>' if subtitle else ""
    return f"""<!doctype html>
<html lang="en">
<head>
<meta charset="utf-8">
<meta http-equiv="Content-Security-Policy" content="{policy}">
<meta name="viewport" content="width=device-width, initial-scale=1">
<meta name="color-scheme" content="light dark">{f'<meta http-equiv="refresh" content="{refresh_s}">' if refresh_s else ""}
<title>{text(title)}</title>
<style>{STYLE.read_text()}</style>
</head>
<body>
<header>{above}<h1>{text(title)}</h1>{below}{contents}</header>
<main>
{body}
</main>
{f"<script>{script}</script>" if script else ""}
</body>
</html>
"""


def section(title: str, *content: str, intro: Any = "") -> Html:
    """A part of the page with a heading; ``content`` is markup, ``intro`` a sentence above it."""
    slug = re.sub(r"[^a-z0-9]+", "-", str(title).lower()).strip("-") or "section"
    lead = f'<p class="intro">{text(intro)}</p>' if intro else ""
    return Html(f'<section id="{slug}"><h2>{text(title)}</h2>{lead}{"".join(content)}</section>')


def paragraph(value: Any) -> Html:
    """A paragraph of text."""
    return Html(f"<p>{text(value)}</p>")


def columns(*content: str) -> Html:
    """Blocks side by side where the window is wide enough, below each other where it is not."""
    return Html(f'<div class="columns">{"".join(f"<div>{part}</div>" for part in content)}</div>')


def stat_tiles(tiles: Iterable[Tile]) -> Html:
    """A row of large figures."""
    parts = []
    for tile in tiles:
        sign = f'<span class="sign" aria-hidden="true">{SIGNS[tile.status]}</span> ' if SIGNS[tile.status] else ""
        note = f'<div class="note">{text(tile.note)}</div>' if tile.note else ""
        parts.append(
            f'<div class="tile {tile.status}"><div class="label">{text(tile.label)}</div><div class="value">{sign}{text(tile.value)}</div>{note}</div>'
        )
    return Html(f'<div class="tiles">{"".join(parts)}</div>')


def banner(status: Status, title: Any, detail: Any = "") -> Html:
    """The one sentence a reader came for."""
    below = f"<p>{text(detail)}</p>" if detail else ""
    return Html(
        f'<div class="banner {status}" role="status"><strong><span class="sign" aria-hidden="true">{SIGNS[status]}</span> {text(title)}</strong>{below}</div>'
    )


def badge(value: Any, status: Status = "none") -> Html:
    """A short word with a status: passed, failed, deprecated."""
    short = " short" if len(str(value)) <= 20 else ""
    return Html(f'<span class="badge {status}{short}">{_sign(status)}{text(value)}</span>')


def facts(pairs: Mapping[str, Any]) -> Html:
    """Names and values, one a line: settings, lineage, versions."""
    return Html(f'<dl class="facts">{"".join(f"<div><dt>{text(key)}</dt><dd>{text(value)}</dd></div>" for key, value in pairs.items())}</dl>')


def answers(rows: Iterable[tuple[Status, str, str]]) -> Html:
    """Questions of a reader and their answers, each with its status."""
    parts = [f'<dt class="{status}">{_sign(status)}{text(asked)}</dt><dd>{text(said)}</dd>' for status, asked, said in rows]
    return Html(f'<dl class="why">{"".join(parts)}</dl>' if parts else "")


def details(summary: Any, content: str, is_open: bool = False, kind: str = "") -> Html:
    """Markup that is folded away until somebody asks for it."""
    styled = f' class="{kind}"' if kind else ""
    return Html(f"<details{styled}{' open' if is_open else ''}><summary>{text(summary)}</summary>{content}</details>")


def code(value: str) -> Html:
    """A command, a log line or JSON, in a box that scrolls."""
    return Html(f'<pre tabindex="0">{html.escape(value)}</pre>')


def table(headers: Sequence[str], rows: Iterable[Sequence[Any]], *, caption: str = "", search: bool = False, cards: bool = False) -> Html:
    """A table; a column whose cells are all numbers (or absent) is set to the right.

    Args:
        headers: one a column.
        rows: cells; numbers are written by :func:`number`, None as a dash, ``Html`` as it is.
        caption: said above the table and to screen readers.
        search: puts a search box above it (which needs a script; without one the box does not show, and every row does).
        cards: on a phone each row is a block of named values, for tables whose last columns matter as much as the first.
    """
    body = [list(row) for row in rows]
    numeric = [any(_is_number(row[i]) for row in body) and all(row[i] is None or _is_number(row[i]) for row in body) for i in range(len(headers))]
    kinds = [' class="number"' if is_number else "" for is_number in numeric]
    head = "".join(f'<th scope="col"{kind}>{text(name)}</th>' for kind, name in zip(kinds, headers, strict=True))
    named = [f' data-name="{html.escape(str(name))}"' if cards and name else "" for name in headers]
    lines = "".join(
        ("<tr>" if place < PRINTED_ROWS else '<tr class="later">')
        + "".join(f"<td{kind}{name}>{text(cell)}</td>" for kind, name, cell in zip(kinds, named, row, strict=True))
        + "</tr>"
        for place, row in enumerate(body)
    )
    label = html.escape(caption or ", ".join(str(name) for name in headers if name))
    above = f"<caption>{text(caption)}</caption>" if caption else ""
    box = f'<label class="search" hidden>Search <input type="search" autocomplete="off" aria-label="Search: {label}"> <output></output></label>'
    more = '<p class="more" hidden><button type="button">Show more</button></p>' if search else ""
    inner = f"<table>{above}<thead><tr>{head}</tr></thead><tbody>{lines}</tbody></table>"
    region = f'<div class="scroll" role="region" aria-label="{label}" tabindex="0">{inner}</div>'
    long = len(body) > PRINTED_ROWS
    cut = f'<p class="intro cut">Printed are the first {PRINTED_ROWS} of {len(body):,} rows.</p>' if long else ""
    frame = f'<div class="tablebox{" long" if long else ""}{" cards" if cards else ""}"{" data-search" if search else ""}>'
    return Html(f"{frame}{box if search else ''}{region}{more}{cut}</div>")


def filtered(items: Iterable[tuple[Mapping[str, str], str]], *, label: str) -> Html:
    """Blocks that can be narrowed down by their attributes and by words; without a script all of them show.

    Args:
        items: (attributes, markup) of each block; every block has the same attributes.
        label: what the blocks are, for screen readers.
    """
    listed = list(items)
    names = list(listed[0][0]) if listed else []
    selects = ""
    for name in names:
        options = "".join(f"<option>{text(value)}</option>" for value in dict.fromkeys(attributes[name] for attributes, _ in listed))
        selects += f'<label>{text(name)} <select data-by="{html.escape(name)}"><option value="">all</option>{options}</select></label>'
    box = f'<div class="filters" hidden>{selects}<label>words <input type="search" autocomplete="off"></label> <output></output></div>'
    more = '<p class="more" hidden><button type="button">Show more</button></p>'
    blocks = ""
    for attributes, markup in listed:
        data = " ".join(f'data-{html.escape(name)}="{html.escape(value)}"' for name, value in attributes.items())
        blocks += f'<div class="item" {data}>{markup}</div>'
    return Html(f'<div data-filter role="region" aria-label="{html.escape(label)}">{box}{blocks}{more}</div>')


def write(file: Path, document: str) -> None:
    """Put a page in place whole: a reader never sees half of it."""
    file.parent.mkdir(parents=True, exist_ok=True)
    partial = file.with_name(f".{file.name}.partial")
    partial.write_text(document, encoding="utf-8")
    partial.replace(file)


def _is_number(cell: Any) -> bool:
    """Whether a cell is a number, or one written out with its unit ("1,204 ms")."""
    if isinstance(cell, str):
        return not isinstance(cell, Html) and re.fullmatch(r"[-−+$]?\d[\d,.]*( ?(%|ms|s|min|h|[KMG]i?B|tokens/s))?", cell) is not None
    return isinstance(cell, (int, float)) and not isinstance(cell, bool)


def _sign(status: Status) -> str:
    return f'<span class="sign" aria-hidden="true">{SIGNS[status]}</span>\u00a0' if SIGNS[status] else ""


#: What is in a page's markup -> the script it brings.
_SCRIPTS = {mark: Path(__file__).with_name(f"{name}.js") for mark, name in ((" data-search", "search"), (" data-filter", "filter"), (" data-pick", "pick"))}
