"""A sweep's grid, refusals, times, table and page: values in, values out."""

from __future__ import annotations

import csv
import io
import json
import time
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner

from runners import identity
from runners.artifacts import registry
from runners.artifacts.record import Phase, Record
from runners.commands.cli import cli
from runners.errors import UserError
from runners.local import grid, sweep_report
from runners.local.grid import MOST_RUNS, Outcome, Taken
from runners.local.run import load_profile
from runners.local.sweep import Sweep, _finished, _last_error, _outcomes, _processor_s
from runners.spec import BucketSpec, ModelNames, Spec
from tests.browser import Browser

TINY = load_profile("tiny")
HOSTILE = "<script>window.pwned = 1</script>"


def base(**train: Any) -> Spec:
    return TINY.model_copy(update={"train": TINY.train.model_copy(update=train)})


@pytest.mark.parametrize(
    ("text", "values"),
    [
        ("train.learning_rate=1e-4,2e-4", (1e-4, 2e-4)),
        ("train.rank=8, 16", (8, 16)),
        (" train.adapter = dora,lora", ("dora", "lora")),
        ("train.packing=true,false", (True, False)),
        ("train.gradient_checkpointing=true", (True,)),
        ("train.max_train_examples=100", (100,)),
    ],
)
def test_values_have_the_type_of_their_setting(text: str, values: tuple[Any, ...]) -> None:
    (found,) = grid.varied(TINY, [text])
    assert found.values == values and [type(value) for value in found.values] == [type(value) for value in values]


@pytest.mark.parametrize(
    ("texts", "said"),
    [
        (["adapter.rank=8"], "did you mean train.rank?"),
        (["adapter.kind=lora"], "did you mean train.adapter?"),
        (["rank=8"], "did you mean train.rank?"),
        (["train.ranks=8"], "did you mean train.rank?"),
        (["serve.port=8"], "no setting serve.port"),
        (["=8"], "no setting "),
        (["train.rank"], "train.rank has no values"),
        (["train.rank="], "'' is refused"),
        (["train.rank=8,,16"], "'' is refused"),
        (["train.rank=0"], "'0' is refused: Input should be greater than or equal to 1"),
        (["train.rank=8.5"], "'8.5' is refused"),
        (["train.adapter=qlora"], "'qlora' is refused: Input should be 'dora' or 'lora'"),
        (["train.learning_rate=0"], "'0' is refused"),
        (["train.learning_rate=nan"], "'nan' is refused"),
        (["train.learning_rate=inf"], "'inf' is refused"),
        (["train.target_modules=q_proj"], "'q_proj' is refused"),
        (["train.learning_rate=1e-4,0.0001"], "0.0001 is there twice"),
        (["train.rank=8", "train.rank=16"], "train.rank is varied twice"),
        (["train.max_validation_examples=4"], "the losses could not be compared"),
        (["train.max_tokens=512"], "the losses could not be compared"),
        (["train.micro_batch_tokens=0"], "'0' is refused"),
        (["train.max_train_examples=-5"], "'-5' is refused"),
        (["train.seed=1,2"], "with train.max_validation_examples 8 it chooses the held-out pairs"),
        ([f"train.rank={','.join(map(str, range(1, MOST_RUNS + 2)))}"], f"the grid has {MOST_RUNS + 1} runs"),
    ],
)
def test_what_is_refused_before_anything_runs(texts: list[str], said: str) -> None:
    with pytest.raises(UserError) as refused:
        grid.varied(TINY, texts)
    assert said in refused.value.found and refused.value.expected and refused.value.fix


def test_a_grid_of_thousands_is_refused_before_its_values_are_read() -> None:
    begin = time.process_time()
    with pytest.raises(UserError, match="the grid has 20000 runs"):
        grid.varied(TINY, [f"train.seed={','.join(map(str, range(20000)))}"])
    assert time.process_time() - begin < 1


def test_seeds_can_be_varied_where_every_held_out_pair_is_used() -> None:
    assert grid.varied(base(max_validation_examples=None), ["train.seed=1,2"])[0].values == (1, 2)


