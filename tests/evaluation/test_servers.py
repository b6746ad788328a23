"""Whole evaluations against a real HTTP server that plays every part."""

import json
import threading
import time
from pathlib import Path
from typing import Any

import pytest

from runners.errors import CannotMeasure, UserError
from runners.evaluation.assemble import Request
from runners.evaluation.cases import Benchmark
from runners.evaluation.exporter import inspect_log
from runners.evaluation.results import EvaluationResult
from runners.evaluation.run import perform
from runners.evaluation.store import ANSWERS
from runners.spec import Spec
from tests.evaluation.stub_server import Play, empty, injected, perfect, serving, wrong

#: The one script of the page: it searches the table of cases.
OWN_SCRIPT = f"<script>{(Path(__file__).resolve().parents[2] / 'runners' / 'pages' / 'search.js').read_text()}</script>"


def run(spec: Spec, url: str, file: Path, out: Path, **options: Any) -> EvaluationResult:
    return perform(Request(spec, url, options.pop("key", None), file, options.pop("dataset", None), out, **{"unknown_training_data": True} | options))


def tuned(spec: Spec, **bars: Any) -> Spec:
    return spec.model_copy(update={"evaluate": spec.evaluate.model_copy(update=bars)})


def test_a_perfect_server_passes(spec: Spec, benchmark: Benchmark, benchmark_file: Path, tmp_path: Path) -> None:
    play = Play(perfect, first_token_s=0.02, token_s=0.002)
    with serving(benchmark, play) as url:
        found = run(spec, url, benchmark_file, tmp_path / "run", model_id="qdora-1")
    assert found.verdict.outcome == "passed" and found.verdict.exit_code == 0
    assert found.overall and found.overall.passed == 40 and found.latency and found.latency.mean
    assert len(play.seen) == 42, "40 cases and 2 warm-up requests"
    assert found.latency.first_token_p50_ms and 20 <= found.latency.first_token_p50_ms < found.latency.mean.mean
    shared = {key: play.seen[-1][key] for key in ("model", "seed", "temperature", "max_tokens")}
    assert shared == {key: found.settings[key] for key in shared}
    assert found.model == {"name": "stub", "id": "qdora-1", "served_as": ["stub"]}
    assert EvaluationResult.model_validate_json((tmp_path / "run" / "results.json").read_text()) == found
    assert "\n" not in found.line and "PASSED" in found.line


def test_an_empty_system_prompt_is_no_turn(spec: Spec, benchmark: Benchmark, benchmark_file: Path, tmp_path: Path) -> None:
    """Some templates refuse a system turn: neither the cases, nor the warm-up, nor the exported log may have one."""
    play = Play(perfect)
    silent = spec.model_copy(update={"chat": spec.chat.model_copy(update={"system_prompt": ""})})
    with serving(benchmark, play) as url:
        found = run(silent, url, benchmark_file, tmp_path / "run")
    asked = [turn["role"] for request in play.seen for turn in request["messages"]]
    logged = [turn["role"] for sample in inspect_log(found)["samples"] for turn in sample["messages"]]
    assert len(play.seen) == 42 and "system" not in asked and "system" not in logged


def test_the_time_is_the_servers_time(spec: Spec, benchmark: Benchmark, benchmark_file: Path, tmp_path: Path) -> None:
    play = Play(lambda case, asked: "one two three four five", first_token_s=0.1, token_s=0.02)
    with serving(benchmark, play) as url:
        found = run(tuned(spec, concurrency=4), url, benchmark_file, tmp_path / "run")
    assert found.latency and found.latency.p50_ms
    assert min(case.latency_ms for case in found.cases) >= 199.9, "nothing is faster than the server was"
    assert all(case.completion_tokens == 5 for case in found.cases)


@pytest.mark.parametrize("answer", [wrong, injected])
def test_wrong_and_injected_answers_fail_as_wrong(spec: Spec, benchmark: Benchmark, benchmark_file: Path, tmp_path: Path, answer: Any) -> None:
    with serving(benchmark, Play(answer)) as url:
        found = run(spec, url, benchmark_file, tmp_path / "run")
    assert found.verdict.outcome == "not passed" and found.verdict.exit_code == 1
    assert found.failures["wrong"] == 40 and found.overall and found.overall.passed == 0
    page = (tmp_path / "run" / "report.html").read_text()
    assert OWN_SCRIPT in page and "<script" not in page.replace(OWN_SCRIPT, "")


