"""``report.html`` of an evaluation: the verdict first, then what it rests on, down to each failed check in its answer."""

from __future__ import annotations

import html
from collections.abc import Iterable, Mapping
from typing import Any

from runners.evaluation.acceptance import Acceptance
from runners.evaluation.judge import Judgement
from runners.evaluation.results import CaseResult, EvaluationResult
from runners.evaluation.statistics import Comparison, Rate
from runners.pages import charts, page
from runners.pages.charts import Interval, percent
from runners.pages.page import Html, Status, Tile

_STATUS: dict[str, Status] = {
    "passed": "good",
    "not passed": "bad",
    "failed": "bad",
    "not shown": "warn",
    "contaminated": "bad",
    "unfit": "bad",
    "incomplete": "warn",
}
#: Failed cases shown open on the page; the table below has all.
SHOWN_FAILURES = 25
#: What an outcome means to somebody who sees it for the first time.
MEANING = {
    "passed": "every bar was met, by the lower end of the interval where the sample allows it",
    "not passed": "the model does not meet the bars; one of 135M parameters, as in the demo, is not expected to",
    "not shown": "above the bars, but the sample is too small to show it",
    "contaminated": "no verdict: cases of the benchmark are in the training data",
    "unfit": "no verdict: answers that need no model pass the benchmark",
    "incomplete": "no verdict: some cases were not answered",
}
#: An interval is drawn from so many cases on.
FEWEST_WITH_WHISKER = 5


def document(found: EvaluationResult) -> str:
    """The whole page."""
    name = found.model.get("id") or found.model.get("name") or "no model asked"
    subtitle = f"{name} on {found.benchmark['cases']} cases ({found.benchmark['digest']}), {found.finished_at[:16].replace('T', ' ')} UTC"
    return page.page("Evaluation", [*sections(found), settings(found)], subtitle)


def sections(found: EvaluationResult) -> list[Html]:
    """The parts another report can take over: verdict, rates, latency, baselines, comparison, failed cases, all cases."""
    parts = [verdict(found)]
    if found.contamination.leaks:
        parts.append(leaks(found))
    if found.overall:
        parts += [rates(found), latency(found)]
    if found.acceptance:
        parts.append(accepted(found.acceptance))
    parts.append(beside_the_model(found))
    if found.comparison and found.compared_with:
        parts.append(comparison(found, found.comparison, found.compared_with))
    if found.judge:
        parts.append(judged(found, found.judge))
    if found.cases:
        parts += [failed_cases(found), all_cases(found.cases)]
    return parts


def verdict(found: EvaluationResult) -> Html:
    """Banner and tiles."""
    tiles = []
    if found.overall:
        interval = f"95 % interval {percent(found.overall.low)} to {percent(found.overall.high)}; bar {percent(found.overall.bar)}"
        tiles.append(Tile("Cases passed", f"{found.overall.passed} of {found.overall.cases}", interval, _STATUS[found.overall.outcome]))
    if found.unseen and found.seen:
        alone = f"{found.seen.passed} of {found.seen.cases} of kinds that the training data has"
        tiles.append(Tile("Of unseen kinds", f"{found.unseen.passed} of {found.unseen.cases}", alone, _STATUS[found.unseen.outcome]))
    if found.latency and found.latency.mean:
        mean = found.latency.mean
        cut = found.failures.get("truncated", 0)
        note = f"at concurrency {found.latency.concurrency}; bar {_ms(mean.bar)}{f'; {cut} answers were cut off, a whole one takes longer' if cut else ''}"
        tiles.append(Tile("Mean latency", _ms(mean.mean), note, "warn" if cut and mean.outcome == "passed" else _STATUS[mean.outcome]))
        tiles.append(Tile("p95 latency", _ms(found.latency.p95_ms)))
        tiles.append(Tile("First token, p50", _ms(found.latency.first_token_p50_ms)))
        tiles.append(Tile("Throughput", f"{found.latency.tokens_per_s:.0f} tokens/s" if found.latency.tokens_per_s else None))
    lost = {name: count for name, count in found.failures.items() if name != "wrong"}
    if lost:
        written = ", ".join(f"{count} {name}" for name, count in lost.items() if count) or "none"
        tiles.append(Tile("Without a whole answer", sum(lost.values()), written, "bad" if sum(lost.values()) else "good"))
    return page.section("Verdict", headline(found), page.stat_tiles(tiles))


def sentence(found: EvaluationResult) -> str:
    """The outcome with what it rests on, for somebody who does not know the bars."""
    outcome, said = found.verdict.outcome, found.verdict.headline
    if found.overall and outcome in ("passed", "not passed", "not shown"):
        said = f"{found.overall.passed} of {found.overall.cases} cases are right; the bar is {percent(found.overall.bar)}"
    return f"{outcome}: {said}"


