"""A stranger's first screen: was the run good, and why. The report and the run's page of `elson view` say the same."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import pytest

from runners.artifacts.record import Gate
from runners.evaluation import why
from runners.evaluation.report import MEANING, headline, sentence
from runners.evaluation.results import EXIT_CODES, EvaluationResult, Verdict
from runners.local import report
from runners.local.run import load_profile
from runners.spec import BucketSpec
from runners.view import screens
from runners.view.runs import load
from tests.browser import Browser
from tests.view.conftest import HOSTILE, result

LEARNED = {"before": 3.528, "after": 3.112, "steps": 30, "examples": 1200}
GATES = [("merge", Gate(name="mean KL", value=0.01, bound=0.3, rule="at most")), ("quantize", Gate(name="ratio", value=1.05, bound=1.15, rule="at most"))]


def said(training: dict[str, Any], gates: list[tuple[str, Gate]], results: dict[str, EvaluationResult]) -> dict[str, tuple[str, str]]:
    """Question -> (status, answer)."""
    made = why.section(training, gates, results)
    rows = re.findall(r'<dt class="(\w+)">(?:<span.*?</span>\u00a0)?(.*?)</dt><dd>(.*?)</dd>', made)
    return {asked: (status, answer) for status, asked, answer in rows}


def test_a_good_run_says_yes_to_everything() -> None:
    results = {"base": result("a", 1, "x"), "tuned": result("b", 11, "x"), "quantized": result("c", 12, "x")}
    results["quantized"] = results["quantized"].model_copy(update={"failures": {}})
    found = said(LEARNED, GATES, results)
    assert found["Did it learn?"] == ("good", "yes: validation loss 3.528 → 3.112 in 30 steps on 1,200 pairs")
    assert found["Did that help?"] == ("good", "yes: 11 of 12 cases right, 1 before training")
    assert found["Was quality kept?"] == ("good", "yes: 2 of 2 gates passed (merge and quantize)")
    assert found["What goes wrong?"][0] == "good" and found["What goes wrong?"][1].startswith("of 12 answers of the quantized model: nothing; an answer takes ")


def test_a_bad_run_says_where() -> None:
    results = {"base": result("a", 11, "x"), "tuned": result("b", 1, "x")}
    results["tuned"] = results["tuned"].model_copy(update={"failures": {"wrong": 6, "judged wrong": 1, "truncated": 4, "empty": 0}})
    failed = Gate(name="mean KL", value=0.5, bound=0.3, rule="at most")
    found = said({"before": 3.0, "after": 3.2}, [*GATES, ("quantize", failed)], results)
    assert found["Did it learn?"] == ("bad", "no: validation loss 3.000 → 3.200")
    assert found["Did that help?"][0] == "bad" and "1 of 12 cases right, 11 before training" in found["Did that help?"][1]
    assert found["Was quality kept?"] == ("bad", "no: 1 of 3 gates failed: quantize, mean KL 0.5 (at most 0.3)")
    assert "of 12 answers of the tuned model: 7 wrong, 4 cut off at the token limit" in found["What goes wrong?"][1]


def test_what_was_not_measured_is_left_out_and_too_few_cases_show_nothing() -> None:
    assert why.section({}, [], {}) == ""
    assert said({}, [], {"quantized": result("c", 3, "x")}).keys() == {"What goes wrong?"}
    status, text = said({}, [], {"base": result("a", 3, "x"), "tuned": result("b", 5, "x")})["Did that help?"]
    assert status == "warn" and text == "not shown: 5 of 12 cases right, 3 before training; too few changed to tell"


def test_every_outcome_has_a_meaning_and_no_missed_bar_is_dropped() -> None:
    assert MEANING.keys() == EXIT_CODES.keys()
    bars = tuple(f"domain {number}: 0 of 2 (0.0%), bar 70%: failed" for number in range(19))
    log_line = f"19 bar(s) missed: {bars[0]}"
    made = headline(result("a", 3, HOSTILE).model_copy(update={"verdict": Verdict(outcome="not passed", headline=log_line, reasons=bars)}))
    assert "Not passed: 3 of 12 cases are right; the bar is 80 %" in made and log_line not in made
    assert made.count("<li>") == 19 and "Every reason (19)" in made


@pytest.fixture
def report_of_a_run(runs: BucketSpec) -> str:
    """The report of the hostile run, its cases many and its answers long."""
    run = load(runs, "here").run(f"dora-{1:016x}")
    assert run
    long = "A long answer that goes on. " * 40
    results = {name: result(name, right, f"{HOSTILE} {long}", 60) for name, right in (("base", 2), ("tuned", 9), ("quantized", 9))}
    phases = [{"name": "train", "started_at": "2026-11-27T03:07:12+00:00", "seconds": 537.0}]
    cloud = {"session_s": 610, "session_usd": 0.68, "machines": "a3-highgpu-1g (spot)", "prices_of": "2026-11-22"}
    summary = {"run": "local-1", "served": "q4", "finished_at": "2026-11-27T03:32:59", "training": LEARNED, "phases": phases, "peak_mib": {"train": 4594.0}}
    summary |= {"in_the_cloud": cloud, "bytes": {"q4": 118_000_000}}
    return report.document(load_profile("local"), run.records, results, summary)


@pytest.mark.parametrize(("width", "dark"), [(390, False), (390, True), (1366, False), (1366, True)])
def test_the_first_screen_of_a_report_says_whether_and_why(browser: Browser, report_of_a_run: str, tmp_path: Path, width: int, dark: bool) -> None:
    (tmp_path / "report.html").write_text(report_of_a_run)
    shown = browser.open(tmp_path / "report.html", width=width, height=844, dark=dark)
    assert shown.faults() == {} and shown.run("window.pwned") is None
    verdict = "document.querySelector('.banner').getBoundingClientRect()"
    assert shown.run(f"{verdict}.bottom") < 844
    assert shown.run("document.querySelector('.why dd:last-child').getBoundingClientRect().bottom") < (844 if width > 600 else 2 * 844)
    assert shown.run("document.querySelectorAll('#what-the-model-says details.case').length") == 10, "self-contained: the cases are in it"
    assert shown.run("document.querySelectorAll('#what-the-model-says h3').length") == 30, "each with base, tuned and quantized"
    shown.run("document.querySelectorAll('details').forEach(d => d.open = true)")
    assert shown.faults() == {}


def test_the_page_of_a_run_says_the_same(runs: BucketSpec) -> None:
    bucket = load(runs, "here")
    run, unmeasured = bucket.run(f"dora-{0:016x}"), bucket.run(f"dora-{2:016x}")
    assert run and unmeasured
    first = screens.one(bucket, run).split("</section>")[0]
    for text in ("Not passed: 9 of 12 cases are right", "Did it learn?", "Did that help?", "9 of 12 cases right, 1 before training", "1 of 1 gates passed"):
        assert text in first, text
    assert "Not evaluated" in screens.one(bucket, unmeasured).split("</section>")[0]


def test_the_end_of_a_run_on_a_terminal_is_sentences() -> None:
    """What was learned, what it cost in quality, the score with its meaning, where to look, what to do next; no line of the log."""
    found = result("q", 3, "x")
    gates = [{"stage": stage, **gate.model_dump(), "passed": gate.passed} for stage, gate in GATES]
    quality = {"line": found.line, "outcome": "not passed", "sentence": sentence(found)}
    summary = {"training": LEARNED, "gates": gates, "evaluation": quality, "phases": [], "peak_mib": {}, "skipped": [], "compared": "not asked"}
    summary |= {"served": "q4", "report": "report.html", "in_the_cloud": {"session_usd": 0.68}}
    lines = report.as_text(summary).splitlines()
    assert "score     not passed: 3 of 12 cases are right; the bar is 80 %" in lines and "quality   2 of 2 gates passed" in lines
    assert {line.split()[0] for line in lines if not line.startswith(" ")} == {"learned", "quality", "score", "compared", "took", "model", "look", "next"}
    assert "|" not in "".join(lines)
    failed = {"stage": "quantize", "name": "mean KL", "value": 0.5, "bound": 0.3, "rule": "at most", "passed": False}
    assert "2 of 3 gates passed; quantize mean KL 0.5 (at most 0.3)" in report.as_text(summary | {"gates": [*gates, failed]})