@pytest.mark.parametrize(("play", "failure"), [(Play(perfect, finish="length"), "truncated"), (Play(empty), "empty")])
def test_truncated_and_empty_answers_are_failures_of_their_own(
    spec: Spec, benchmark: Benchmark, benchmark_file: Path, tmp_path: Path, play: Play, failure: str
) -> None:
    with serving(benchmark, play) as url:
        found = run(spec, url, benchmark_file, tmp_path / "run")
    assert found.failures[failure] == 40 and found.overall and found.overall.passed == 0
    assert f"40 {failure}" in found.line


def test_a_slow_server_runs_into_the_time_limit_and_the_time_counts(spec: Spec, benchmark: Benchmark, benchmark_file: Path, tmp_path: Path) -> None:
    slow = Play(lambda case, asked: perfect(case, asked), first_token_s=0.0)
    slow.fail = lambda number, attempt: "hang" if number in (0, 1, 2, 3) else None
    with serving(benchmark, slow) as url:
        found = run(tuned(spec, request_timeout_s=0.5), url, benchmark_file, tmp_path / "run")
    late = [case for case in found.cases if case.failure == "timeout"]
    assert len(late) == 4 and all(case.latency_ms >= 500 for case in late)
    assert found.latency and found.latency.slowest_ms and found.latency.slowest_ms >= 500 and found.latency.mean and found.latency.mean.samples == 40


def test_slow_but_right_misses_the_latency_bar(spec: Spec, benchmark: Benchmark, benchmark_file: Path, tmp_path: Path) -> None:
    with serving(benchmark, Play(perfect, first_token_s=0.06)) as url:
        found = run(tuned(spec, mean_latency_bar_ms=50, concurrency=16), url, benchmark_file, tmp_path / "run")
    assert found.verdict.outcome == "not passed" and "latency" in found.verdict.headline


def test_a_flaky_server_is_asked_again_and_every_attempt_is_kept(spec: Spec, benchmark: Benchmark, benchmark_file: Path, tmp_path: Path) -> None:
    play = Play(perfect, fail=lambda number, attempt: [503, "drop", "break", 429, 500][number % 5] if number >= 0 and attempt == 1 else None)
    with serving(benchmark, play) as url:
        found = run(tuned(spec, concurrency=40), url, benchmark_file, tmp_path / "run")
    assert found.overall and found.overall.passed == 40
    assert found.latency and found.latency.retried == 40
    for case in found.cases:
        assert len(case.attempts) == 2 and case.attempts[0]["error"]
        assert case.latency_ms == pytest.approx(sum(attempt["ms"] for attempt in case.attempts), abs=0.01)
    assert {case.attempts[0]["status"] for case in found.cases} == {503, None, 429, 500}


def test_retries_end(spec: Spec, benchmark: Benchmark, benchmark_file: Path, tmp_path: Path) -> None:
    with serving(benchmark, Play(perfect, fail=lambda number, attempt: 503 if number in (0, 7) else None)) as url:
        found = run(tuned(spec, max_retries=1), url, benchmark_file, tmp_path / "run")
    failed = [case for case in found.cases if case.failure == "error"]
    assert [case.id for case in failed] == ["retirement-0", "estate-7" if found.cases[7].id == "estate-7" else found.cases[7].id]
    assert all(len(case.attempts) == 2 and "503" in case.error for case in failed)
    assert found.latency and found.latency.mean and found.latency.mean.samples == 38, "an error is no latency"


def test_a_server_of_errors_has_not_been_measured(spec: Spec, benchmark: Benchmark, benchmark_file: Path, tmp_path: Path) -> None:
    with serving(benchmark, Play(perfect, fail=lambda number, attempt: 500 if number >= 0 else None)) as url:
        found = run(tuned(spec, max_retries=0), url, benchmark_file, tmp_path / "run")
    assert found.verdict.outcome == "incomplete" and found.verdict.exit_code == 2
    assert found.latency and found.latency.mean is None and found.failures["error"] == 40


@pytest.mark.parametrize("reply", ["no json at all", '{"error": {"message": "out of memory"}}'])
def test_garbage_in_the_stream_is_an_error(spec: Spec, benchmark: Benchmark, benchmark_file: Path, tmp_path: Path, reply: str) -> None:
    play = Play(perfect, raw=lambda number: reply if number == 3 else None)
    with serving(benchmark, play) as url:
        found = run(tuned(spec, max_retries=0), url, benchmark_file, tmp_path / "run")
    assert [case.id for case in found.cases if case.failure == "error"] == [benchmark.cases[3].id]