def headline(found: EvaluationResult) -> Html:
    """The outcome in one sentence with its meaning, and every reason below it."""
    outcome, reasons = found.verdict.outcome, found.verdict.reasons
    meaning, said = MEANING[outcome], sentence(found)
    banner = page.banner(_STATUS[outcome], f"{said[0].upper()}{said[1:]}", f"{meaning[0].upper()}{meaning[1:]}.")
    listed = Html(f"<ul>{''.join(f'<li>{html.escape(reason)}</li>' for reason in reasons)}</ul>")
    count = f"Every reason ({len(reasons)})" if len(reasons) > 1 else "The reason"
    return Html(banner + (page.details(count, listed, is_open=1 < len(reasons) <= 3) if reasons else ""))


def rates(found: EvaluationResult) -> Html:
    """Bars with intervals by category, difficulty and kind."""
    bar = next((rate.bar for rate in found.categories.values()), None)
    by_category = charts.interval_bars(_intervals(found.categories), title="Cases passed by category, 95 % interval", limit=bar)
    few = sum(rate.too_few for rate in found.categories.values())
    intro = "The whisker is the 95 % Wilson interval. ✓ above the bar, ✗ not above it, ! above it but not shown by so few cases."
    if few:
        intro += f" {few} categories are too small to show anything by themselves; only their rate is held against the bar."
    overall = _intervals(found.difficulties) + _intervals(found.kinds)
    return page.section("Where it is right", by_category, charts.interval_bars(_plain(overall), title="By difficulty and by kind of question"), intro=intro)


def latency(found: EvaluationResult) -> Html:
    """Distribution and figures."""
    timing = found.latency
    if timing is None or timing.mean is None:
        return page.section("Latency", page.paragraph("No answer came back, so there is no latency."))
    timed = [case.latency_ms for case in found.cases if case.failure != "error"]
    marks = {name: value for name, value in (("p50", timing.p50_ms), ("p95", timing.p95_ms), ("bar (mean)", timing.mean.bar)) if value is not None}
    if timing.mean.bar > 3 * max(timed):
        marks.pop("bar (mean)")
    chart = charts.histogram(timed, title="Latency of a request", x_label="milliseconds", marks=marks)
    first = charts.histogram([c.first_token_ms for c in found.cases if c.first_token_ms is not None], title="Time to the first token", x_label="milliseconds")
    retried = f"{timing.retried} requests were tried more than once" if timing.retried else "no request had to be tried again"
    rows = [
        ("whole answer", _ms(timing.mean.mean), _ms(timing.p50_ms), _ms(timing.p95_ms), _ms(timing.p99_ms), _ms(timing.slowest_ms)),
        ("first token", _ms(timing.first_token_mean_ms), _ms(timing.first_token_p50_ms), _ms(timing.first_token_p95_ms), _ms(timing.first_token_p99_ms), None),
    ]
    figures = page.facts(
        {
            "concurrency": timing.concurrency,
            "time of the run": page.duration(timing.wall_s),
            "requests per second": timing.requests_per_s and round(timing.requests_per_s, 3),
            "tokens per second, all requests": timing.tokens_per_s and round(timing.tokens_per_s, 1),
            "tokens per second of one request, median": timing.tokens_per_s_per_request and round(timing.tokens_per_s_per_request, 1),
            "mean, 95 % interval": f"{_ms(timing.mean.low)} to {_ms(timing.mean.high)}",
        }
    )
    intro = f"On the monotonic clock around each streamed request; warm-up left out, time-outs with the time they took, {retried}."
    return page.section("Latency", page.columns(chart, first), page.table(("", "mean", "p50", "p95", "p99", "slowest"), rows), figures, intro=intro)


def accepted(measured: Acceptance) -> Html:
    """Drafted tokens that the server accepted, by category; the fewest tokens a step first."""
    slowest_first = sorted(measured.categories.items(), key=lambda pair: pair[1].tokens_a_step)
    rows = []
    for name, one in [("all", measured.overall), *slowest_first]:
        share = None if one.share is None else percent(one.share)
        rows.append((name.replace("_", " "), round(one.tokens_a_step, 2), share, one.accepted, one.drafted, one.tokens, one.answers))
    table = page.table(("category", "tokens a step", "share", "accepted", "drafted", "tokens", "answers"), rows)
    intro = f"{measured.method or 'The server'} drafts {measured.draft_tokens} tokens a step. The plan of a server counts with these figures:"
    return page.section("Speculative decoding", page.code("elson plan -s serve-l4 --evaluation RUN"), table, intro=intro)


