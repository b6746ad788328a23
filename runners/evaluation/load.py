"""Throughput and latency against concurrency, measured by vLLM's own `bench serve`; here only its arguments, its results and one page.

elson load --api-url http://127.0.0.1:8000 --tokenizer ./model
"""

from __future__ import annotations

import json
import os
import re
import subprocess
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from runners import environments, log
from runners.errors import CannotMeasure
from runners.pages import charts, page
from runners.pages.charts import Series
from runners.pages.page import Tile

_BENCH_TIMEOUT_S = 3600


@dataclass(frozen=True)
class LoadRequest:
    """What is asked: random prompts of one length, answers of one length (the end token is ignored, so that runs compare)."""

    api_url: str
    model: str
    tokenizer: Path
    levels: tuple[int, ...] = (1, 2, 4, 8, 16)
    requests_per_level: int = 32
    prompt_tokens: int = 150
    answer_tokens: int = 140
    seed: int = 0


@dataclass(frozen=True)
class Level:
    """One concurrency. Times in milliseconds."""

    concurrency: int
    completed: int
    failed: int
    requests_per_s: float
    tokens_per_s: float
    first_token_ms: float
    first_token_p99_ms: float
    token_ms: float
    answer_ms: float
    answer_p99_ms: float


def bench_arguments(request: LoadRequest, concurrency: int, out: Path) -> list[str]:
    """The whole argument list after ``vllm``; the key is in the environment."""
    asked = max(request.requests_per_level, concurrency)
    return [
        "bench", "serve", "--backend", "openai-chat", "--base-url", request.api_url.rstrip("/").removesuffix("/v1"), "--endpoint", "/v1/chat/completions",
        "--model", request.model, "--tokenizer", str(request.tokenizer), "--dataset-name", "random", "--random-input-len", str(request.prompt_tokens),
        "--random-output-len", str(request.answer_tokens), "--ignore-eos", "--num-prompts", str(asked), "--max-concurrency", str(concurrency),
        "--percentile-metrics", "ttft,tpot,e2el", "--metric-percentiles", "99", "--seed", str(request.seed), "--disable-tqdm",
        "--save-result", "--result-dir", str(out.parent), "--result-filename", out.name,
    ]  # fmt: skip


def read_level(concurrency: int, found: dict[str, Any]) -> Level:
    """One result file of `bench serve`. Raises CannotMeasure when it holds something else."""
    try:
        return Level(
            concurrency,
            int(found["completed"]),
            int(found.get("failed", 0)),
            float(found["request_throughput"]),
            float(found["output_throughput"]),
            float(found["mean_ttft_ms"]),
            float(found["p99_ttft_ms"]),
            float(found["mean_tpot_ms"]),
            float(found["mean_e2el_ms"]),
            float(found["p99_e2el_ms"]),
        )
    except (KeyError, TypeError, ValueError) as error:
        raise CannotMeasure(f"vllm bench serve wrote another result: {error!r}", "the keys of vLLM 0.32", "install the locked serve environment") from None


