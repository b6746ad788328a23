"""One evaluation from end to end: check the benchmark, refuse contamination, run the null baselines, ask, score, decide, report."""

from __future__ import annotations

import asyncio
import json
import shutil
import time
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from runners import log, page, record
from runners.errors import CannotMeasure, UserError
from runners.evaluation import baselines, cases, contamination, report, results
from runners.evaluation.cases import Benchmark, Case
from runners.evaluation.client import Endpoint, Settings
from runners.evaluation.contamination import Contamination, Pair
from runners.evaluation.results import EvaluationResult, Verdict
from runners.evaluation.scoring import score
from runners.evaluation.store import REPORT, RESULTS, Answer, Store
from runners.evaluation.verdict import compare, judge_rate
from runners.spec import Spec

WARM_UP = "In one sentence, what is compound interest?"


@dataclass(frozen=True)
class Request:
    """What to measure, and against what; see :func:`runners.evaluation.evaluate`."""

    spec: Spec
    api_url: str
    api_key: str | None
    benchmark: Path
    dataset: Path | None
    out: Path
    model: str | None = None
    model_id: str | None = None
    baseline: Path | None = None
    judge_key: str | None = None
    unknown_training_data: bool = False


@dataclass(frozen=True)
class Prepared:
    """What is known before the first request."""

    benchmark: Benchmark
    pairs: tuple[Pair, ...]
    contamination: Contamination
    baselines: tuple[baselines.Baseline, ...]
    other: EvaluationResult | None


def perform(request: Request) -> EvaluationResult:
    """Run it, write the files, return what was found."""
    started_at = record.now()
    prepared = prepare(request)
    for baseline in prepared.baselines:
        log.event(f"null baseline: {baseline.name}", passed=baseline.result.passed, cases=baseline.result.cases, fit=not baseline.passes)
    if prepared.contamination.leaks:
        log.error("the benchmark is contaminated: nothing is asked", leaked=prepared.contamination.leaked, exact=prepared.contamination.exact)
        found = _result(request, prepared, started_at, results.contaminated(prepared.contamination), {})
    else:
        found = asyncio.run(_measured(request, prepared, started_at))
    write(found, request.out)
    (log.event if found.verdict.outcome == "passed" else log.warning)(found.line, report=str(request.out / REPORT))
    return found


def prepare(request: Request) -> Prepared:
    """Everything that needs no server: load, compare with the training data, run the baselines. Raises UserError."""
    bars = request.spec.evaluate
    benchmark = cases.sample(cases.load(request.benchmark), bars.max_cases)
    pairs = contamination.read_pairs(request.dataset) if request.dataset else ()
    checked = contamination.check(benchmark.cases, pairs, threshold=request.spec.data.leak_jaccard, dataset=dataset_name(request))
    null = baselines.run(benchmark.cases, pairs, bars.overall_bar)
    return Prepared(benchmark, pairs, checked, tuple(null), read(request.baseline) if request.baseline else None)


def dataset_name(request: Request) -> str | None:
    """The id of the dataset that was compared with, as its record, the spec or its path tells."""
    if request.dataset is None:
        return None
    try:
        return str(json.loads((request.dataset / record.RECORD).read_text())["id"])
    except (OSError, ValueError, KeyError, TypeError):
        return request.spec.dataset.id or request.dataset.name


def read(folder: Path) -> EvaluationResult:
    """The results of an earlier run. Raises UserError."""
    file = folder / RESULTS if folder.is_dir() else folder
    try:
        return EvaluationResult.model_validate_json(file.read_text())
    except (OSError, ValueError) as error:
        raise UserError(
            f"{file} holds no results: {str(error).splitlines()[0]}", "the folder of a finished `elson evaluate`", "pass another --baseline"
        ) from None


def write(found: EvaluationResult, out: Path) -> None:
    """``results.json`` and ``report.html``."""
    out.mkdir(parents=True, exist_ok=True)
    partial = out / f".{RESULTS}.partial"
    partial.write_text(found.model_dump_json(indent=1))
    partial.replace(out / RESULTS)
    page.write(out / REPORT, report.document(found))


