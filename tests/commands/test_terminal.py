"""What a person sees in a terminal, a CI log and a JSON log: one form each, names that help, nothing cut."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import pytest

from runners import log
from runners.artifacts import local_bucket
from runners.commands.models import table
from runners.errors import UserError
from runners.local import memory
from runners.local.memory import PeakMemory, processor_s, resident_mib
from runners.planning import stacks, tables
from runners.planning.machines import load_prices
from runners.planning.plan import make_plan
from runners.spec import BucketSpec

ROOT = Path(__file__).resolve().parents[2]
ELSON = [sys.executable, "-m", "runners"]


def elson(*arguments: str, **env: str) -> subprocess.CompletedProcess[str]:
    clean = {key: value for key, value in os.environ.items() if key not in ("CI", "ELSON_LOG")}
    return subprocess.run([*ELSON, *arguments], cwd=ROOT, env={**clean, **env}, capture_output=True, text=True, check=False, timeout=120)


@pytest.mark.parametrize(
    ("arguments", "code", "said"),
    [
        (("modles",), 2, "did you mean models?"),
        (("models", "lss"), 2, "did you mean ls?"),
        (("models", "ls", "--nope"), 2, "elson models ls --help"),
        (("plan", "-s", "train-h10"), 1, "did you mean train-h100?"),
        (("run", "--profile", "locl"), 1, "did you mean local?"),
    ],
)
def test_an_unknown_name_is_one_json_line_with_the_nearest_one(arguments: tuple[str, ...], code: int, said: str) -> None:
    done = elson(*arguments)
    assert done.returncode == code and done.stdout == ""
    (row,) = [json.loads(line) for line in done.stderr.splitlines()]
    assert row["severity"] == "ERROR" and said in row["message"]


@pytest.mark.parametrize("command", [("up", "--dry-run"), ("down", "--dry-run"), ("plan", "--offline"), ("doctor",)], ids=lambda command: command[0])
def test_a_stack_is_named_by_a_word_or_by_an_option(command: tuple[str, ...]) -> None:
    word, option, both = (elson(*command, *named) for named in (("no-such",), ("-s", "no-such"), ("no-such", "--stack", "no-such")))
    for done in (word, option, both):
        assert done.returncode == 1 and ("there is no stack no-such" in done.stderr or command[0] == "down"), done.stderr
    if command[0] != "plan":
        assert "two stacks are named" in elson(*command, "serve-l4", "-s", "train-h100").stderr


@pytest.mark.parametrize(
    "typed",
    [
        "plan --offline",
        "plan -s serve-l4 --verbose",
        "prices show",
        "doctor",
        "up serve-l4 --dry-run",
        "down serve-l4 --dry-run",
        "data check {home}/pairs.jsonl",
        "data build {home}/pairs.jsonl --out {home}/dataset",
        "models ls --local --home {home}",
        "status --local --home {home}",
        "view --local --home {home} --export {home}/site",
        "compare {home} {home}",
        "new {home}/project",
        "load --api-url http://127.0.0.1:9 --tokenizer {home} --out {home}/load",
        "evaluate --api-url http://127.0.0.1:9 --dataset none --out {home}/evaluation",
    ],
)
def test_where_no_person_reads_every_line_on_stderr_is_one_json_object(tmp_path: Path, typed: str) -> None:
    answer = "A marginal rate applies to the last dollar of income; the average rate is tax divided by income. Both are on the same return."
    rows = [{"question": f"What is a {name} rate of tax?", "answer": answer, "category": name} for name in ("tax", "gardening")]
    (tmp_path / "pairs.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    lines = elson(*typed.format(home=tmp_path).split(), HOME=str(tmp_path)).stderr.splitlines()
    assert all(json.loads(line)["severity"] in ("INFO", "WARNING", "ERROR") for line in lines), lines


def test_in_a_ci_log_an_error_is_readable_lines() -> None:
    lines = elson("plan", "-s", "train-h10", CI="true").stderr.splitlines()
    assert lines[0].startswith("error: there is no stack train-h10") and lines[1].startswith("  expected: ") and lines[2].startswith("  fix:")


def test_what_libraries_say_is_a_json_line_too_and_deprecations_are_not_said() -> None:
    program = (
        "import logging, warnings; from runners import log; log.take_over_libraries(); log.configure('train')\n"
        "logging.getLogger('somebody').warning('two\\nlines'); warnings.warn('look out'); warnings.warn('torch_dtype is deprecated', FutureWarning)\n"
        "logging.getLogger('somebody').info('chatter'); log.relay('native noise\\n'); log.event('loss', value=0.12345678901234)"
    )
    done = subprocess.run([sys.executable, "-c", program], cwd=ROOT, env={**os.environ, "ELSON_LOG": "json"}, capture_output=True, text=True, check=True)
    rows = [json.loads(line) for line in done.stderr.splitlines()]
    assert [row["severity"] for row in rows] == ["WARNING", "WARNING", "INFO", "INFO"]
    assert rows[0]["message"] == "two\nlines" and "look out" in rows[1]["message"] and rows[2]["message"] == "native noise"
    assert not any("deprecated" in row["message"] or "chatter" in row["message"] for row in rows)
    plain = subprocess.run([sys.executable, "-c", program], cwd=ROOT, env={**os.environ, "ELSON_LOG": "plain"}, capture_output=True, text=True, check=True)
    assert "value=0.1235" in plain.stderr and "0.12345678901234" not in plain.stderr


def test_a_bug_is_one_json_line_with_its_traceback() -> None:
    program = "from runners import log\ntry: 1/0\nexcept ZeroDivisionError: log.bug()"
    done = subprocess.run([sys.executable, "-c", program], cwd=ROOT, env={**os.environ, "ELSON_LOG": "json"}, capture_output=True, text=True, check=True)
    (row,) = [json.loads(line) for line in done.stderr.splitlines()]
    assert "ZeroDivisionError" in row["traceback"]


def test_the_log_file_gets_every_line_as_json_whatever_the_screen_shows(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("ELSON_LOG_FILE", str(tmp_path / "log.jsonl"))
    monkeypatch.setenv("ELSON_LOG", "plain")
    log.event("one", api_key="sesame", count=2)
    log.failure("two")
    rows = [json.loads(line) for line in (tmp_path / "log.jsonl").read_text().splitlines()]
    assert rows[0]["api_key"] == "[not shown]" and rows[0]["count"] == 2 and rows[1]["message"] == "two"


def test_a_closed_pipe_is_no_error() -> None:
    program = f"set -o pipefail; cd '{ROOT}'; for n in 1 2 3 4 5; do '{sys.executable}' -m runners plan --offline --json | true || exit 9; done"
    done = subprocess.run(["bash", "-c", program], capture_output=True, text=True, check=False, timeout=120)
    assert done.returncode == 0 and "Broken" not in done.stderr and "Traceback" not in done.stderr


@pytest.mark.parametrize("group", ["data", "models", "images", "prices", "key", "base"])
def test_the_help_of_a_group_is_not_cut(group: str) -> None:
    text = elson(group, "--help", COLUMNS="80").stdout
    commands = text.split("Commands:")[1]
    assert commands.strip() and "..." not in commands and max(map(len, commands.splitlines())) <= 80


def test_options_name_their_environment_variables() -> None:
    text = elson("models", "ls", "--help").stdout
    assert "ELSON_MODELS_BUCKET" in text and "ELSON_SCRATCH_BUCKET" in text


def test_the_list_of_models_has_a_header_and_fits() -> None:
    row: dict[str, Any] = {"kind": "qdora", "status": "ready", "bytes": 9_980_000_000, "published_at": "2026-11-26T10:00:00", "id": "qdora-0123456789abcdef"}
    rows = [{**row, "name": "elson-finance-trading-wealth-14b-q4-v2", "production": True}, {**row, "name": "a-dataset", "kind": "dataset", "production": False}]
    narrow, wide = table(rows, 80), table(rows, 120)
    assert narrow[0].split() == ["name", "kind", "status", "size", "published"] and max(map(len, narrow)) <= 80
    assert "10.0 GB" in narrow[1] and "production" in narrow[1] and "qdora-0123456789abcdef" in wide[1]
    assert rows[0]["name"] in table(rows, 20)[1], "a name is never cut"


def test_a_plan_is_eight_lines() -> None:
    for name in stacks.names():
        stack = stacks.load(name)
        if stack.role == "foundation":
            continue
        lines = tables.brief(make_plan(name, stack.spec, load_prices()))
        assert 5 <= len(lines) <= 8, name
        assert any(line.startswith("stops") for line in lines) and "$" in lines[1]


def test_a_busy_folder_says_who_holds_it(tmp_path: Path) -> None:
    pair = BucketSpec(models="gs://models", scratch="gs://scratch")
    with local_bucket.running(tmp_path, pair):
        with pytest.raises(UserError, match=rf"pid {os.getpid()}, since 20\d\d-"), local_bucket.running(tmp_path, pair):
            pass
        with local_bucket.running(tmp_path, pair, reads_only=True) as url:
            assert url.startswith("http://127.0.0.1:")
    assert not (tmp_path / "bucket.holder").exists()


def test_status_says_which_run_goes_on_and_what_is_left(tmp_path: Path) -> None:
    def status(*options: str) -> str:
        return elson("status", "--local", "--home", str(tmp_path), *options, ELSON_LOG="plain").stdout

    pair = BucketSpec(models="gs://models", scratch="gs://scratch")
    rows = [
        {"message": "stage 2 of 9: data"},
        {"message": "stage 3 of 9: train"},
        {"message": "train", "done": 10, "total": 30, "unit": "steps", "elapsed_s": 60.0},
    ]
    (tmp_path / "work").mkdir()
    with local_bucket.running(tmp_path, pair):
        later = time.strftime("%Y-%m-%dT%H:%M:%S+00:00", time.gmtime(time.time() + 1))
        (tmp_path / "work" / "local.jsonl").write_text("".join(json.dumps(row | {"time": later}) + "\n" for row in rows))
        lines = status().splitlines()
        assert lines[0].startswith("running ") and f"(pid {os.getpid()}), since 20" in lines[0]
        assert lines[1:] == ["stage     3 of 9: train", "progress  train: 10 of 30 steps, about 2 min 00 s left"]
        (row,) = json.loads(status("--json"))
        assert row["pid"] == os.getpid() and row["stage"] == "3 of 9: train" and row["left_s"] == 120
    assert status() == "" and json.loads(status("--json")) == []


def test_memory_is_that_of_the_process_and_its_children(monkeypatch: pytest.MonkeyPatch) -> None:
    """Counted exactly where it grew: that count stops the process's own mmap while it walks the pages (32 ms of 3 GiB)."""
    counted: list[int] = []

    def exactly(pid: int) -> float:
        counted.append(pid)
        return resident_mib(pid)

    monkeypatch.setattr(memory, "resident_mib", exactly)
    holds = "b = bytearray(60 << 20); print(1, flush=True); import time; time.sleep(60)"
    program = f"import subprocess, sys; c = subprocess.Popen([sys.executable, '-c', {holds!r}], stdout=subprocess.PIPE); c.stdout.readline(); {holds}"
    with subprocess.Popen([sys.executable, "-c", program], stdout=subprocess.PIPE, start_new_session=True) as parent:
        assert parent.stdout
        parent.stdout.readline()
        try:
            assert 120 < resident_mib(parent.pid) < 250
            with PeakMemory(parent.pid) as peak:
                time.sleep(2)
            assert peak.mib == pytest.approx(resident_mib(parent.pid), rel=0.05)
            assert counted == [parent.pid]
        finally:
            os.killpg(parent.pid, 9)
    assert resident_mib(parent.pid) == 0