def test_the_grid_is_every_combination_under_names_of_their_own() -> None:
    named = TINY.model_copy(update={"names": ModelNames(dora="my-dora-v1")})
    found = grid.trials(named, grid.varied(named, ["train.learning_rate=1e-4,2e-4", "train.rank=8,16,32"]))
    assert [str(one) for one in found] == [f"learning_rate {rate}, rank {rank}" for rate in ("0.0001", "0.0002") for rank in (8, 16, 32)]
    for one in found:
        assert one.spec.train.model_dump() == {**TINY.train.model_dump(), **one.settings}
        assert one.spec.names == ModelNames()
        assert one.spec.model_copy(update={"train": TINY.train, "names": named.names}) == named, "nothing else is changed"


def test_a_training_that_would_be_too_short_is_refused() -> None:
    found = grid.trials(TINY, grid.varied(TINY, ["train.epochs=1,2"]))
    grid.check(found, 1000)
    grid.check(found, 32)
    with pytest.raises(UserError, match=r"epochs 1: 24 pairs, 8 a step, 1 epochs are 3 optimizer steps"):
        grid.check(found, 24)


def record(after: float, *, seconds: float = 10.0, resumed: int = 0, steps: int = 10) -> Record:
    history = [{"step": step, "loss": 7.0, "seconds": 1.0} for step in range(1, steps + 1)]
    metrics = {
        "history": history, "validation": [{"step": 0, "loss": 6.9}, {"step": 5, "loss": after}, {"step": steps, "loss": after + 0.1}], "best_step": 5,
        "validation_loss_before": 6.9, "validation_loss_after": after, "steps_done": steps, "steps_planned": 10, "resumed_from_step": resumed,
        "examples": 40, "held_out": 8, "precision": "fp32",
    }  # fmt: skip
    phases = (Phase(name="load model", started_at="", seconds=2.0), Phase(name="train", started_at="", seconds=seconds - 2))
    return Record(stage="train", id="dora-1", status="complete", name="tiny-dora-1", spec=TINY.model_dump(mode="json"), phases=phases, metrics=metrics)


def test_what_a_training_took() -> None:
    assert grid.taken(record(6.0), 7.5) == Taken(10.0, 80, 7.5)
    assert grid.taken(record(6.0, resumed=4)).seconds == 14.0, "the steps before its last start are added"
    assert grid.taken(record(6.0, steps=5)).seen == 40, "one that stopped early saw fewer examples"


def test_what_the_next_one_will_take() -> None:
    (short, long) = grid.trials(TINY, grid.varied(TINY, ["train.epochs=2,4"]))
    assert grid.expected(short, 1000, []) is None
    finished = [Taken(10, 80, 8.0), Taken(20, 80), Taken(30, 80)]
    assert grid.expected(short, 1000, finished) == Taken(20, 80, 8.0)
    assert grid.expected(long, 1000, finished) == Taken(40, 160, 16.0)
    assert grid.expected(long, 20, finished) == Taken(20, 80, 8.0), "a small dataset has fewer than max_train_examples"
    assert grid.examples_of(base(max_train_examples=None).train, 123) == 123


def outcomes(*after: float | None) -> list[Outcome]:
    """Trainings with these losses; None failed."""
    varied = grid.varied(TINY, [f"train.rank={','.join(str(2**place) for place in range(len(after)))}"])
    found = []
    for place, (trial, loss) in enumerate(zip(grid.trials(TINY, varied), after, strict=True)):
        failed = Outcome(trial, f"dora-{place}", "failed", reason=f"the held-out loss never fell {HOSTILE}")
        found.append(failed if loss is None else grid.outcome(trial, f"dora-{place}", record(loss), 8.0))
    return found


