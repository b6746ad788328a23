"""A sweep as values: the grid of trainings, what is refused before anything runs, the time to expect, the table with the best first. Pure.

elson sweep --vary train.learning_rate=1e-4,2e-4 --vary train.rank=8,16 --dry-run
"""

from __future__ import annotations

import itertools
import math
import statistics
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal

from pydantic import ValidationError

from runners.artifacts.record import Record
from runners.errors import UserError, did_you_mean
from runners.pages.page import duration
from runners.spec import ModelNames, Spec, TrainSpec
from runners.training.batches import count_steps

#: The rows of a sweep, and what each took, beside its page.
RESULTS = "sweep.json"
#: A grid grows by multiplication; a larger one is a mistake more often than a wish.
MOST_RUNS = 64
_DECIDES_THE_LOSS = {
    "max_validation_examples": "it decides which held-out pairs the loss is measured on, so the losses could not be compared",
    "max_tokens": "it decides which pairs the dataset holds, so the losses could not be compared",
}


@dataclass(frozen=True)
class Varied:
    """A setting of ``train`` and the values it takes."""

    name: str
    values: tuple[Any, ...]

    @property
    def key(self) -> str:
        """The setting as a spec has it."""
        return f"train.{self.name}"

    def __str__(self) -> str:
        return f"{self.key} {', '.join(map(written, self.values))}"


@dataclass(frozen=True)
class Trial:
    """One training of the grid."""

    settings: Mapping[str, Any]
    spec: Spec

    def __str__(self) -> str:
        return ", ".join(f"{name} {written(value)}" for name, value in self.settings.items())


@dataclass(frozen=True)
class Taken:
    """What a finished training took. ``processor_s`` is None where it was not counted; ``seen``: examples, each as often as it was trained on."""

    seconds: float
    seen: float
    processor_s: float | None = None


@dataclass(frozen=True)
class Outcome:
    """A trial and how it went; what is None was not measured."""

    trial: Trial
    id: str
    status: Literal["done", "failed", "to run"] = "to run"
    name: str = ""
    before: float | None = None
    after: float | None = None
    best_step: int | None = None
    steps: int | None = None
    held_out: int | None = None
    seconds: float | None = None
    processor_s: float | None = None
    validation: tuple[tuple[float, float], ...] = ()
    reason: str = ""

    def as_row(self) -> dict[str, Any]:
        """The outcome as data: a column a setting, then what was measured."""
        kept = ("status", "name", "id", "before", "after", "best_step", "steps", "held_out", "seconds", "processor_s", "reason")
        return {f"train.{name}": value for name, value in self.trial.settings.items()} | {key: getattr(self, key) for key in kept}

    @classmethod
    def of_row(cls, row: Mapping[str, Any]) -> Outcome:
        """What ``as_row`` wrote."""
        settings = {key.removeprefix("train."): value for key, value in row.items() if key.startswith("train.")}
        return cls(Trial(settings, Spec()), **{key: value for key, value in row.items() if not key.startswith("train.")})


def written(value: Any) -> str:
    """A setting's value as a person types it."""
    return str(value).lower() if isinstance(value, bool) else str(value)


def varied(base: Spec, texts: Sequence[str]) -> tuple[Varied, ...]:
    """``train.KEY=VALUE,VALUE`` parsed and validated. Raises UserError with the value that is refused."""
    if (count := math.prod(text.count(",") + 1 for text in texts)) > MOST_RUNS:
        raise UserError(f"the grid has {count} runs", f"at most {MOST_RUNS}", "give fewer values; then a second sweep around the best")
    found = tuple(_varied(base.train, text) for text in texts)
    names = [one.name for one in found]
    if twice := [name for name in dict.fromkeys(names) if names.count(name) > 1]:
        raise UserError(f"train.{twice[0]} is varied twice", "each setting once, with all its values", f"--vary train.{twice[0]}=VALUE,VALUE")
    if "seed" in names and base.train.max_validation_examples is not None:
        reason = f"with train.max_validation_examples {base.train.max_validation_examples} it chooses the held-out pairs, so the losses could not be compared"
        raise UserError(f"train.seed cannot be varied: {reason}", "one set of held-out pairs", "remove train.max_validation_examples from the profile")
    return found


def _varied(train: TrainSpec, text: str) -> Varied:
    key, equals, listed = (part.strip() for part in text.partition("="))
    name = _name(key, equals)
    values: list[Any] = []
    for one in listed.split(","):
        value = _value(train, name, one.strip())
        if value in values:
            raise UserError(f"--vary {text}: {written(value)} is there twice", "different values", f"--vary {key}={','.join(map(written, values))}")
        values.append(value)
    return Varied(name, tuple(values))