def test_processor_time_is_that_of_running_and_ended_children() -> None:
    """Counted once: a child's time is not lost when it ends, and not doubled. Waiting is no processor time."""
    burn = "import sys, time\nwhile time.process_time() < 1: pass\nprint(1, flush=True); sys.stdin.read()"
    program = f"import subprocess, sys; subprocess.run([sys.executable, '-c', {burn!r}])"
    before = processor_s()
    with subprocess.Popen([sys.executable, "-c", program], stdin=subprocess.PIPE, stdout=subprocess.PIPE) as parent:
        assert parent.stdout and parent.stdin
        parent.stdout.readline()
        running = processor_s() - before
        time.sleep(0.5)
        parent.stdin.close()
    assert 0.9 < running < 2 and 0.9 < processor_s() - before < 2


@pytest.mark.parametrize(
    ("words", "found"),
    [
        ("elson plan -s tr", {"train-h100"}),
        ("elson models show --home HOME my", {"my-model"}),
        ("elson status --home HOME do", {"dora-1"}),
        ("elson run --profile lo", {"local"}),
        ("elson up tr", {"train-h100"}),
        ("elson plan tr", {"train-h100"}),
        ("elson mo", {"models"}),
    ],
)
def test_the_shell_completes_stacks_models_jobs_and_profiles(tmp_path: Path, words: str, found: set[str]) -> None:
    for file in ("models/registry/my-model.json", "models/registry/other.json", "scratch/jobs/dora-1/state.json"):
        (tmp_path / "bucket" / file).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / "bucket" / file).write_text("{}")
    typed = words.replace("HOME", str(tmp_path))
    done = elson(_ELSON_COMPLETE="bash_complete", COMP_WORDS=typed, COMP_CWORD=str(len(typed.split()) - 1))
    assert {line.removeprefix("plain,") for line in done.stdout.splitlines()} >= found, done.stderr
    assert "other" not in done.stdout
