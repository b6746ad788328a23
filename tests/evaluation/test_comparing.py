"""Base against tuned: the verdict, what cannot be compared, and a promotion that needs the proof."""

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner

from runners.artifacts import local_bucket, registry
from runners.artifacts.registry import Entry
from runners.commands.compare import compare
from runners.commands.places import LOCAL
from runners.errors import UserError
from runners.evaluation.assemble import Request
from runners.evaluation.cases import Benchmark
from runners.evaluation.comparing import differences, shown_better, table
from runners.evaluation.results import EvaluationResult
from runners.evaluation.run import perform
from runners.spec import Spec
from tests.evaluation.stub_server import Play, perfect, serving

ROOT = Path(__file__).resolve().parents[2]
BASE, TUNED = "base-0123456789abcdef", "qdora-1"
ENTRY = Entry(name="tuned-v1", id=TUNED, kind="qdora", status="ready", manifest="", parents={"base_model": BASE})


@pytest.fixture(scope="module")
def runs(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    """Real runs against a stub server: one that knows nothing, one that knows everything."""
    from runners.evaluation.cases import load

    place = Path(__file__).parents[2] / "data" / "benchmark" / "v1"
    benchmark: Benchmark = load(place)
    folders = {}
    plays = {"base": (Play(lambda case, body: "Answer: 12345678"), BASE), "tuned": (Play(perfect), TUNED)}
    for name, (play, model_id) in plays.items():
        folders[name] = tmp_path_factory.mktemp(name)
        with serving(benchmark, play) as url:
            perform(Request(Spec(), url, None, place, None, folders[name], model_id=model_id, unknown_training_data=True))
    return folders


def read(folder: Path) -> EvaluationResult:
    from runners.evaluation.run import read as read_run

    return read_run(folder)


def test_better_worse_and_not_shown(runs: dict[str, Path]) -> None:
    base, tuned = read(runs["base"]), read(runs["tuned"])
    (gained,), (lost,), (same,) = differences([base, tuned]), differences([tuned, base]), differences([tuned, tuned])
    assert (gained.verdict, lost.verdict, same.verdict) == ("better", "worse", "not shown")
    assert gained.overall.only_this > 60 and gained.overall.only_other == 0 and gained.overall.p_value < 1e-6
    assert set(gained.categories) == {case.category for case in base.cases} and gained.latency_ms is not None
    lines = table([base, tuned, tuned], differences([base, tuned, tuned]))
    assert lines[0].split() == [BASE, TUNED, TUNED] and lines[-1].startswith(f"{TUNED} against {BASE}: better")


def changed(run: EvaluationResult, **more: Any) -> EvaluationResult:
    return EvaluationResult.model_validate(json.loads(run.model_dump_json()) | more)


def test_five_more_of_a_hundred_are_not_shown(runs: dict[str, Path]) -> None:
    """Five gained and none lost is p = 0.06: too few to tell from luck."""
    base = read(runs["tuned"])
    rows = json.loads(base.model_dump_json())["cases"]
    better = changed(base, cases=[row | {"passed": True} for row in rows])
    (five,) = differences([changed(base, cases=[row | {"passed": number >= 5} for number, row in enumerate(rows)]), better])
    (six,) = differences([changed(base, cases=[row | {"passed": number >= 6} for number, row in enumerate(rows)]), better])
    assert five.verdict == "not shown" and six.verdict == "better"


def test_runs_on_other_cases_or_that_measured_nothing_are_refused(runs: dict[str, Path]) -> None:
    base = read(runs["base"])
    rows = json.loads(base.model_dump_json())["cases"]
    with pytest.raises(UserError, match="other cases"):
        differences([base, changed(base, cases=[*rows[:-1], rows[-1] | {"digest": "other"}])])
    with pytest.raises(UserError, match="other cases"):
        differences([base, changed(base, cases=rows[:50])])
    with pytest.raises(UserError, match="is contaminated"):
        differences([base, changed(base, verdict={"outcome": "contaminated", "headline": "it leaked"})])


def test_a_promotion_needs_the_proof_of_both_runs(runs: dict[str, Path]) -> None:
    base, tuned = read(runs["base"]), read(runs["tuned"])
    assert shown_better(ENTRY, base, tuned).verdict == "better"
    with pytest.raises(UserError, match="is of qdora-1"):
        shown_better(ENTRY, tuned, base)
    with pytest.raises(UserError, match="not shown"):
        shown_better(ENTRY, base, changed(base, model=tuned.model))
    with pytest.raises(UserError, match="a run of qdora-2"):
        shown_better(ENTRY.model_copy(update={"id": "qdora-2"}), base, tuned)


@pytest.fixture
def published(tmp_path: Path) -> list[str]:
    """A bucket with a base and a tuned model; the options that name it."""
    home = tmp_path / "home"
    with local_bucket.running(home, LOCAL):
        for name, stage_id, kind, parents in (("tuned-v1", TUNED, "qdora", {"base_model": BASE}), ("alone-v1", "qdora-2", "qdora", {})):
            (tmp_path / name).mkdir()
            (tmp_path / name / "config.json").write_text("{}")
            registry.publish(LOCAL, tmp_path / name, name=name, stage_id=stage_id, kind=kind, parents=parents)
    return ["--local", "--home", str(home)]


def test_elson_models_promote_takes_runs_that_show_it_better_and_no_others(runs: dict[str, Path], published: list[str]) -> None:
    def promote(*more: str) -> tuple[int, str]:
        done = subprocess.run([sys.executable, "-m", "runners", "models", "promote", *more, *published], cwd=ROOT, capture_output=True, text=True)
        return done.returncode, done.stderr

    def live() -> str | None:
        with local_bucket.running(Path(published[-1]), LOCAL):
            found = registry.production(LOCAL)
        return found.name if found else None

    base, tuned = str(runs["base"]), str(runs["tuned"])
    for wrong, said in (
        (("tuned-v1",), "not shown better"),
        (("tuned-v1", "--compared", tuned, base), "is of qdora-1"),
        (("tuned-v1", "--compared", base, base), f"a run of {TUNED}"),
        (("tuned-v1", "--compared", base, str(runs["base"].parent)), "holds no results"),
    ):
        code, error = promote(*wrong)
        assert code != 0 and said in error and "Traceback" not in error, (wrong, error)
        assert live() is None
    code, said = promote("tuned-v1", "--compared", base, tuned)
    assert code == 0 and "better" in said and live() == "tuned-v1"
    assert promote("alone-v1")[0] == 0 and live() == "alone-v1", "a model without a base model has nothing to be held against"
    assert promote("tuned-v1", "--anyway")[0] == 0 and live() == "tuned-v1"


def test_the_command_prints_the_table_and_says_so_by_its_exit_code(runs: dict[str, Path]) -> None:
    good = CliRunner().invoke(compare, [str(runs["base"]), str(runs["tuned"])])
    assert good.exit_code == 0 and "cases passed" in good.output and ": better" in good.output
    assert CliRunner().invoke(compare, [str(runs["tuned"]), str(runs["base"])]).exit_code == 1
    as_data = CliRunner().invoke(compare, [str(runs["base"]), str(runs["tuned"]), "--json"])
    assert json.loads(as_data.output)[0]["verdict"] == "better"
    assert CliRunner().invoke(compare, [str(runs["base"])]).exit_code == 2