def _name(key: str, equals: str) -> str:
    known = [f"train.{name}" for name in TrainSpec.model_fields]
    expected = "train.learning_rate, train.rank, train.adapter or another setting of train in runners/spec.py, with its values"
    if not equals or key not in known:
        # adapter.rank, lora.rank and rank are train.rank to whoever types them.
        same = "train.adapter" if key == "adapter.kind" else next((one for one in known if one.partition(".")[2] == key.rpartition(".")[2]), "")
        hint = f"; did you mean {same}?" if same and same != key else "" if key in known else did_you_mean(key, known)
        found = f"--vary has no setting {key}{hint}" if key not in known else f"--vary {key} has no values"
        raise UserError(found, expected, "--vary train.learning_rate=1e-4,2e-4")
    name = key.removeprefix("train.")
    if name in _DECIDES_THE_LOSS:
        raise UserError(f"{key} cannot be varied: {_DECIDES_THE_LOSS[name]}", expected, "set it in the profile")
    return name


def _value(train: TrainSpec, name: str, text: str) -> Any:
    try:
        value = getattr(TrainSpec.model_validate({**train.model_dump(), name: text}), name)
    except ValidationError as error:
        why = error.errors()[0]["msg"]
    else:
        if not isinstance(value, float) or math.isfinite(value):
            return value
        why = "Input should be finite"
    field = TrainSpec.model_fields[name]
    raise UserError(
        f"--vary train.{name}: {text!r} is refused: {why}", field.description or "a value of this setting", f"{written(field.default)} is the default"
    )


def trials(base: Spec, grid: Sequence[Varied]) -> tuple[Trial, ...]:
    """Every combination, the last setting changing first. Names of the spec are left out: each adapter is published under a name of its own."""
    found = []
    for values in itertools.product(*(one.values for one in grid)):
        settings = {one.name: value for one, value in zip(grid, values, strict=True)}
        train = TrainSpec.model_validate({**base.train.model_dump(), **settings})
        found.append(Trial(settings, base.model_copy(update={"train": train, "names": ModelNames()})))
    return tuple(found)


def examples_of(train: TrainSpec, pairs: int) -> int:
    """Pairs that a training uses of those a dataset has."""
    return pairs if train.max_train_examples is None else min(pairs, train.max_train_examples)


def check(found: Sequence[Trial], pairs: int) -> None:
    """Raise UserError when a trial would be refused as too short, before any other has run."""
    for trial in found:
        train = trial.spec.train
        steps = count_steps(examples_of(train, pairs), train.batch_examples, train.epochs)
        if steps < train.minimum_steps:
            raise UserError(
                f"{trial}: {examples_of(train, pairs)} pairs, {train.batch_examples} a step, {train.epochs} epochs are {steps} optimizer steps",
                f"at least {train.minimum_steps} (train.minimum_steps)",
                "leave this value out, or lower train.minimum_steps in the profile if you mean it",
            )


def outcome(trial: Trial, made_id: str, record: Record | None, processor_s: float | None = None) -> Outcome:
    """A trial by the record of its adapter; without one it is still to run."""
    if record is None:
        return Outcome(trial, made_id)
    metrics, took = record.metrics, taken(record, processor_s)
    before, after = float(metrics["validation_loss_before"]), float(metrics["validation_loss_after"])
    if not math.isfinite(before + after):
        raise ValueError(f"a held-out loss of {after}")
    steps = (metrics["best_step"], metrics["steps_done"], metrics.get("held_out"))
    validation = [(row["step"], float(row["loss"])) for row in metrics["validation"]]
    return Outcome(trial, made_id, "done", record.name or "", before, after, *steps, took.seconds, processor_s, tuple(validation))


def taken(record: Record, processor_s: float | None = None) -> Taken:
    """What a training took. Of one that was cut off and went on, the steps before its last start are added; its evaluations then are not known."""
    metrics = record.metrics
    earlier = sum(row["seconds"] for row in metrics["history"] if row["step"] <= metrics["resumed_from_step"])
    seen = metrics["examples"] * metrics["steps_done"] / metrics["steps_planned"] * TrainSpec.model_validate(record.spec["train"]).epochs
    if not seen > 0:
        raise ValueError(f"{seen:g} examples were trained on")
    return Taken(round(sum(phase.seconds for phase in record.phases) + earlier, 1), seen, processor_s)


