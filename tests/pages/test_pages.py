"""Pages and charts: in a real browser at four widths, light and dark; and as text."""

import math
import random
import re
import xml.etree.ElementTree as ElementTree
from html.parser import HTMLParser
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from runners.pages import charts, page, svg
from runners.pages.charts import Bar, Interval, Series, Span
from runners.pages.page import Html, Tile
from tests.browser import Browser

HOSTILE = "<script>window.pwned = 1</script><img src=x onerror='window.pwned = 1'>\"'&"


def everything() -> str:
    source = random.Random(1)
    loss = [(float(i), 2.2 * math.exp(-i / 40) + 0.9 + source.gauss(0, 0.05)) for i in range(1, 76)]
    names = ("retirement", "tax", "estate planning and everything that belongs to it", HOSTILE)
    rates = [Interval(name, 0.2 * i, 0.1 * i, min(1.0, 0.25 * i), ("good", "bad", "warn", "none")[i % 4], HOSTILE) for i, name in enumerate(names)]  # type: ignore[arg-type]
    return page.page(
        f"A page of everything {HOSTILE}",
        [
            page.section(
                f"Head {HOSTILE}",
                page.banner("bad", HOSTILE, HOSTILE),
                page.banner("good", "Passed"),
                page.banner("warn", "Not shown"),
                page.banner("info", "So it is"),
                page.stat_tiles([Tile("Loss", 1.234567, HOSTILE, "good"), Tile("Long", "x" * 60, status="bad"), Tile("None", None)]),
                page.facts({"id": "qdora-" + "0123456789abcdef" * 4, HOSTILE: HOSTILE, "rate": 0.1}),
                intro=HOSTILE,
            ),
            page.section(
                "Charts",
                page.columns(
                    charts.line_chart(
                        [Series("training", loss), Series(HOSTILE, loss[::15], marks=True)], title=f"Loss {HOSTILE}", x_label="step", limit=(1.5, "limit")
                    ),
                    charts.histogram(
                        [source.lognormvariate(7, 0.4) for _ in range(100)], title="Latency", x_label="ms", marks={"p50": 1100, "p95": 2100, "bar": 20}
                    ),
                ),
                charts.interval_bars(rates, title="Rates", limit=0.7),
                charts.bars([Bar("this model", 64, "info"), Bar("nearest training answer", 83.123, "bad")], title="Bars", limit=80),
                charts.timeline([Span("download", 0, 15), Span("train", 15, 3165.2), Span(HOSTILE, 3180, 3, HOSTILE)], title="Phases"),
            ),
            page.section(
                "Table",
                page.table(
                    ("case", "n", "text"), [(f"case-{i}", i * 1000, HOSTILE if i % 2 else "word " * 30) for i in range(12)], search=True, caption=HOSTILE
                ),
                page.details(HOSTILE, page.code(HOSTILE), is_open=True),
                page.badge(HOSTILE, "bad"),
                page.paragraph(HOSTILE),
            ),
        ],
        HOSTILE,
    )


@pytest.mark.parametrize("width", [360, 390, 768, 1366])
@pytest.mark.parametrize("dark", [False, True], ids=["light", "dark"])
def test_it_fits_reads_and_asks_for_nothing(browser: Browser, tmp_path: Path, width: int, dark: bool) -> None:
    page.write(tmp_path / "page.html", everything())
    shown = browser.open(tmp_path / "page.html", width=width, dark=dark)
    assert shown.faults() == {}
    assert shown.run("window.pwned") is None
    assert len(shown.run("measures.drawings()")) == 5


def test_the_search_box_hides_what_does_not_match(browser: Browser, tmp_path: Path) -> None:
    page.write(tmp_path / "page.html", everything())
    shown = browser.open(tmp_path / "page.html")
    assert shown.run("!!document.querySelector('.search').getClientRects().length")
    shown.run("(() => { const i = document.querySelector('.search input'); i.value = 'CASE-1'; i.dispatchEvent(new Event('input')); })()")
    assert shown.run("[...document.querySelectorAll('[data-search] tbody tr')].filter(r => !r.hidden).length") == 3
    assert shown.run("document.querySelector('.search output').textContent") == "3 of 12"


class _Tags(HTMLParser):
    """Every tag is closed in its order."""

    VOID = frozenset(["meta", "input", "br", "img", "link", "hr"])

    def __init__(self) -> None:
        super().__init__()
        self.open: list[str] = []

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        if tag not in self.VOID:
            self.open.append(tag)

    def handle_startendtag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        pass

    def handle_endtag(self, tag: str) -> None:
        assert self.open.pop() == tag


