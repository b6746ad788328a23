"""Was a run good, and why? The first lines of a run's page, for somebody who has never seen the project."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from runners.errors import UserError
from runners.evaluation.comparing import common, differences
from runners.evaluation.results import EvaluationResult
from runners.pages import page
from runners.pages.page import Html, Status

_HELPED: dict[str, tuple[Status, str]] = {"better": ("good", "yes"), "worse": ("bad", "no, it is worse"), "not shown": ("warn", "not shown")}
#: What a failed case is called in a sentence.
_FAILURES = {"truncated": "cut off at the token limit", "empty": "empty", "timeout": "timed out", "error": "without an answer"}


def section(training: Mapping[str, Any], gates: Sequence[tuple[str, Any]], results: Mapping[str, EvaluationResult]) -> Html:
    """The answers to what a reader asks first; a question that nothing was measured for is left out.

    Args:
        training: ``before``, ``after`` (validation loss), ``steps`` and ``examples``.
        gates: (stage, gate) of the merge and the quantization.
        results: evaluations by variant, the base's first.
    """
    rows = [_learned(training), _helped(results), _kept(gates), _wrong(results)]
    return page.answers([row for row in rows if row])


def _learned(training: Mapping[str, Any]) -> tuple[Status, str, str] | None:
    before, after = training.get("before"), training.get("after")
    if not isinstance(before, (int, float)) or not isinstance(after, (int, float)):
        return None
    less = after < before
    on = f" in {training['steps']} steps on {training['examples']:,} pairs" if training.get("steps") and training.get("examples") else ""
    return "good" if less else "bad", "Did it learn?", f"{'yes' if less else 'no'}: validation loss {before:.3f} → {after:.3f}{on}"


def _helped(results: Mapping[str, EvaluationResult]) -> tuple[Status, str, str] | None:
    if not {"base", "tuned"} <= results.keys():
        return None
    pair = {name: results[name] for name in ("base", "tuned")}
    shared = common(list(pair.values()))
    try:
        found = differences(shared)
    except UserError as error:
        return "warn", "Did that help?", f"not compared: {error.found}"
    asked = {name: one.cases for name, one in zip(pair, shared, strict=True)}
    right = {name: sum(case.passed for case in cases) for name, cases in asked.items()}
    status, word = _HELPED[found[0].verdict]
    doubt = "; too few changed to tell" if found[0].verdict == "not shown" else ""
    return status, "Did that help?", f"{word}: {right['tuned']} of {len(asked['tuned'])} cases right, {right['base']} before training{doubt}"


def _kept(gates: Sequence[tuple[str, Any]]) -> tuple[Status, str, str] | None:
    if not gates:
        return None
    failed = [f"{stage}, {gate.name} {gate.value:.3g} ({gate.rule} {gate.bound:.3g})" for stage, gate in gates if not gate.passed]
    if failed:
        return "bad", "Was quality kept?", f"no: {len(failed)} of {len(gates)} gates failed: {'; '.join(failed)}"
    stages = " and ".join(dict.fromkeys(stage for stage, _ in gates))
    return "good", "Was quality kept?", f"yes: {len(gates)} of {len(gates)} gates passed ({stages})"


def _wrong(results: Mapping[str, EvaluationResult]) -> tuple[Status, str, str] | None:
    if not results:
        return None
    name, found = list(results.items())[-1]
    wrong = found.failures.get("wrong", 0) + found.failures.get("judged wrong", 0)
    counts = {"wrong": wrong} | {word: found.failures.get(key, 0) for key, word in _FAILURES.items()}
    said = [f"{count} {word}" for word, count in counts.items() if count]
    slow = ""
    if found.latency and (mean := found.latency.mean):
        slow = f"; an answer takes {page.duration(mean.mean / 1000)}, the bar is {page.duration(mean.bar / 1000)}"
    return "bad" if said else "good", "What goes wrong?", f"of {len(found.cases)} answers of the {name} model: {', '.join(said) or 'nothing'}{slow}"