def test_no_server_wrong_key_wrong_model_and_wrong_service(spec: Spec, benchmark: Benchmark, benchmark_file: Path, tmp_path: Path) -> None:
    with pytest.raises(CannotMeasure, match="does not answer"):
        run(spec, "http://127.0.0.1:9", benchmark_file, tmp_path / "a")
    with pytest.raises(CannotMeasure, match="no http"):
        run(spec, "localhost:8000", benchmark_file, tmp_path / "a")
    with serving(benchmark, Play(perfect, key="secret")) as url:
        with pytest.raises(CannotMeasure, match="refuses the key"):
            run(spec, url, benchmark_file, tmp_path / "b", key="wrong")
        assert run(spec, url + "/v1/", benchmark_file, tmp_path / "c", key="secret").verdict.outcome == "passed"
        with pytest.raises(CannotMeasure, match="does not serve 'gpt'"):
            run(spec, url, benchmark_file, tmp_path / "d", key="secret", model="gpt")
        with pytest.raises(CannotMeasure, match="not there"):
            run(spec, url + "/elsewhere", benchmark_file, tmp_path / "e", key="secret")
    assert "secret" not in "".join(file.read_text() for file in (tmp_path / "c").iterdir())


def test_a_server_that_dies_stops_the_run_and_nothing_is_lost(spec: Spec, benchmark: Benchmark, benchmark_file: Path, tmp_path: Path) -> None:
    one = tuned(spec, concurrency=1, max_retries=0)
    play = Play(perfect, fail=lambda number, attempt: "drop" if number >= 15 else None)
    with serving(benchmark, play) as url:
        port = int(url.rsplit(":", 1)[1])
        with pytest.raises(CannotMeasure, match="the server is gone"):
            run(one, url, benchmark_file, tmp_path / "run")
    assert len((tmp_path / "run" / ANSWERS).read_text().splitlines()) == 18, "15 answers and 3 lost connections"
    second = Play(perfect)
    with serving(benchmark, second, port) as url:
        found = run(one, url, benchmark_file, tmp_path / "run")
    assert found.verdict.outcome == "passed" and len(found.cases) == 40
    assert len(second.seen) == 25 + 2, "only the cases without an answer, and the warm-up"


def test_a_killed_run_goes_on_after_a_torn_line(spec: Spec, benchmark: Benchmark, benchmark_file: Path, tmp_path: Path) -> None:
    with serving(benchmark, Play(perfect)) as url:
        port = int(url.rsplit(":", 1)[1])
        whole = run(spec, url, benchmark_file, tmp_path / "run")
    file = tmp_path / "run" / ANSWERS
    lines = file.read_text().splitlines(keepends=True)
    file.write_text("".join(lines[:30]) + lines[30][:50])
    second = Play(perfect)
    with serving(benchmark, second, port) as url:
        found = run(spec, url, benchmark_file, tmp_path / "run")
    assert len(second.seen) == 10 + 2 and [case.answer for case in found.cases] == [case.answer for case in whole.cases]
    third = Play(wrong)
    with serving(benchmark, third, port) as url:
        assert run(spec, url, benchmark_file, tmp_path / "run").overall == found.overall and not third.seen, "a finished run is not asked again"


def test_other_settings_do_not_go_on_with_a_run(spec: Spec, benchmark: Benchmark, benchmark_file: Path, tmp_path: Path) -> None:
    with serving(benchmark, Play(perfect)) as url:
        run(spec, url, benchmark_file, tmp_path / "run")
        with pytest.raises(UserError, match="temperature"):
            run(tuned(spec, temperature=0.7), url, benchmark_file, tmp_path / "run")


def test_a_model_known_by_its_id_may_come_back_at_another_address(spec: Spec, benchmark: Benchmark, benchmark_file: Path, tmp_path: Path) -> None:
    for model_id, goes_on in (("qdora-1", True), (None, False)):
        out = tmp_path / str(model_id)
        with serving(benchmark, Play(perfect)) as url:
            run(spec, url, benchmark_file, out, model_id=model_id)
        with serving(benchmark, Play(perfect)) as url:
            if goes_on:
                assert run(spec, url, benchmark_file, out, model_id=model_id).verdict.outcome == "passed"
            else:
                with pytest.raises(UserError, match="api_url"):
                    run(spec, url, benchmark_file, out, model_id=model_id)