def expected(trial: Trial, pairs: int, finished: Sequence[Taken]) -> Taken | None:
    """What a trial will take if every example takes what it took in the finished trainings (their median); None without one."""
    if not finished:
        return None
    seen = examples_of(trial.spec.train, pairs) * trial.spec.train.epochs
    counted = [one.processor_s / one.seen for one in finished if one.processor_s is not None]
    return Taken(statistics.median(one.seconds / one.seen for one in finished) * seen, seen, statistics.median(counted) * seen if counted else None)


def plan_lines(grid: Sequence[Varied], outcomes: Sequence[Outcome], each: Sequence[Taken | None]) -> list[str]:
    """What a sweep will do, before it does. ``each``: what each outcome that is still to run is expected to take."""
    done, left = sum(one.status == "done" for one in outcomes), sum(one.status != "done" for one in outcomes)
    lines = [
        f"grid     {' × '.join(map(str, grid))}",
        f"runs     {len(outcomes)} training{'s' if len(outcomes) > 1 else ''}: {done} done already, {left} to run",
        f"time     {_time(each) if left else 'none: every training is done'}",
        "money    none: this machine does the work; -s train-h100 plans the same grid for the cloud",
    ]
    names = [one.name for one in grid]
    if "rank" in names and "alpha" not in names:
        alpha = outcomes[0].trial.spec.train.alpha
        lines.append(
            f"note     train.alpha stays {alpha}, so the adapter's scale, alpha / rank, falls as the rank rises; --vary train.alpha too to tell them apart"
        )
    return lines


def _time(each: Sequence[Taken | None]) -> str:
    known = [one for one in each if one]
    if len(known) < len(each) or not known:
        return "not known before the first training is done: none of this base model is recorded here"
    processor = [one.processor_s for one in known if one.processor_s is not None]
    counted = f", {sum(processor):,.0f} processor seconds" if len(processor) == len(known) else ""
    return f"about {duration(sum(one.seconds for one in known))}{counted}, by the trainings of this base model that are done here"


def ranked(outcomes: Sequence[Outcome]) -> list[Outcome]:
    """The lowest held-out loss first, then what failed, then what is still to run."""
    order = {"done": 0, "failed": 1, "to run": 2}
    return sorted(outcomes, key=lambda one: (order[one.status], one.after if one.after is not None else math.inf))


def table(outcomes: Sequence[Outcome]) -> tuple[tuple[str, ...], list[tuple[str, ...]]]:
    """Headers and cells, best first."""
    headers = (*(f"train.{name}" for name in outcomes[0].trial.settings), "loss before", "loss after", "best step", "time", "")
    rows = []
    for one in ranked(outcomes):
        losses = (f"{one.before:.4f}", f"{one.after:.4f}") if one.before is not None and one.after is not None else ("", "")
        step = "" if one.best_step is None else f"{one.best_step} of {one.steps}"
        spent = "" if one.seconds is None else duration(one.seconds)
        rows.append((*map(written, one.trial.settings.values()), *losses, step, spent, one.reason or ("" if one.status == "done" else one.status)))
    return headers, rows


def text(outcomes: Sequence[Outcome]) -> list[str]:
    """The table for a terminal, and what to make of it."""
    headers, rows = table(outcomes)
    widths = [max(len(row[place]) for row in [headers, *rows]) for place in range(len(headers))]
    lines = ["  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)).rstrip() for row in [headers, *rows]]
    return [*lines, *remarks(outcomes)]


def remarks(outcomes: Sequence[Outcome]) -> list[str]:
    """Which is best, where it is at the edge of the grid, and how far the difference may be trusted."""
    done = [one for one in ranked(outcomes) if one.status == "done"]
    if not done:
        return ["no training is done"]
    best = done[0]
    found = [f"best: {best.trial}, held-out loss {best.after:.4f} (base model {best.before:.4f}), adapter {best.name}"]
    same = [str(one.trial) for one in done[1:] if one.after == best.after]
    if same:
        found.append(f"the same loss to the last digit: {'; '.join(same)}")
    for name, value in () if same else best.trial.settings.items():
        tried = {one.trial.settings[name] for one in done}
        if isinstance(value, bool | str) or value is None or len(tried) < 2 or value not in (min(tried), max(tried)):
            continue
        end, more = ("smallest", "smaller") if value == min(tried) else ("largest", "larger")
        found.append(f"{written(value)} is the {end} train.{name} that was tried: try {more} ones")
    if len(done) > 1:
        found.append(f"each loss is of one training and {best.held_out} held-out pairs: a small difference may be chance")
    return found