def measure(request: LoadRequest, key: str, out: Path) -> list[Level]:
    """Run every level; results and ``load.html`` go to ``out``. Raises CannotMeasure with the tool's last words."""
    program = environments.python("serve").parent / "vllm"
    if not program.exists():
        raise CannotMeasure("the serve environment is not installed", "vLLM, whose `bench serve` is used", "python3 -m runners.installation serve")
    out.mkdir(parents=True, exist_ok=True)
    quiet = {"VLLM_NO_USAGE_STATS": "1", "DO_NOT_TRACK": "1", "HF_HUB_OFFLINE": "1", "VLLM_LOGGING_LEVEL": "WARNING", "VLLM_TARGET_DEVICE": "cpu"}
    levels = []
    with log.progress("load", len(request.levels), "levels") as meter:
        for concurrency in request.levels:
            file = out / f"concurrency-{concurrency}.json"
            file.unlink(missing_ok=True)
            command = [str(environments.python("serve")), str(program), *bench_arguments(request, concurrency, file)]
            environment = {**os.environ, **quiet, "OPENAI_API_KEY": key}
            try:
                done = subprocess.run(command, env=environment, capture_output=True, text=True, check=False, timeout=_BENCH_TIMEOUT_S)
            except subprocess.TimeoutExpired:
                raise CannotMeasure(f"concurrency {concurrency} took over {_BENCH_TIMEOUT_S} s", "a level in that time", "ask for fewer --requests") from None
            if done.returncode or not file.exists():
                last = " | ".join((done.stderr or done.stdout).strip().splitlines()[-2:])[-400:]
                raise CannotMeasure(f"vllm bench serve ended with code {done.returncode}: {last}", "a server that answers", "elson load --help")
            level = read_level(concurrency, json.loads(file.read_text()))
            if not level.completed:
                why = f"none of {level.failed} requests was answered: {first_error(done.stdout)}"
                raise CannotMeasure(why, f"a server at {request.api_url}", "see its address, the model's name, and the key in ELSON_API_KEY")
            levels.append(level)
            meter.advance(tokens_per_s=round(level.tokens_per_s, 1))
    return levels


def first_error(said: str) -> str:
    """Why the first request failed, out of what `bench serve` prints: one line, or a traceback, whose last line tells."""
    found = re.search(r"^Error 0: (.*?)(?=^Error 1: |^=|\Z)", said, re.MULTILINE | re.DOTALL)
    lines = found[1].strip().splitlines() if found else []
    return lines[-1][:300] if lines else "it does not say why"


def write_page(file: Path, request: LoadRequest, levels: Sequence[Level], floor_ms: float | None) -> None:
    """Write the page of a measurement."""
    page.write(file, document(request, levels, floor_ms))


def document(request: LoadRequest, levels: Sequence[Level], floor_ms: float | None) -> str:
    """The page: throughput and latency over concurrency, with the card's floor where a stack was named."""
    best = max(levels, key=lambda level: level.tokens_per_s)
    lost = sum(level.failed for level in levels)
    tiles = [
        Tile("Most tokens a second", f"{best.tokens_per_s:.0f}", f"at concurrency {best.concurrency}"),
        Tile("One answer alone", f"{levels[0].answer_ms:,.0f} ms", f"{request.answer_tokens} tokens, concurrency {levels[0].concurrency}"),
        Tile("Requests lost", lost, f"of {sum(level.completed + level.failed for level in levels)}", "bad" if lost else "good"),
    ]
    answers = [Series("mean", [(x.concurrency, x.answer_ms) for x in levels], marks=True), Series("p99", [(x.concurrency, x.answer_p99_ms) for x in levels])]
    limit = (floor_ms, "the card's floor") if floor_ms else None
    rate = charts.line_chart(
        [Series("all requests", [(x.concurrency, x.tokens_per_s) for x in levels], marks=True)],
        title="Throughput",
        x_label="concurrency",
        y_label="tokens per second",
        from_zero=True,
    )
    time = charts.line_chart(answers, title="A whole answer", x_label="concurrency", y_label="ms", from_zero=True, limit=limit)
    rows = [tuple(round(value, 1 if value >= 10 else 2) if isinstance(value, float) else value for value in asdict(level).values()) for level in levels]
    headers = ("concurrency", "done", "lost", "requests/s", "tokens/s", "first token, ms", "p99, ms", "each token, ms", "answer, ms", "its p99, ms")
    facts = page.facts({"server": request.api_url, "model": request.model, "prompt tokens": request.prompt_tokens, "answer tokens": request.answer_tokens})
    return page.page(
        "Load",
        [
            page.section("Result", page.stat_tiles(tiles), facts),
            page.section("Curves", page.columns(rate, time)),
            page.section("Figures", page.table(headers, rows)),
        ],
        request.model,
    )
