"""A run in the log format of Inspect AI (https://inspect.aisi.org.uk/eval-logs.html), version 2, as JSON.

Written by hand from the format's published schema, so that nobody needs Inspect to measure; ``inspect view`` and ``read_eval_log`` read it.
Each check of a case is a scorer of its own name by kind; ``elson`` is the case's pass.
"""

from __future__ import annotations

from typing import Any

from runners.evaluation.results import CaseResult, EvaluationResult

_STATUS = {"incomplete": "cancelled", "contaminated": "error", "unfit": "success"}


def file_name(found: EvaluationResult) -> str:
    """A name that ``inspect view --log-dir`` takes for a log: time, task, id."""
    when = found.started_at[:19].replace(":", "-")
    return f"{when}+00-00_elson_{found.benchmark['digest'].replace('-', '')}.json"


def inspect_log(found: EvaluationResult) -> dict[str, Any]:
    """The whole log as plain data."""
    name = str(found.model.get("name") or "none")
    rate = found.overall
    shown = {"accuracy": rate.rate, "wilson_low": rate.low, "wilson_high": rate.high} if rate else dict.fromkeys(("accuracy", "wilson_low", "wilson_high"), 0.0)
    metrics = {metric: {"name": metric, "value": value, "params": {}, "metadata": {}} for metric, value in shown.items()}
    tokens = {"input_tokens": sum(c.prompt_tokens or 0 for c in found.cases), "output_tokens": sum(c.completion_tokens or 0 for c in found.cases)}
    usage = {f"openai/{name}": {**tokens, "total_tokens": sum(tokens.values())}}
    eval_spec = {
        "eval_id": found.benchmark["digest"],
        "run_id": found.benchmark["digest"],
        "created": found.started_at,
        "task": "elson",
        "task_id": found.benchmark["digest"],
        "task_version": found.version,
        "task_attribs": {},
        "task_args": {},
        "dataset": {"name": found.benchmark["place"], "samples": len(found.cases), "sample_ids": [case.id for case in found.cases], "shuffled": False},
        "model": f"openai/{name}",
        "model_base_url": found.settings.get("api_url"),
        "model_args": {},
        "config": {},
        "packages": {},
        "metadata": {"verdict": found.verdict.model_dump(mode="json"), "model_id": found.model.get("id"), "elson": found.code},
    }
    generate = {key: found.settings[key] for key in ("max_tokens", "temperature", "seed") if key in found.settings}
    score = {"name": "elson", "scorer": "elson", "params": {}, "metrics": metrics}
    log: dict[str, Any] = {
        "version": 2,
        "status": _STATUS.get(found.verdict.outcome, "success"),
        "eval": eval_spec,
        "plan": {"name": "plan", "steps": [{"solver": "generate", "params": {}}], "config": generate},
        "results": {"total_samples": found.benchmark["cases"], "completed_samples": len(found.cases), "scores": [score]},
        "stats": {"started_at": found.started_at, "completed_at": found.finished_at, "model_usage": usage},
        "samples": [_sample(case, name, str(found.settings.get("system_prompt", ""))) for case in found.cases],
    }
    if log["status"] == "error":
        log["error"] = {"message": found.verdict.headline, "traceback": "", "traceback_ansi": ""}
    return log


def _sample(case: CaseResult, model: str, system_prompt: str) -> dict[str, Any]:
    turns: list[dict[str, Any]] = [
        *([{"role": "system", "content": system_prompt}] if system_prompt else []),
        {"role": "user", "content": case.question},
        {"role": "assistant", "content": case.answer, "source": "generate"},
    ]
    stop = {"stop": "stop", "length": "max_tokens"}.get(case.finish_reason or "", "unknown")
    usage = {"input_tokens": case.prompt_tokens or 0, "output_tokens": case.completion_tokens or 0}
    usage["total_tokens"] = sum(usage.values())
    output: dict[str, Any] = {
        "model": model,
        "choices": [{"message": turns[-1], "stop_reason": stop}],
        "usage": usage,
        "time": round(case.latency_ms / 1000, 6),
    }
    if case.error:
        output["error"] = case.error
    explanation = "\n".join(f"{'passed' if check['passed'] else 'FAILED'}  {check['name']}  {check['reason']}".rstrip() for check in case.checks)
    value = {
        "value": "C" if case.passed else "I",
        "answer": case.answer,
        "explanation": explanation,
        "metadata": {"failure": case.failure, "checks": list(case.checks)},
    }
    return {
        "id": case.id,
        "epoch": 1,
        "input": case.question,
        "target": [check["name"] for check in case.checks],
        "messages": turns,
        "output": output,
        "scores": {"elson": value},
        "metadata": {"category": case.category, "difficulty": case.difficulty, "kind": case.kind, "first_token_ms": case.first_token_ms},
        "store": {},
        "events": [],
        "model_usage": {f"openai/{model}": usage},
        "total_time": round(case.latency_ms / 1000, 6),
    }