def beside_the_model(found: EvaluationResult) -> Html:
    """The null baselines, with the model in the same chart."""
    rows = [Interval("this model", found.overall.rate, found.overall.low, found.overall.high, "info", found.overall.sentence)] if found.overall else []
    rows += [Interval(b.name, b.result.rate, b.result.low, b.result.high, "bad" if b.passes else "none", b.explanation) for b in found.baselines]
    bar = next((b.result.bar for b in found.baselines), None)
    chart = charts.interval_bars(rows, title="Cases passed without a model, and with it", limit=bar)
    intro = "Answers that need no model. One that passes the bar shows that the benchmark is unfit."
    if not found.contamination.pairs:
        intro += " No training data was given, so those that copy from it are missing."
    else:
        checked = found.contamination
        intro += f" Compared with {checked.pairs:,} training pairs of {checked.dataset}: {checked.leaked} of the cases are among them."
    return page.section("Without a model", chart, intro=intro)


def leaks(found: EvaluationResult) -> Html:
    """Cases and training questions side by side."""
    rows = [(leak.case, leak.kind, round(leak.similarity, 3), leak.question, leak.pair, leak.training_question) for leak in found.contamination.leaks]
    table = page.table(("case", "kind", "similarity", "benchmark question", "pair", "training question"), rows, search=len(rows) > 10)
    return page.section(
        "Contamination", table, intro=f"Word-set Jaccard similarity at or above {found.contamination.threshold:g}, or the same after normalisation."
    )


def comparison(found: EvaluationResult, counted: Comparison, other: dict[str, Any]) -> Html:
    """The earlier run beside this one."""
    status: Status = "info" if counted.p_value >= 0.05 else "good" if counted.only_this > counted.only_other else "bad"
    questions = {case.id: case for case in found.cases}
    rows = [
        (name, page.badge("gained", "good") if after else page.badge("lost", "bad"), questions[name].question, other["answers"][name], questions[name].answer)
        for name, (_, after) in other["changed"].items()
    ]
    facts = page.facts(
        {
            "other run": f"{other['model'].get('id') or other['model'].get('name')}, {other['finished_at'][:16].replace('T', ' ')}",
            "passed by both": counted.both,
            "passed by neither": counted.neither,
            "cases only there": len(other["only_there"]),
            "cases only here": len(other["only_here"]),
            "mean latency there": _ms(other["mean_latency_ms"]),
        }
    )
    table = page.table(("case", "", "question", "answer then", "answer now"), rows, caption="Changed cases") if rows else page.paragraph("No case changed.")
    return page.section("Compared with the run before", page.banner(status, counted.sentence), facts, table)


def judged(found: EvaluationResult, judge: Judgement) -> Html:
    """What the judge said, and how far it can be believed."""
    believed = f"It gave zero to all {judge.injections} answers that ask for full marks." if judge.fit else f"It gave marks to {', '.join(judge.fooled)}."
    fit: tuple[Status, str] = ("good", "The judge is believed") if judge.fit else ("bad", "The judge is not believed, and changed nothing")
    questions = {case.id: case for case in found.cases}
    rows = [
        (name, seen.score, "passed" if all(check["passed"] for check in questions[name].checks) else "failed", questions[name].question, seen.reason)
        for name, seen in judge.cases.items()
    ]
    facts = page.facts(
        {
            "judge": judge.model,
            "agrees with the checks": None if judge.agreement is None else charts.percent(judge.agreement),
            "Cohen's kappa": judge.kappa,
            "without a usable grade": judge.unusable,
        }
    )
    table = page.table(("case", "grade", "checks", "question", "reason"), rows, search=len(rows) > 10)
    return page.section(
        "Judge", page.banner(*fit, believed), facts, table, intro="Another model, by each case's rubric. It can take a pass away, never give one."
    )


def failed_cases(found: EvaluationResult) -> Html:
    """Each failed case with its answer; what a check rests on is marked in it."""
    failed = [case for case in found.cases if not case.passed]
    if not failed:
        return page.section("Failed cases", page.paragraph("None."))
    blocks = "".join(_failed(case) for case in failed[:SHOWN_FAILURES])
    rest = f" The first {SHOWN_FAILURES} are shown here, all of them in the table below." if len(failed) > SHOWN_FAILURES else ""
    return page.section("Failed cases", blocks, intro=f"{len(failed)} of {len(found.cases)}. Marked is what a failed check found instead.{rest}")


def _failed(case: CaseResult) -> Html:
    facts = f"{case.category}, {case.difficulty}, {_ms(case.latency_ms)}, {case.completion_tokens or 0} tokens{', ' + case.error if case.error else ''}"
    found = _said(case, [check for check in case.checks if not check["passed"]])
    return page.details(_summary(case, _state(case)), f'{found}{_checks(case)}<p class="intro">{html.escape(facts)}</p>', kind="case")


