"""``elson evaluate`` as a user calls it: a process, its output, its exit code."""

import json
import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

from runners.evaluation.cases import Benchmark
from tests.evaluation.stub_server import Play, perfect, serving, wrong

ROOT = Path(__file__).parents[2]


def elson(*arguments: str | Path, cwd: Path, key: str = "") -> subprocess.CompletedProcess[str]:
    environment = {**os.environ, "PYTHONPATH": str(ROOT), "ELSON_API_KEY": key}
    return subprocess.run(
        [sys.executable, "-m", "runners", "evaluate", *map(str, arguments)], cwd=cwd, env=environment, capture_output=True, text=True, timeout=60
    )


@pytest.mark.parametrize(
    ("play", "code", "word"), [(Play(perfect), 0, "PASSED"), (Play(wrong), 1, "NOT PASSED"), (Play(perfect, key="other"), 2, "refuses the key")]
)
def test_exit_codes(play: Play, code: int, word: str, benchmark: Benchmark, benchmark_file: Path, tmp_path: Path) -> None:
    with serving(benchmark, play) as url:
        done = elson("--api-url", url, "--benchmark", benchmark_file, "--dataset", "none", "--out", "run", cwd=tmp_path, key="mine")
    assert done.returncode == code, done.stderr
    assert word in done.stdout + done.stderr
    if code < 2:
        assert done.stdout.splitlines()[0].startswith(f"elson evaluate: {word} | ") and (tmp_path / "run" / "report.html").is_file()


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (["--dataset", "none"], "--api-url is missing"),
        (["--dataset", "none", "--api-url", "http://127.0.0.1:9", "--benchmark", "nowhere.yaml"], "no benchmark"),
        (["--dataset", "none", "--api-url", "http://127.0.0.1:9"], "does not answer"),
        (["--dataset", "none", "--api-url", "http://127.0.0.1:9", "--judge-url", "http://127.0.0.1:9"], "go together"),
    ],
)
def test_what_cannot_be_measured_is_2(arguments: list[str], said: str, benchmark_file: Path, tmp_path: Path) -> None:
    given = arguments if "--benchmark" in arguments else [*arguments, "--benchmark", str(benchmark_file)]
    done = elson(*given, cwd=tmp_path)
    assert done.returncode == 2 and said in done.stderr and "Traceback" not in done.stderr


def test_json_is_the_only_thing_on_stdout(benchmark: Benchmark, benchmark_file: Path, tmp_path: Path) -> None:
    with serving(benchmark, Play(perfect)) as url:
        done = elson("--api-url", url, "--benchmark", benchmark_file, "--dataset", "none", "--json", "--concurrency", "16", cwd=tmp_path)
    found = json.loads(done.stdout)
    assert found["verdict"]["outcome"] == "passed" and found["latency"]["concurrency"] == 16
    assert len(list((tmp_path / ".elson" / "evaluations").glob("*-1/results.json"))) == 1


def test_repeating_the_command_is_a_new_run_and_fresh_throws_one_away(benchmark: Benchmark, benchmark_file: Path, tmp_path: Path) -> None:
    play = Play(perfect)
    with serving(benchmark, play) as url:
        command = ["--api-url", url, "--benchmark", str(benchmark_file), "--dataset", "none"]
        assert elson(*command, cwd=tmp_path).returncode == elson(*command, cwd=tmp_path).returncode == 0
        assert len(play.seen) == 2 * 42 and len(list((tmp_path / ".elson" / "evaluations").iterdir())) == 2
        assert elson(*command, "--out", "run", cwd=tmp_path).returncode == elson(*command, "--out", "run", cwd=tmp_path).returncode == 0
        assert len(play.seen) == 3 * 42, "the same folder holds the same run"
        assert elson(*command, "--out", "run", "--fresh", cwd=tmp_path).returncode == 0 and len(play.seen) == 4 * 42


def test_a_dry_run_touches_nothing(benchmark_file: Path, tmp_path: Path) -> None:
    before = sorted(tmp_path.rglob("*"))
    done = elson("--dry-run", "--benchmark", benchmark_file, "--dataset", "none", "--usd-per-hour", "0.85", "--concurrency", "2", "--json", cwd=tmp_path)
    plan = json.loads(done.stdout)
    assert done.returncode == 0 and sorted(tmp_path.rglob("*")) == before
    assert plan["cases"] == 40 and plan["requests"] == 42 and plan["by_kind"] == {"multiple_choice": 8, "decline": 8, "answer": 24}
    assert plan["minutes_at_the_latency_bar"] == pytest.approx(40 / 2 * 2 / 60, abs=0.01)
    assert plan["usd_at_the_latency_bar"] == pytest.approx(plan["minutes_at_the_latency_bar"] / 60 * 0.85, abs=1e-3)


def test_import_prints_yaml_that_loads(tmp_path: Path) -> None:
    from runners.evaluation.cases import load

    row = {"id": 1, "category": "retirement", "question": "What is the limit?", "expected_keywords": ["$23,000"], "difficulty": "easy"}
    (tmp_path / "old.json").write_text(json.dumps({"test_cases": [row]}))
    done = elson("import", "old.json", cwd=tmp_path)
    (tmp_path / "new.yaml").write_text(done.stdout)
    assert done.returncode == 0 and load(tmp_path / "new.yaml").cases[0].sharpen


def test_export_writes_an_inspect_log(benchmark: Benchmark, benchmark_file: Path, tmp_path: Path) -> None:
    with serving(benchmark, Play(perfect)) as url:
        elson("--api-url", url, "--benchmark", benchmark_file, "--dataset", "none", "--out", "run", cwd=tmp_path)
    done = elson("export", "run", cwd=tmp_path)
    log = json.loads((tmp_path / done.stdout.strip()).read_text())
    assert log["version"] == 2 and log["status"] == "success" and len(log["samples"]) == 40
    assert log["results"]["scores"][0]["metrics"]["accuracy"]["value"] == 1.0
    assert {sample["scores"]["elson"]["value"] for sample in log["samples"]} == {"C"}


def test_the_report_says_how_to_open_the_inspect_log(benchmark: Benchmark, benchmark_file: Path, tmp_path: Path) -> None:
    """Its commands are run as they are written, in the folder of the page."""
    with serving(benchmark, Play(perfect)) as url:
        elson("--api-url", url, "--benchmark", benchmark_file, "--dataset", "none", "--out", "run", cwd=tmp_path)
    written = re.search(r"elson evaluate (export \.)\ninspect view --log-dir (\w+)", (tmp_path / "run" / "report.html").read_text())
    assert written
    assert elson(*written[1].split(), cwd=tmp_path / "run").returncode == 0
    assert len(list((tmp_path / "run" / written[2]).glob("*_elson_*.json"))) == 1


def test_help_is_quick_and_has_examples(tmp_path: Path) -> None:
    for command in ([], ["import"], ["export"]):
        done = elson(*command, "--help", cwd=tmp_path)
        assert done.returncode == 0 and "Examples:" in done.stdout
