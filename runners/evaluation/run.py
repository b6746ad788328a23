"""One evaluation from end to end: check the benchmark, refuse contamination, run the null baselines, ask, score, decide, report."""

from __future__ import annotations

import asyncio
import json
import os
import shutil
import time
from collections.abc import Mapping, Sequence
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

from runners import log, outside
from runners.artifacts import record
from runners.errors import CannotMeasure, UserError
from runners.evaluation import baselines, cases, contamination, report
from runners.evaluation.assemble import Measured, PreparedRun, Request, assemble
from runners.evaluation.cases import Benchmark, Case
from runners.evaluation.client import IDENTITY_VARIABLE, Endpoint, Settings
from runners.evaluation.judge import Judgement, judge, refuse_same
from runners.evaluation.results import EvaluationResult
from runners.evaluation.scoring import score
from runners.evaluation.store import ANSWERS, REPORT, REQUEST, RESULTS, Answer, Store
from runners.pages import page
from runners.spec import JudgeSpec, Spec

WARM_UP = "In one sentence, what is compound interest?"


def perform(request: Request) -> EvaluationResult:
    """Ask every case of the benchmark, score the answers, write ``answers.jsonl``, ``results.json`` and ``report.html`` into the run's folder.

    An interrupted run goes on where it stopped when it is called again with the same request.

    Raises:
        UserError: the benchmark, the dataset or the folder is not as it should be.
        CannotMeasure: no server, no access, or the server stopped answering; what was answered is kept.
    """
    started_at = record.now()
    prepared = prepare(request)
    for baseline in prepared.baselines:
        log.result(
            f"null baseline: {baseline.name}", good=not baseline.passes, passed=baseline.result.passed, cases=baseline.result.cases, fit=not baseline.passes
        )
    measured = Measured()
    if prepared.contamination.leaks:
        log.error("the benchmark is contaminated: nothing is asked", leaked=prepared.contamination.leaked, exact=prepared.contamination.exact)
    else:
        measured = asyncio.run(_measure(request, prepared))
    found = assemble(request, prepared, measured, started_at)
    write(found, request.out)
    log.result(found.line, good=found.verdict.outcome == "passed", report=str(request.out / REPORT))
    return found


def prepare(request: Request) -> PreparedRun:
    """Everything that needs no server: load, compare with the training data, run the baselines. Raises UserError."""
    bars = request.spec.evaluate
    benchmark = cases.sample(cases.load(request.benchmark), bars.max_cases)
    pairs = contamination.read_pairs(request.dataset) if request.dataset else ()
    checked = contamination.check(benchmark.cases, pairs, threshold=request.spec.data.leak_jaccard, dataset=dataset_name(request))
    null = baselines.run(benchmark.cases, pairs, bars.overall_bar)
    return PreparedRun(benchmark, checked, tuple(null), read(request.baseline) if request.baseline else None)


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
    outside.write_durably(out / RESULTS, found.model_dump_json(indent=1))
    page.write(out / REPORT, report.document(found))


def throw_away(out: Path) -> None:
    """Forget an earlier run in this folder; only files that an evaluation writes."""
    for name in (REQUEST, ANSWERS, RESULTS, REPORT):
        (out / name).unlink(missing_ok=True)
    shutil.rmtree(out / "inspect", ignore_errors=True)


async def _measure(request: Request, prepared: PreparedRun) -> Measured:
    bars, cases_ = request.spec.evaluate, prepared.benchmark.cases
    settings = Settings(request.api_url, "", bars.max_tokens, bars.temperature, bars.seed, bars.request_timeout_s, bars.max_retries)
    async with Endpoint(settings, request.api_key, os.environ.get(IDENTITY_VARIABLE)) as server:
        served = await server.models(bars.wake_timeout_s)
        server.settings = settings = replace(settings, model=choose(tuple(served), request.model, request.spec.serve.served_model_name))
        if bars.judge:
            await _meet_judge(request, served, settings.model)
        shared = shared_request(request, settings, prepared.benchmark)
        store = Store(request.out, shared, cases_)
        left = [case for case in cases_ if case.id not in store.answers]
        if store.answers and left:
            log.event("going on with an interrupted run", answered=len(store.answers), left=len(left))
        if left:
            await _warm_up(server, request.spec)
            await _ask_all(server, request.spec, left, store)
    return Measured(store.answers, shared, store.wall_s, await _judge(request, prepared, store) if bars.judge else None)


async def _meet_judge(request: Request, served: Mapping[str, str], model: str) -> None:
    """Refuse a judge that is not there or is the tested model, before anything is asked. Raises CannotMeasure."""
    asked = request.spec.evaluate.judge
    if asked:
        async with _judge_endpoint(request, asked) as server:
            refuse_same(served, request.api_url, model, await server.models(), asked.api_url, asked.model)


async def _judge(request: Request, prepared: PreparedRun, store: Store) -> Judgement | None:
    asked = request.spec.evaluate.judge
    if asked is None:
        return None
    whole = {case.id: case for case in prepared.benchmark.cases if case.id in store.answers and store.answers[case.id].reply.status == "answered"}
    answers = {name: store.answers[name].reply.text for name in whole}
    checked = {name: score(case, answers[name]).passed for name, case in whole.items()}
    log.event("the judge reads", model=asked.model, cases=sum(bool(case.to_judge) for case in whole.values()))
    async with _judge_endpoint(request, asked) as server:
        return await judge(server, prepared.benchmark.cases, answers, checked, request.spec.evaluate.concurrency)


def _judge_endpoint(request: Request, asked: JudgeSpec) -> Endpoint:
    bars = request.spec.evaluate
    return Endpoint(Settings(asked.api_url, asked.model, asked.max_tokens, 0.0, asked.seed, bars.request_timeout_s, bars.max_retries), request.judge_key)


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
    system = [{"role": "system", "content": spec.chat.system_prompt}] if spec.chat.system_prompt else []
    turns = [*system, {"role": "user", "content": WARM_UP}]
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

        gone: list[Exception] = []
        try:
            async with asyncio.TaskGroup() as group:
                for _ in range(min(spec.evaluate.concurrency, len(left))):
                    group.create_task(work())
        except* CannotMeasure as several:
            gone.extend(several.exceptions)
        if gone:  # raised out here: Python 3.11.2 (Debian 12) wraps what is raised inside except* into another group
            raise gone[0] from None