def throw_away(out: Path) -> None:
    """Forget an earlier run in this folder; only files that an evaluation writes."""
    from runners.evaluation.store import ANSWERS, REQUEST

    for name in (REQUEST, ANSWERS, RESULTS, REPORT):
        (out / name).unlink(missing_ok=True)
    shutil.rmtree(out / "inspect", ignore_errors=True)


async def _measured(request: Request, prepared: Prepared, started_at: str) -> EvaluationResult:
    bars = request.spec.evaluate
    settings = Settings(request.api_url, "", bars.max_tokens, bars.temperature, bars.seed, bars.request_timeout_s, bars.max_retries)
    async with Endpoint(settings, request.api_key) as server:
        served = await server.models()
        server.settings = settings = Settings(**{**asdict(settings), "model": choose(served, request.model, request.spec.serve.served_model_name)})
        shared = shared_request(request, settings, prepared.benchmark)
        store = Store(request.out, shared, prepared.benchmark.cases)
        left = [case for case in prepared.benchmark.cases if case.id not in store.answers]
        if store.answers and left:
            log.event("going on with an interrupted run", answered=len(store.answers), left=len(left))
        if left:
            await _warm_up(server, request.spec)
            await _ask_all(server, request.spec, left, store)
    return _result(
        request,
        prepared,
        started_at,
        None,
        {case.id: store.answers[case.id] for case in prepared.benchmark.cases if case.id in store.answers},
        shared,
        store.wall_s,
    )


def choose(served: Sequence[str], wanted: str | None, usual: str) -> str:
    """The name to ask for. Raises CannotMeasure when it is not served or cannot be told."""
    if wanted is None:
        wanted = usual if usual in served or len(served) != 1 else served[0]
    if wanted not in served:
        raise CannotMeasure(f"the server does not serve {wanted!r}", f"one of {', '.join(served) or 'nothing at all'}", "pass --model")
    return wanted


def shared_request(request: Request, settings: Settings, benchmark: Benchmark) -> dict[str, Any]:
    """What every request of the run shares, as recorded and as compared when a run goes on."""
    shared = asdict(settings)
    shared |= {"benchmark": benchmark.digest, "model_id": request.model_id, "concurrency": request.spec.evaluate.concurrency}
    return shared | {"system_prompt": request.spec.chat.system_prompt, "max_cases": request.spec.evaluate.max_cases, "streamed": True}


async def _warm_up(server: Endpoint, spec: Spec) -> None:
    """Requests that are not measured: the first ones of a server compile, allocate and fill caches. Raises CannotMeasure."""
    turns = [{"role": "system", "content": spec.chat.system_prompt}, {"role": "user", "content": WARM_UP}]
    replies = await asyncio.gather(*(server.ask(turns) for _ in range(spec.evaluate.warmup_requests)))
    failed = [reply for reply in replies if not reply.came_back]
    if replies and len(failed) == len(replies):
        raise CannotMeasure(f"{server.settings.api_url} gives no completion: {failed[0].error or failed[0].status}", "an answer", "look at the server's log")


async def _ask_all(server: Endpoint, spec: Spec, left: list[Case], store: Store) -> None:
    """Ask the cases, so many at a time; stops at the deadline and when the server is gone."""
    origin, waiting, silent = time.monotonic(), iter(left), 0
    ends_at = origin + spec.evaluate.deadline_s
    with log.progress("cases", len(left)) as meter:

        async def work() -> None:
            nonlocal silent
            for case in waiting:
                began = time.monotonic()
                if began >= ends_at:
                    return
                reply = await server.ask(cases.messages(case, spec.chat), ends_at=ends_at)
                ended = time.monotonic()
                if reply.status in ("timeout", "error") and ended >= ends_at:
                    return  # cut off by our own deadline: not the server's failure, and asked again when the run goes on
                await asyncio.to_thread(store.add, Answer(case.id, case.digest, store.session, began - origin, ended - origin, reply))
                meter.advance(1, note=f"{reply.latency_ms:.0f} ms")
                silent = silent + 1 if reply.status == "error" and all(attempt.status is None for attempt in reply.attempts) else 0
                if silent >= max(3, spec.evaluate.concurrency):
                    raise CannotMeasure(
                        f"the server is gone: {reply.error}", "a server that stays up", "start it again and repeat the command: it goes on with the next case"
                    )

        try:
            async with asyncio.TaskGroup() as group:
                for _ in range(min(spec.evaluate.concurrency, len(left))):
                    group.create_task(work())
        except* CannotMeasure as several:
            raise several.exceptions[0] from None