def test_the_plan_says_what_is_done_and_what_the_rest_takes() -> None:
    varied = grid.varied(TINY, ["train.rank=1,2,4"])
    found = [outcomes(6.0, 6.1, 6.2)[0], *(grid.outcome(one, "x", None) for one in grid.trials(TINY, varied)[1:])]
    said = "\n".join(grid.plan_lines(varied, found, [Taken(60, 80, 50.0)] * 2))
    for part in (
        "train.rank 1, 2, 4",
        "3 trainings: 1 done already, 2 to run",
        "about 2 min 00 s, 100 processor seconds",
        "money    none",
        "train.alpha stays 8",
    ):
        assert part in said
    assert "processor" not in grid.plan_lines(varied, found, [Taken(60, 80, 50.0), Taken(60, 80)])[2], "not of some alone"
    assert "not known" in grid.plan_lines(varied, found, [None, None])[2]
    assert "every training is done" in grid.plan_lines(varied, outcomes(6.0, 6.1, 6.2), [])[2]
    both = grid.varied(TINY, ["train.rank=1,2", "train.alpha=2,4"])
    assert "stays" not in "".join(grid.plan_lines(both, found, [None, None]))


def test_the_best_is_first_and_what_failed_is_last() -> None:
    found = outcomes(6.5, None, 6.1, 6.3)
    assert [one.trial.settings["rank"] for one in grid.ranked(found)] == [4, 8, 1, 2]
    lines = grid.text(found)
    assert lines[0].split() == ["train.rank", "loss", "before", "loss", "after", "best", "step", "time"]
    assert lines[1].split() == ["4", "6.9000", "6.1000", "5", "of", "10", "10.0", "s"]
    assert "never fell" in lines[4]
    assert "best: rank 4, held-out loss 6.1000 (base model 6.9000)" in lines[5]
    assert not any("larger" in line for line in lines), "not at an edge of what was tried"
    assert "8 held-out pairs" in lines[-1]


@pytest.mark.parametrize(
    ("after", "said"), [((6.0, 6.1, 6.2), "1 is the smallest train.rank that was tried: try smaller ones"), ((6.2, 6.1, 6.0), "4 is the largest train.rank")]
)
def test_the_best_at_an_edge_says_where_to_look_next(after: tuple[float, ...], said: str) -> None:
    assert any(said in line for line in grid.remarks(outcomes(*after)))


def test_a_tie_is_said_and_has_no_edge() -> None:
    said = grid.remarks(outcomes(6.0, 6.0, 6.1))
    assert said[0].startswith("best: rank 1,") and said[1] == "the same loss to the last digit: rank 2"
    assert not any("smallest" in line for line in said)


def test_kinds_have_no_edge_and_one_training_no_rival() -> None:
    trials = grid.trials(TINY, grid.varied(TINY, ["train.adapter=dora,lora", "train.packing=true,false"]))
    found = [grid.outcome(trial, "x", record(6.0 + place)) for place, trial in enumerate(trials)]
    assert len(grid.remarks(found)) == 2
    assert len(grid.remarks(outcomes(6.0))) == 1
    assert grid.remarks(outcomes(None, None)) == ["no training is done"]


def test_rows_are_the_same_in_csv_and_as_data() -> None:
    found = outcomes(6.5, None, 6.1)
    rows = list(csv.DictReader(io.StringIO(sweep_report.as_csv(found))))
    assert [(row["train.rank"], row["status"], row["after"]) for row in rows] == [("4", "done", "6.1"), ("1", "done", "6.5"), ("2", "failed", "")]
    assert rows == [{key: "" if value is None else str(value) for key, value in one.as_row().items()} for one in grid.ranked(found)]


def test_a_cell_of_the_csv_is_no_formula() -> None:
    (failed,) = [replace(one, reason="=HYPERLINK(1)", name="@name") for one in outcomes(None)]
    (row,) = csv.DictReader(io.StringIO(sweep_report.as_csv([failed])))
    assert row["reason"] == "'=HYPERLINK(1)" and row["name"] == "'@name"