def test_markup_is_whole_and_nothing_foreign_gets_in() -> None:
    document = everything()
    parser = _Tags()
    parser.feed(document)
    assert parser.open == []
    assert "<script>window" not in document and "<img" not in document
    assert document.count("<script>") == 1 and "script-src 'sha256-" in document
    assert "script-src 'none'" in page.page("x", []) and "http" not in page.page("x", []).replace("http-equiv", "").replace("https://jfly", "")


def test_charts_are_valid_xml() -> None:
    for drawn in everything().split("<figure")[1:]:
        for part in drawn.split("<svg")[1:]:
            ElementTree.fromstring("<svg" + part.split("</svg>")[0] + "</svg>")


numbers = st.floats(allow_nan=True, allow_infinity=True)


@given(st.lists(st.tuples(numbers, numbers), max_size=30))
def test_line_charts_draw_any_numbers(points: list[tuple[float, float]]) -> None:
    finite = [p for p in points if all(math.isfinite(v) and abs(v) < 1e300 for v in p)]
    drawn = charts.line_chart([Series("a", [*finite, (math.nan, 1.0)])], title="t")
    assert "nan" not in drawn.split("<details>")[0] and ("<path" in drawn) == bool(finite)


@given(st.lists(st.floats(-1e12, 1e12), max_size=50))
def test_histograms_count_every_value_once(values: list[float]) -> None:
    drawn = charts.histogram(values, title="t")
    if values:
        rows = drawn.split("<tbody>")[1].split("</tbody>")[0].split("</tr>")[:-1]
        assert sum(int(row.rsplit("<td", 1)[1].split(">")[1].split("<")[0].replace(",", "")) for row in rows) == len(values)


@given(st.floats(-1e9, 1e9), st.floats(0, 1e9), st.integers(1, 12))
def test_ticks_are_round_and_span_the_data(low: float, size: float, about: int) -> None:
    high = low + size
    found = svg.ticks(low, high, about)
    slack = 1e-8 * size + 1e-6 * max(1, abs(low))
    assert len(found) >= 2 and found[0] <= low + slack and found[-1] >= high - slack
    assert len(found) <= 2 * about + 4


def test_long_lines_are_thinned_without_losing_their_peaks() -> None:
    points = [(float(i), 0.0) for i in range(10_000)]
    points[5_123] = (5_123.0, 9.0)
    drawn = charts.line_chart([Series("a", points)], title="t")
    assert len(drawn) < 60_000 and "9" in drawn.split("<desc")[0] + drawn
    assert charts._thin(points)[-1] == points[-1] and points[5_123] in charts._thin(points)


@pytest.mark.parametrize(
    ("value", "written"),
    [
        (0, "0"),
        (1234567, "1,234,567"),
        (0.1, "0.1"),
        (1234.5678, "1,235"),
        (0.00012345, "0.0001234"),
        (1e-9, "1.000e-09"),
        (math.nan, "nan"),
        (-2.5, "-2.5"),
        (99.999, "100"),
    ],
)
def test_numbers_as_people_read_them(value: float, written: str) -> None:
    assert page.number(value) == written


@pytest.mark.parametrize(("seconds", "written"), [(0.42, "0.42 s"), (12.34, "12.3 s"), (245, "4 min 05 s"), (7800, "2 h 10 min")])
def test_durations(seconds: float, written: str) -> None:
    assert page.duration(seconds) == written


def test_what_was_not_measured_is_said() -> None:
    assert "Nothing was measured" in charts.line_chart([], title="t") and "Nothing was measured" in charts.bars([Bar("a", math.nan)], title="t")
    assert "–" in page.text(None) and page.text(True) == "yes" and isinstance(page.text(Html("<b>")), Html)


def test_a_page_is_written_whole(tmp_path: Path) -> None:
    page.write(tmp_path / "a" / "b.html", "x")
    assert [file.name for file in (tmp_path / "a").iterdir()] == ["b.html"]


@pytest.mark.parametrize("seconds", [600, 597, 3600, 59.9, 86400])
def test_a_clock_label_at_the_end_of_a_timeline_is_not_cut(seconds: float) -> None:
    drawn = charts.timeline([Span("serve", 0, seconds / 2), Span("evaluate", seconds / 2, seconds / 2)], title="Phases")
    for chart in re.findall(r"<svg.*?</svg>", drawn, re.DOTALL):
        width = float(re.search(r'viewBox="0 0 (\d+)', chart)[1])  # type: ignore[index]
        labels = [(float(x), label) for x, label in re.findall(r'<text x="([\d.]+)"[^>]*text-anchor="middle"[^>]*>([^<]+)</text>', chart)]
        assert labels
        assert all(x + svg.label_width(label) / 2 <= width for x, label in labels), labels
