"""``report.html`` in a real browser, with everything a report can hold."""

import json
from pathlib import Path
from typing import Any

import pytest

from runners.evaluation.assemble import Request
from runners.evaluation.cases import Benchmark, Case
from runners.evaluation.report import document, marked, verdict, whisker
from runners.evaluation.run import perform
from runners.evaluation.statistics import judge_rate
from runners.spec import Spec
from tests.browser import Browser
from tests.evaluation.stub_server import Play, perfect, serving, wrong
from tests.view.conftest import result

HOSTILE = "The amount is $9.99, <script>window.pwned = 1</script><img src=x onerror='window.pwned = 1'> and that is all there is to say. " * 6


def half_right(case: Case | None, asked: dict[str, Any]) -> str:
    if case and int(case.id.rsplit("-", 1)[1]) % 3 == 0:
        return HOSTILE
    return perfect(case, asked)


@pytest.fixture
def report(spec: Spec, benchmark: Benchmark, benchmark_file: Path, tmp_path: Path) -> Path:
    with serving(benchmark, Play(wrong)) as url:
        perform(Request(spec, url, None, benchmark_file, None, tmp_path / "before"))
    fail = Play(half_right, first_token_s=0.01, fail=lambda number, attempt: 500 if number == 5 else None)
    with serving(benchmark, fail) as url:
        perform(Request(spec, url, None, benchmark_file, None, tmp_path / "after", baseline=tmp_path / "before", model_id="qdora-0123456789abcdef"))
    return tmp_path / "after" / "report.html"


@pytest.mark.parametrize(("width", "dark"), [(360, True), (390, False), (1366, False), (1366, True)])
def test_a_full_report_reads_well(browser: Browser, report: Path, width: int, dark: bool) -> None:
    shown = browser.open(report, width=width, dark=dark)
    shown.run("document.querySelectorAll('details').forEach(d => d.open = true)")
    assert shown.faults() == {}
    assert shown.run("window.pwned") is None
    headings = shown.run("[...document.querySelectorAll('h2')].map(h => h.textContent)")
    assert headings == ["Verdict", "Where it is right", "Latency", "Without a model", "Compared with the run before", "Failed cases", "All cases", "Settings"]


def test_the_failed_check_is_marked_in_the_answer(browser: Browser, report: Path) -> None:
    shown = browser.open(report)
    assert "$9.99" in shown.run("[...document.querySelectorAll('#failed-cases mark')].map(m => m.textContent)")
    assert shown.run("document.querySelectorAll('#all-cases tbody tr').length") == 40
    assert shown.run("document.querySelector('.banner').textContent").strip().startswith("✗ Not passed")


def test_a_contaminated_report_lists_both_questions(browser: Browser, spec: Spec, benchmark: Benchmark, benchmark_file: Path, tmp_path: Path) -> None:
    pair = {"id": "pair-7", "question": benchmark.cases[3].question, "answer": "$1", "category": "tax"}
    (tmp_path / "train.jsonl").write_text(json.dumps(pair))
    with serving(benchmark, Play(perfect)) as url:
        perform(Request(spec, url, None, benchmark_file, tmp_path, tmp_path / "run"))
    shown = browser.open(tmp_path / "run" / "report.html", width=390)
    assert shown.faults() == {}
    assert "pair-7" in shown.run("document.querySelector('#contamination').textContent")


def test_marks_are_escaped_and_may_overlap() -> None:
    assert marked("a<b>c", [(1, 4), (2, 5), (0, 0)]) == "a<mark>&lt;b&gt;</mark><mark>c</mark>"
    assert marked("abc", []) == "abc"


def test_the_heading_says_when_it_ended() -> None:
    shown = document(result("q", 3, "x"))
    assert "2026-11-26 10:05 UTC" in shown and "10:00 UTC" not in shown


@pytest.mark.parametrize(("cut", "status"), [(0, "good"), (4, "warn")])
def test_a_short_latency_is_not_green_when_answers_were_cut_off(cut: int, status: str) -> None:
    found = result("q", 3, "x").model_copy(update={"failures": {"truncated": cut}})
    assert found.latency and found.latency.mean and found.latency.mean.outcome == "passed"
    assert f'<div class="tile {status}"><div class="label">Mean latency' in verdict(found)
    assert ("4 answers were cut off" in verdict(found)) == bool(cut)


@pytest.mark.parametrize(("cases", "drawn"), [(1, False), (4, False), (5, True), (100, True)])
def test_a_case_or_two_have_no_whisker(cases: int, drawn: bool) -> None:
    """At 0 % the interval of a single case reaches to 79 %, and would be all that is seen."""
    low, high = whisker(judge_rate(0, cases, 0.7))
    assert low == 0 and (high > 0) == drawn
