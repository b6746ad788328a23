"""Measure a served model on the benchmark. ``runners/evaluation/README.md`` says how, and why so.

The modules are pure but for ``client`` (asks the server), ``store`` (keeps the answers) and ``run`` (puts it together).
"""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

from runners.spec import Spec

if TYPE_CHECKING:
    from runners.evaluation.results import EvaluationResult


def evaluate(
    spec: Spec,
    api_url: str,
    api_key: str | None,
    benchmark: Path,
    dataset: Path | None,
    out: Path,
    *,
    model: str | None = None,
    model_id: str | None = None,
    baseline: Path | None = None,
    judge_key: str | None = None,
    unknown_training_data: bool = False,
) -> EvaluationResult:
    """Ask every case of the benchmark, score the answers, write ``answers.jsonl``, ``results.json`` and ``report.html`` into ``out``.

    An interrupted run goes on where it stopped when it is called again with the same settings and folder.

    Args:
        spec: bars, limits and the system prompt; ``spec.evaluate`` is this stage's section.
        api_url: ``http://host:8000``, with or without ``/v1``.
        api_key: sent as a bearer token; None sends none.
        benchmark: a file or a folder of cases.
        dataset: the folder (or file of pairs) the model was trained on; None when there is none to compare with.
        out: folder of this run.
        model: the served name; left out, the spec's, or the only one there is.
        model_id: the registry id behind it, for the record.
        baseline: folder of an earlier run to compare with, case by case.
        judge_key: bearer token of the judge's endpoint, when ``spec.evaluate.judge`` names one.
        unknown_training_data: accept that contamination cannot be checked; said in the results.

    Raises:
        UserError: the benchmark, the dataset or the folder is not as it should be.
        CannotMeasure: no server, no access, or the server stopped answering; what was answered is kept.
    """
    from runners.evaluation.assemble import Request
    from runners.evaluation.run import perform

    request = Request(spec, api_url, api_key, benchmark, dataset, out, model, model_id, baseline, judge_key, unknown_training_data)
    return perform(request)