def test_what_is_not_written_has_no_place(tmp_path: Path) -> None:
    planned = Sweep("tiny-1", tmp_path, [], outcomes(6.0))
    assert planned.as_data()["report"] is None and planned.as_data()["sweep"] is None
    sweep_report.write(TINY, "tiny-1", planned.outcomes, tmp_path)
    assert planned.as_data()["report"] == str(tmp_path / "report.html")


@pytest.mark.parametrize("width", [360, 1366])
@pytest.mark.parametrize("dark", [False, True], ids=["light", "dark"])
def test_the_page_fits_and_runs_nothing_foreign(browser: Browser, tmp_path: Path, width: int, dark: bool) -> None:
    sweep_report.write(TINY, "tiny-1", outcomes(6.5, None, 6.1, 6.2, 6.3, 6.4, 6.6, 6.7), tmp_path)
    shown = browser.open(tmp_path / "report.html", width=width, dark=dark)
    assert shown.faults() == {}
    assert shown.run("window.pwned") is None
    assert len(shown.run("measures.drawings()")) == 1


@pytest.mark.parametrize("after", [(), (None,), (6.0,)])
def test_a_page_of_any_state(after: tuple[float | None, ...], tmp_path: Path) -> None:
    waiting = [grid.outcome(trial, "", None) for trial in grid.trials(TINY, grid.varied(TINY, ["train.rank=64,128"]))]
    sweep_report.write(TINY, "tiny-1", [*outcomes(*after), *waiting] if after else waiting, tmp_path)
    assert "to run" in (tmp_path / "report.html").read_text()


@pytest.mark.parametrize(("after", "status"), [((6.0, 6.1), "good"), ((6.0, None), "warn"), ((None, None), "bad")])
def test_the_banner_is_good_only_when_nothing_failed(after: tuple[float | None, ...], status: str) -> None:
    assert f'class="banner {status}"' in sweep_report.document(TINY, "tiny-1", outcomes(*after))


@pytest.mark.parametrize("content", ["{", "[]", '{"runs": 3}', '{"runs": [{}]}', '{"runs": [{"id": "x", "processor_s": "long"}]}'])
def test_damaged_results_of_an_earlier_sweep_are_one_sentence(content: str, tmp_path: Path) -> None:
    file = tmp_path / "sweeps" / "tiny-1" / "sweep.json"
    file.parent.mkdir(parents=True)
    file.write_text(content)
    with pytest.raises(UserError) as refused:
        _processor_s(tmp_path)
    assert str(tmp_path / "sweeps") in str(refused.value)
    file.write_text('{"runs": [{"id": "a", "processor_s": 3}, {"id": "b", "processor_s": null}]}')
    assert _processor_s(tmp_path) == {"a": 3.0}


def test_records_of_another_release_do_not_stop_a_sweep(buckets: BucketSpec, tmp_path: Path) -> None:
    good = record(6.0)
    old = good.model_copy(update={"metrics": {"precision": "fp32"}})
    other_spec = good.model_copy(update={"spec": {"train": {"lora_r": 8}}})
    bf16 = good.model_copy(update={"metrics": {**good.metrics, "precision": "bf16"}})
    for place, (base_id, text) in enumerate(
        [
            ("base-1", good.model_dump_json()),
            ("base-1", "{}"),
            *(("base-1", one.model_dump_json()) for one in (old, other_spec, bf16)),
            ("base-2", good.model_dump_json()),
        ]
    ):
        folder = tmp_path / str(place)
        folder.mkdir()
        (folder / "record.json").write_text(text.replace("dora-1", f"dora-{place}"))
        registry.publish(buckets, folder, name=f"tiny-dora-{place}", stage_id=f"dora-{place}", kind="dora", parents={"base_model": base_id})
    spec = TINY.model_copy(update={"buckets": buckets, "base_model": TINY.base_model.model_copy(update={"id": "base-1"})})
    assert _finished(spec, {"dora-0": 7.5}) == [Taken(10.0, 80, 7.5)]


