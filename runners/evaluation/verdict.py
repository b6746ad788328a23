"""The verdict over a complete run: which bars held, which did not, and what could not be shown."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from runners.evaluation.baselines import Baseline
from runners.evaluation.contamination import Contamination
from runners.evaluation.results import Latency, Verdict
from runners.evaluation.statistics import Rate
from runners.spec import EvaluateSpec


def decide(
    bars: EvaluateSpec,
    overall: Rate,
    categories: Mapping[str, Rate],
    timing: Latency,
    contamination: Contamination,
    baselines: Sequence[Baseline],
    *,
    unknown_training_data: bool = False,
) -> Verdict:
    """The verdict over a complete run; ``overall`` and ``categories`` are those of the cases of unseen kinds, where there are any."""
    if contamination.leaks:
        return contaminated(contamination)
    if unfit := [baseline for baseline in baselines if baseline.passes]:
        named = "; ".join(f"“{baseline.name}” passes {baseline.result.passed} of {baseline.result.cases}" for baseline in unfit)
        return Verdict(
            outcome="unfit", headline=f"the benchmark is unfit: {named} without a model", reasons=("a benchmark that no model is needed for measures no model",)
        )
    failed = [f"overall {overall.sentence}"] if overall.outcome == "failed" else []
    failed += [f"{name}: {rate.sentence}" for name, rate in categories.items() if rate.outcome == "failed"]
    open_ = [f"overall {overall.sentence}"] if overall.outcome == "not shown" else []
    open_ += [f"{name}: {rate.sentence}" for name, rate in categories.items() if rate.outcome == "not shown"]
    if timing.mean is None:
        failed.append("latency: no answer came back")
    elif timing.mean.outcome != "passed":
        (failed if timing.mean.outcome == "failed" else open_).append(f"latency: {timing.mean.sentence}")
    if not contamination.pairs and not unknown_training_data:
        open_.append("the training data is unknown, so contamination could not be checked")
    small = [name for name, rate in categories.items() if rate.too_few]
    alone = f"too few cases to show a rate above {bars.category_bar:.0%} by themselves and were held by their rate alone"
    notes = (f"{len(small)} of {len(categories)} categories have {alone}",)
    if failed:
        return Verdict(outcome="not passed", headline=f"{len(failed)} bar(s) missed: {failed[0]}", reasons=(*failed, *open_))
    if open_:
        return Verdict(outcome="not shown", headline=open_[0], reasons=tuple(open_))
    best = max(baselines, key=lambda baseline: baseline.result.passed, default=None)
    beside = f"; the best answer without a model (“{best.name}”) passes {best.result.rate:.0%}" if best else ""
    return Verdict(outcome="passed", headline=f"every bar held: overall {overall.rate:.1%}, at least {overall.low:.1%}{beside}", reasons=notes if small else ())


def contaminated(found: Contamination) -> Verdict:
    """The refusal when training questions stand in the benchmark."""
    near = found.leaked - found.exact
    how = f"{found.exact} word for word, {near} nearly or inside a longer question"
    headline = f"{found.leaked} of {found.cases} cases stand in the training data ({how}): what they measure is memory"
    return Verdict(
        outcome="contaminated", headline=headline, reasons=("rebuild the dataset with `elson data build --drop-leaks` and train again, or replace these cases",)
    )