def _result(
    request: Request,
    prepared: Prepared,
    started_at: str,
    verdict: Verdict | None,
    answers: dict[str, Answer],
    shared: dict[str, Any] | None = None,
    wall_s: float = 0.0,
) -> EvaluationResult:
    bars, every = request.spec.evaluate, prepared.benchmark.cases
    done = [results.case_result(case, answers[case.id].reply, score(case, answers[case.id].reply.text)) for case in every if case.id in answers]
    overall = judge_rate(sum(case.passed for case in done), len(done), bars.overall_bar) if done else None
    categories = results.rates(done, "category", bars.category_bar)
    timing = results.latency(done, concurrency=bars.concurrency, wall_s=wall_s, bar_ms=bars.mean_latency_bar_ms) if done else None
    if verdict is None and (len(done) < len(every) or overall is None or timing is None):
        verdict = Verdict(
            outcome="incomplete",
            headline=f"{len(every) - len(done)} of {len(every)} cases were not asked within {bars.deadline_s:g} s: the same command goes on",
        )
    elif verdict is None and overall and timing:
        gone = Verdict(outcome="incomplete", headline=f"not one of {len(done)} cases was answered: {done[0].error}")
        unknown = request.unknown_training_data
        alive = any(case.failure not in ("error", "timeout") for case in done)
        verdict = (
            results.decide(bars, overall, categories, timing, prepared.contamination, prepared.baselines, unknown_training_data=unknown) if alive else gone
        )
    assert verdict is not None  # noqa: S101 - one of the branches above; for the type checker
    other = {case.id: case for case in prepared.other.cases} if prepared.other else {}
    same = {case.id: case for case in done if case.id in other and other[case.id].digest == case.digest}
    comparison = compare({name: case.passed for name, case in same.items()}, {name: other[name].passed for name in same}) if prepared.other else None
    changes = {name: [other[name].passed, case.passed] for name, case in same.items() if other[name].passed != case.passed}
    compared_with = prepared.other and {
        "folder": str(request.baseline),
        "model": prepared.other.model,
        "finished_at": prepared.other.finished_at,
        "only_there": sorted(other.keys() - same.keys()),
        "only_here": sorted({case.id for case in done} - same.keys()),
        "changed": changes,
        "answers": {name: other[name].answer for name in changes},
        "overall": prepared.other.overall.model_dump() if prepared.other.overall else None,
        "mean_latency_ms": prepared.other.latency.mean.mean if prepared.other.latency and prepared.other.latency.mean else None,
    }
    return EvaluationResult(
        verdict=verdict,
        benchmark={"digest": prepared.benchmark.digest, "cases": len(every), "place": request.benchmark.name, "sampled": bars.max_cases},
        model={
            "name": (shared or {}).get("model"),
            "id": request.model_id,
            "served_as": sorted({a.reply.served_model for a in answers.values() if a.reply.served_model}),
        },
        settings=(shared or {})
        | {"warmup_requests_not_measured": bars.warmup_requests, "deadline_s": bars.deadline_s, "unknown_training_data": request.unknown_training_data},
        overall=overall,
        categories=categories,
        difficulties=results.rates(done, "difficulty", bars.overall_bar),
        kinds=results.rates(done, "kind", bars.overall_bar),
        failures=results.failures(done),
        latency=timing,
        contamination=prepared.contamination,
        baselines=prepared.baselines,
        comparison=comparison,
        compared_with=compared_with,
        cases=tuple(done),
        started_at=started_at,
        finished_at=record.now(),
        code=record.code_version(),
        machine=record.machine(),
    )