def published(buckets: BucketSpec, folder: Path, under: str, **changes: Any) -> Spec:
    """TINY with resolved ids, its adapter published under a name with such a record."""
    ids = {"base_model": TINY.base_model.model_copy(update={"id": "base-1"}), "dataset": TINY.dataset.model_copy(update={"id": "data-1"})}
    spec = identity.with_code(TINY.model_copy(update={"buckets": buckets, **ids}))
    made_id = identity.stage_id(spec, "train")
    values = json.loads(record(6.0).model_copy(update={"id": made_id, "name": under}).model_dump_json()) | changes
    folder.mkdir()
    (folder / "record.json").write_text(json.dumps(values))
    registry.publish(buckets, folder, name=under, stage_id=made_id, kind="dora", parents={"base_model": "base-1"})
    return spec


def test_a_training_is_found_under_any_name(buckets: BucketSpec, tmp_path: Path) -> None:
    """A profile may name its models; the content is what counts."""
    spec = published(buckets, tmp_path / "a", "my-dora-v1")
    same, other = _outcomes(spec, grid.varied(spec, ["train.rank=4,8"]), {})
    assert (same.status, same.name, same.after, other.status) == ("done", "my-dora-v1", 6.0, "to run")


@pytest.mark.parametrize(
    "changes",
    [
        {"metrics": {}},
        {"metrics": {**record(6.0).metrics, "validation_loss_after": "low"}},
        {"metrics": {**record(6.0).metrics, "validation_loss_after": float("nan")}},
        {"metrics": {**record(6.0).metrics, "validation_loss_after": 10**400}},
        {"metrics": {**record(6.0).metrics, "steps_planned": 0}},
        {"metrics": {**record(6.0).metrics, "examples": 0}},
        {"metrics": {**record(6.0).metrics, "validation": [{"step": 0}]}},
        {"metrics": {**record(6.0).metrics, "validation": [{"step": 0, "loss": "<b>"}]}},
        {"metrics": {**record(6.0).metrics, "history": 3}},
        {"name": "another-model"},
        {"id": "dora-2"},
        {"phases": None},
    ],
    ids=str,
)
def test_a_record_that_lies_is_one_sentence(changes: dict[str, Any], buckets: BucketSpec, tmp_path: Path) -> None:
    spec = published(buckets, tmp_path / "a", "tiny-dora-1", **changes)
    with pytest.raises(UserError) as refused:
        _outcomes(spec, grid.varied(spec, ["train.rank=4,8"]), {})
    assert "tiny-dora-1" in refused.value.found and refused.value.fix
    assert _finished(spec, {}) == [] or "validation" in str(changes), "and no time is expected by it"


def test_a_stack_is_planned_in_dollars_and_a_refused_size_is_named() -> None:
    done = CliRunner().invoke(cli, ["sweep", "-s", "train-h100", "--offline", "--vary", "train.rank=64,512"])
    assert done.exit_code == 1
    first, second, total, _ = done.output.splitlines()
    assert first.startswith("rank 64: about ") and "$" in first
    assert second.startswith("rank 512: refused: a disk of 200 GB fills up")
    assert first.rpartition("$")[2] == total.partition("$")[2].partition(",")[0], "what is refused is not in the sum"
    with pytest.raises(UserError, match="serve-l4 does not train"):
        CliRunner().invoke(cli, ["sweep", "-s", "serve-l4", "--offline", "--vary", "train.rank=64"], catch_exceptions=False)


def test_the_reason_of_a_failure_is_read_from_a_log_with_half_a_line(tmp_path: Path) -> None:
    log = tmp_path / "log.jsonl"
    assert _last_error(log) == ""
    log.write_text(
        '{"severity": "ERROR", "message": "first"}\n[]\n{"severity": "ERROR", "message": "a loss of NaN\\n  fix: lower it"}\n{"severity": "INFO", "mess'
    )
    assert _last_error(log) == "a loss of NaN"
    log.write_text('{"severity": "ERROR", "message": "\\u001b[2J gone"}')
    assert _last_error(log) == "\\x1b[2J gone", "moves no cursor"
