"""The browser finds what an eye finds: each page here has one fault, and `faults()` names it."""

from __future__ import annotations

from pathlib import Path

import pytest

from runners.pages import charts, lineage, page
from runners.pages.charts import Bar
from runners.pages.lineage import Node
from runners.pages.page import Html, Tile
from tests.browser import Browser

#: Name of a fault -> a page that has it, at 390 px.
FAULTY = {
    "lowContrast": '<p style="color: #999; background: #fff">pale</p>',
    "tooWide": '<div style="width: 600px">wide</div>',
    "scrolls sideways": '<div style="width: 600px">wide</div>',
    "brokenWords": '<span class="badge" style="display: inline-block; width: 40px; overflow-wrap: anywhere">truncated</span>',
    "overrun": '<dl class="facts"><div style="display: block; width: 60px; overflow: visible; white-space: nowrap">a name that is far too long</div></dl>',
    "unfilled": '<figure style="width: 360px"><svg width="100" height="50" viewBox="0 0 100 50"></svg></figure>',
    "cutNames": '<figure><svg width="350" height="50"><g><title>merge: 3</title><text x="4" y="20" style="font-size: 13px">mer…</text></g></svg></figure>',
    "cutLabels": '<figure><svg width="350" height="50"><text x="330" y="20" style="font-size: 13px">a long label</text></svg></figure>',
    "chart text under 9 px": '<figure><svg width="350" height="50"><text x="4" y="20" style="font-size: 5px">small</text></svg></figure>',
    "charts not drawn once": "<figure></figure>",
    "nameless": '<svg role="img" aria-labelledby="nobody" width="9" height="9"></svg>',
    "repeatedIds": '<p id="a">a</p><p id="a">b</p>',
    "taller than 16,000 px": '<div style="height: 17000px">tall</div>',
    "prints on more than 15 pages": '<p style="break-after: page">x</p>' * 20,
    "problems": '<img src="https://example.com/x.png" alt="from elsewhere">',
}


@pytest.mark.parametrize("name", FAULTY)
def test_a_fault_is_found(browser: Browser, tmp_path: Path, name: str) -> None:
    (tmp_path / "page.html").write_text(page.page("A page", Html(f'<div class="frame">{FAULTY[name]}</div>')))
    assert name in browser.open(tmp_path / "page.html", width=390).faults()


def test_a_heading_of_a_column_is_not_broken_within_a_word(browser: Browser, tmp_path: Path) -> None:
    style = "<style>th { white-space: normal !important; overflow-wrap: anywhere !important; max-width: 60px }</style>"
    table = page.table(("category", "question"), [("a", "word " * 40)])
    (tmp_path / "page.html").write_text(page.page("A page", table))
    assert browser.open(tmp_path / "page.html", width=390).faults() == {}
    (tmp_path / "page.html").write_text(page.page("A page", Html(style + table)))
    assert browser.open(tmp_path / "page.html", width=390).faults() == {"brokenWords": ["category"]}


@pytest.mark.parametrize("width", [390, 900, 1366])
def test_names_of_models_have_room_in_a_drawing(browser: Browser, tmp_path: Path, width: int) -> None:
    first = [Node("base model", "smollm2-135m-instruct", ("base-fe99bb2c271a",)), Node("dataset", "elson-corpus-132d529e", ("data-132d529ebdaa",))]
    stages = [Node(kind, f"local-{kind}-30873e9e69b6e999", (f"{kind}-30873e9e69b6", "8 min 46 s"), (0, 1)) for kind in ("qdora",)]
    rest = [Node("merge", "local-merged-30873e9e69b6e999", ("merged-30873e9e69b6",), (2,)), Node("evaluation", "0 of 36", (), (3,))]
    bars = charts.bars([Bar("nearest training answer", 3), Bar("consult a professional", 4)], title="Beside the model")
    drawn = page.page("Drawing", [lineage.drawing([*first, *stages, *rest, Node("together", "$1.20", (), (4,))], title="From data to dollars"), bars])
    (tmp_path / "page.html").write_text(drawn)
    assert browser.open(tmp_path / "page.html", width=width).faults() == {}


def test_a_long_table_is_short_to_read_and_to_print_and_shows_more_when_asked(browser: Browser, tmp_path: Path) -> None:
    rows = [(f"case-{number}", "word " * 30) for number in range(2000)]
    page.write(tmp_path / "page.html", page.page("Long", [page.section("Rows", page.table(("case", "text"), rows, search=True, cards=True))]))
    for width in (390, 1366):
        shown = browser.open(tmp_path / "page.html", width=width)
        assert shown.faults() == {}
        visible = "[...document.querySelectorAll('tbody tr')].filter(r => r.getClientRects().length).length"
        assert shown.run(visible) == page.PRINTED_ROWS
        shown.run("document.querySelector('.more button').click()")
        assert shown.run(visible) == 75
        shown.run("(() => { const i = document.querySelector('.search input'); i.value = 'case-1999'; i.dispatchEvent(new Event('input')); })()")
        assert shown.run(visible) == 1 and shown.run("document.querySelector('.more').hidden")


def test_pairs_are_shown_a_few_at_a_time(browser: Browser, tmp_path: Path) -> None:
    items = [({"domain": ("tax", "estate")[number % 2]}, page.details(f"question {number}", page.paragraph("a"), kind="case")) for number in range(1500)]
    page.write(tmp_path / "page.html", page.page("Pairs", [page.section("Pairs", page.filtered(items, label="pairs"))]))
    shown = browser.open(tmp_path / "page.html", width=390)
    assert shown.faults() == {}
    visible = "document.querySelectorAll('.item:not([hidden])').length"
    assert shown.run(visible) == 50 and "50 of 1,500" in shown.run("document.querySelector('.more').textContent")
    shown.run("document.querySelector('.more button').click()")
    assert shown.run(visible) == 150


def test_on_a_phone_the_last_columns_are_seen_without_scrolling(browser: Browser, tmp_path: Path) -> None:
    headers = ("run", "finished", "dataset", "loss", "gates", "score")
    table = page.table(headers, [("local-dora-2a91bd4a9f78005f", "2026-11-27 03:47", "132d529ebdaa", "3.528 → 3.112", "7 of 7", "0 of 36")], cards=True)
    (tmp_path / "page.html").write_text(page.page("Runs", [page.section("Runs", page.stat_tiles([Tile("Runs", 1)]), table)]))
    shown = browser.open(tmp_path / "page.html", width=390)
    assert shown.faults() == {}
    assert shown.run("document.querySelector('tbody td:last-child').getBoundingClientRect().right") <= 390
    assert "score" in shown.run("getComputedStyle(document.querySelector('tbody td:last-child'), '::before').content")