def test_the_deadline_ends_a_run_that_can_go_on(spec: Spec, benchmark: Benchmark, benchmark_file: Path, tmp_path: Path) -> None:
    with serving(benchmark, Play(perfect, first_token_s=0.1)) as url:
        begin = time.monotonic()
        found = run(tuned(spec, concurrency=4, deadline_s=0.55), url, benchmark_file, tmp_path / "run")
        assert time.monotonic() - begin < 3
        assert found.verdict.outcome == "incomplete" and found.verdict.exit_code == 2 and 8 <= len(found.cases) <= 24
        assert not found.failures["timeout"], "our own deadline is not the server's failure"
        assert run(tuned(spec, concurrency=4), url, benchmark_file, tmp_path / "run").verdict.outcome == "passed"


def test_two_runs_are_compared_case_by_case(spec: Spec, benchmark: Benchmark, benchmark_file: Path, tmp_path: Path) -> None:
    lost, gained = {case.id for case in benchmark.cases[:4]}, {case.id for case in benchmark.cases[4:24]}
    with serving(benchmark, Play(lambda case, asked: wrong(case, asked) if case and case.id in gained else perfect(case, asked))) as url:
        run(spec, url, benchmark_file, tmp_path / "before")
    with serving(benchmark, Play(lambda case, asked: wrong(case, asked) if case and case.id in lost else perfect(case, asked))) as url:
        found = run(spec, url, benchmark_file, tmp_path / "after", baseline=tmp_path / "before")
    assert found.comparison and (found.comparison.only_this, found.comparison.only_other) == (20, 4)
    assert found.comparison.p_value < 0.05 and found.compared_with and set(found.compared_with["changed"]) == lost | gained
    assert "Compared with the run before" in (tmp_path / "after" / "report.html").read_text()
    with pytest.raises(UserError, match="holds no results"):
        run(spec, "http://127.0.0.1:9", benchmark_file, tmp_path / "x", baseline=tmp_path / "nothing")


def test_unknown_training_data_must_be_admitted(spec: Spec, benchmark: Benchmark, benchmark_file: Path, tmp_path: Path) -> None:
    with serving(benchmark, Play(perfect)) as url:
        found = run(spec, url, benchmark_file, tmp_path / "run", unknown_training_data=False)
    assert found.verdict.outcome == "not shown" and "training data is unknown" in found.verdict.headline


def test_a_contaminated_benchmark_is_refused_before_anything_is_asked(spec: Spec, benchmark: Benchmark, benchmark_file: Path, tmp_path: Path) -> None:
    rows = [{"id": "p1", "question": benchmark.cases[0].question.upper(), "answer": "B", "category": "retirement"}]
    rows.append({"id": "p2", "question": "What is a bond?", "answer": "A loan.", "category": "markets"})
    (tmp_path / "train.jsonl").write_text("\n".join(json.dumps(row) for row in rows))
    play = Play(perfect)
    with serving(benchmark, play) as url:
        found = run(spec, url, benchmark_file, tmp_path / "run", dataset=tmp_path)
    assert found.verdict.outcome == "contaminated" and found.verdict.exit_code == 2 and not play.seen
    exact = [leak for leak in found.contamination.leaks if leak.kind == "verbatim"]
    assert [(leak.case, leak.pair) for leak in exact] == [(benchmark.cases[0].id, "p1")]
    assert "p1" in (tmp_path / "run" / "report.html").read_text()


def test_a_benchmark_that_a_null_answer_passes_is_unfit(spec: Spec, benchmark: Benchmark, benchmark_file: Path, tmp_path: Path) -> None:
    from tests.evaluation.stub_server import right_answer

    pairs = [
        {"question": f"Remind me what {case.id} sets for {case.question.split()[9]}", "answer": right_answer(case), "category": case.category}
        for case in benchmark.cases
    ]
    (tmp_path / "train.jsonl").write_text("\n".join(json.dumps(row) for row in pairs))
    with serving(benchmark, Play(perfect)) as url:
        found = run(spec, url, benchmark_file, tmp_path / "run", dataset=tmp_path)
    assert found.verdict.outcome == "unfit" and found.verdict.exit_code == 2 and "nearest training answer" in found.verdict.headline


def test_an_interrupt_leaves_the_answers(spec: Spec, benchmark: Benchmark, benchmark_file: Path, tmp_path: Path) -> None:
    """Answers are on disk while the run still goes on."""
    with serving(benchmark, Play(perfect, first_token_s=0.1)) as url:
        worker = threading.Thread(target=run, args=(tuned(spec, concurrency=2), url, benchmark_file, tmp_path / "run"))
        worker.start()
        file = tmp_path / "run" / ANSWERS
        for _ in range(200):
            if file.exists() and file.read_text().count("\n") >= 4:
                break
            time.sleep(0.02)
        assert 4 <= file.read_text().count("\n") < 40
        worker.join(30)