def side_by_side(case: CaseResult, answers: Mapping[str, CaseResult | None], *, is_open: bool = False) -> Html:
    """A case, folded to its question and outcomes, and what each model answered to it; what a check rests on is marked in the answer."""
    found = {name: one for name, one in answers.items() if one}
    states = " ".join(f'<span class="state">{page.text(name)} {_state(one)}</span>' for name, one in found.items())
    blocks = "".join(_answer(name, one) for name, one in found.items())
    return page.details(_summary(case, Html(states)), f'<div class="answers">{blocks}</div>', is_open=is_open, kind="case")


def _summary(case: CaseResult, states: Html) -> Html:
    about = ", ".join(html.escape(word) for word in (case.id, case.category, case.difficulty) if word)
    return Html(f'{html.escape(case.question)}<span class="states">{states} · {about}</span>')


def _state(case: CaseResult) -> Html:
    return page.badge("passed", "good") if case.passed else page.badge(case.failure or "failed", "bad")


def _answer(name: str, case: CaseResult) -> str:
    checks = page.details("Checks", _checks(case)) if case.checks else ""
    return f"<div><h3>{page.text(name)} {_state(case)}</h3>{_said(case, case.checks)}{checks}</div>"


def _said(case: CaseResult, checks: Iterable[Mapping[str, Any]]) -> str:
    """The answer with what these checks rest on marked, or why there is none."""
    spans = [(int(start), int(end)) for check in checks for start, end in check.get("spans", ())]
    return f"<pre>{marked(case.answer, spans)}</pre>" if case.answer else page.paragraph(case.error or "no answer")


def _checks(case: CaseResult) -> Html:
    rows = [(page.badge("passed", "good") if check["passed"] else page.badge("failed", "bad"), check["name"], check["reason"]) for check in case.checks]
    return page.table(("", "check", "reason"), rows)


def marked(answer: str, spans: Iterable[tuple[int, int]]) -> Html:
    """The answer, escaped, with the spans marked; spans may overlap."""
    parts, position = [], 0
    for start, end in sorted(spans):
        start = max(start, position)
        if start < end:
            parts += [html.escape(answer[position:start]), f"<mark>{html.escape(answer[start:end])}</mark>"]
            position = end
    return Html("".join([*parts, html.escape(answer[position:])]))


def all_cases(cases: Iterable[CaseResult]) -> Html:
    """A table with a search box, folded away."""
    rows = [(c.id, c.category, c.difficulty, _state(c), round(c.latency_ms), c.completion_tokens, c.question, page.cut(c.answer, 240)) for c in cases]
    table = page.table(("case", "category", "difficulty", "", "ms", "tokens", "question", "answer"), rows, search=True, cards=True)
    return page.section("All cases", page.details(f"The answers to all {len(rows)} cases", table))


def settings(found: EvaluationResult) -> Html:
    """What every request shared, and where this ran."""
    code = f"{found.code.get('commit')}{' with changes' if found.code.get('dirty') else ''}"
    server = found.served_with.model_dump() if found.served_with else {"server's cache": "not told"}
    facts = {**{key: value for key, value in found.settings.items() if key != "system_prompt"}, **server, "code": code, **found.machine}
    shown = {key.replace("_", " "): value if isinstance(value, (str, int, float, bool)) else str(value) for key, value in facts.items()}
    prompt = found.settings.get("system_prompt")
    elsewhere = page.paragraph("In Inspect AI's viewer, from the folder of this page (pip install inspect-ai):")
    commands = page.code("elson evaluate export .\ninspect view --log-dir inspect")
    return page.section("Settings", page.facts(shown), page.details("System prompt", page.code(str(prompt))) if prompt else "", elsewhere, commands)


def _intervals(rated: dict[str, Rate]) -> list[Interval]:
    return [
        Interval(
            name.replace("_", " "),
            r.rate,
            *whisker(r),
            "warn" if r.too_few else _STATUS[r.outcome],
            f"{r.passed} of {r.cases}{', too few to show' if r.too_few else ''}",
        )
        for name, r in rated.items()
    ]


def whisker(rate: Rate) -> tuple[float, float]:
    """The ends of the interval to draw. That of a case or two spans nearly everything and would be all that is seen: then none."""
    return (rate.low, rate.high) if rate.cases >= FEWEST_WITH_WHISKER else (rate.rate, rate.rate)


def _plain(rows: list[Interval]) -> list[Interval]:
    return [Interval(f"{row.label}", row.value, row.low, row.high, "none", row.note) for row in rows]


def _ms(value: float | None) -> str | None:
    return None if value is None else f"{value:,.0f} ms"
