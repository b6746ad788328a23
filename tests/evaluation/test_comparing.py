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
from runners.artifacts.served_with import ServedWith
from runners.commands.compare import compare
from runners.commands.places import LOCAL
from runners.errors import UserError
from runners.evaluation.assemble import Request
from runners.evaluation.cases import Benchmark
from runners.evaluation.comparing import MOST_LOST, cache_kept, differences, shown_better, table
from runners.evaluation.results import EvaluationResult
from runners.evaluation.run import perform, write
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


def told(dtype: str, **more: Any) -> dict[str, Any]:
    return {"kv_cache_dtype": dtype, "prefix_caching": True, "speculation": "none"} | more


def cached(run: EvaluationResult, dtype: str, passed: range, cases: int = 100, **more: Any) -> EvaluationResult:
    """A run of the tuned model whose server said how it keeps its cache."""
    rows = json.loads(run.model_dump_json())["cases"][:cases]
    return changed(run, cases=[row | {"passed": number in passed} for number, row in enumerate(rows)], served_with=told(dtype), **more)


def test_what_an_fp8_cache_may_lose_for_every_number_of_cases_that_change(runs: dict[str, Path]) -> None:
    """Allowed exactly where no loss is shown and the interval ends below a tenth; of 100 cases five may be lost and none gained."""
    run = read(runs["tuned"])
    assert len(run.cases) == 100
    allowed = {}
    for lost in range(13):
        for gained in range(13):
            auto, fp8 = cached(run, "auto", range(60)), cached(run, "fp8", range(lost, 60 + gained))
            (found,) = differences([auto, fp8])
            assert (found.overall.only_this, found.overall.only_other) == (gained, lost)
            try:
                line = cache_kept(ENTRY, auto, fp8)
            except UserError as error:
                allowed[lost, gained] = False
                assert f"{gained} gained, {lost} lost of 100" in str(error) and "serve.kv_cache_dtype: auto" in str(error)
                assert ("more cases" in str(error)) == (found.verdict != "worse")
            else:
                allowed[lost, gained] = True
                assert found.verdict != "worse" and f"{gained} gained, {lost} lost of 100" in line
    assert [max(lost for lost in range(13) if allowed[lost, gained]) for gained in (0, 1, 5, 10)] == [5, 5, 7, 11]
    for lost, gained in allowed:
        assert allowed[lost, gained] or not allowed.get((lost + 1, gained), False), "one loss more is never better"
    assert MOST_LOST == 0.10


def test_few_cases_show_nothing_of_an_fp8_cache(runs: dict[str, Path]) -> None:
    run = read(runs["tuned"])
    few = [cached(run, dtype, range(10), cases=17) for dtype in ("auto", "fp8")]
    with pytest.raises(UserError, match="at most 10.3% of the cases lost") as refused:
        cache_kept(ENTRY, *few)
    assert "more cases" in str(refused.value)
    assert "at most 9.8%" in cache_kept(ENTRY, *(cached(run, dtype, range(10), cases=18) for dtype in ("auto", "fp8")))


def test_runs_that_say_nothing_of_an_fp8_cache_are_refused(runs: dict[str, Path]) -> None:
    run = read(runs["tuned"])
    auto, fp8 = cached(run, "auto", range(60)), cached(run, "fp8", range(60))
    assert cache_kept(ENTRY, auto, fp8)
    untold = run.model_copy(update={"served_with": None})
    assert run.served_with is None, "a server that elson did not start"
    for pair, said in (
        ((fp8, auto), "the server of the run with auto said of its cache: fp8"),
        ((auto, auto), "the server of the run with fp8 said of its cache: auto"),
        ((auto, untold), "the run with fp8 said of its cache: nothing"),
        ((untold, fp8), "the run with auto said of its cache: nothing"),
        ((read(runs["base"]), fp8), f"the run with auto is of {BASE}"),
        ((auto, cached(run, "fp8", range(60), model={"id": "qdora-2"})), "the run with fp8 is of qdora-2"),
        ((auto, cached(run, "fp8", range(60), cases=50)), "other cases"),
        ((auto, cached(run, "fp8", range(60), verdict={"outcome": "unfit", "headline": "x"})), "is unfit"),
    ):
        with pytest.raises(UserError) as refused:
            cache_kept(ENTRY, *pair)
        assert said in str(refused.value)
    for name, value in (("temperature", 0.7), ("max_tokens", 4), ("seed", 1), ("system_prompt", "Be brief.")):
        with pytest.raises(UserError, match=f"differ in {name}, too"):
            cache_kept(ENTRY, auto, cached(run, "fp8", range(60), settings={**run.settings, name: value}))


def test_an_evaluation_records_what_every_answers_server_said(tmp_path: Path) -> None:
    """Also of a run that another server finished: then nobody knows with what it was made."""
    from runners.evaluation.cases import load

    place = Path(__file__).parents[2] / "data" / "benchmark" / "v1"
    benchmark, fp8 = load(place), ServedWith(**told("fp8"))
    said = {"all": lambda number: fp8.text, "one other": lambda number: fp8.text if number else None, "vllm's own": lambda number: "vllm-0.32.0-0123abcd"}
    for name, fingerprint in said.items():
        with serving(benchmark, Play(perfect, fingerprint=fingerprint)) as url:
            found = perform(Request(Spec(), url, None, place, None, tmp_path / name, model_id=TUNED, unknown_training_data=True))
        assert found.served_with == (fp8 if name == "all" else None), name
        assert read(tmp_path / name).served_with == found.served_with
        page = (tmp_path / name / "report.html").read_text()
        assert ("not told" in page) == (name != "all")


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

    def proof() -> str:
        with local_bucket.running(Path(published[-1]), LOCAL):
            found = registry.production(LOCAL)
        return found.fp8_cache if found else ""

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

    # What is in production needs no second proof that it is better than its base; what is not, does.
    kept = {dtype: Path(published[-1]).parent / dtype for dtype in ("auto", "fp8")}
    for dtype, folder in kept.items():
        write(changed(read(runs["tuned"]), served_with=told(dtype)), folder)
    pair = (str(kept["auto"]), str(kept["fp8"]))
    code, error = promote("tuned-v1", "--fp8-cache", *reversed(pair))
    assert code != 0 and "said of its cache: fp8" in error and not proof()
    code, said = promote("tuned-v1", "--fp8-cache", *pair)
    assert code == 0 and "at most 1.9% of the cases lost" in said and "at most 1.9%" in proof()
    assert promote("alone-v1")[0] == 0 and not proof()
    code, error = promote("tuned-v1", "--fp8-cache", *pair)
    assert code != 0 and "not shown better than its base" in error and live() == "alone-v1"


def test_the_command_prints_the_table_and_says_so_by_its_exit_code(runs: dict[str, Path]) -> None:
    good = CliRunner().invoke(compare, [str(runs["base"]), str(runs["tuned"])])
    assert good.exit_code == 0 and "cases passed" in good.output and ": better" in good.output
    assert CliRunner().invoke(compare, [str(runs["tuned"]), str(runs["base"])]).exit_code == 1
    as_data = CliRunner().invoke(compare, [str(runs["base"]), str(runs["tuned"]), "--json"])
    assert json.loads(as_data.output)[0]["verdict"] == "better"
    assert CliRunner().invoke(compare, [str(runs["base"])]).exit_code == 2
