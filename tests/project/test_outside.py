"""No traceback from bad input: every parser of files and objects that others write, with mutations of good input, on a fixed budget.

ELSON_FUZZ=500 .venv/bin/python -m pytest tests/project/test_outside.py      more inputs a parser
"""

# ruff: noqa: E501 - a table reads better with one case a line
from __future__ import annotations

import json
import os
import random
import shutil
import subprocess
import sys
from collections.abc import Callable
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

import pytest
import yaml

from runners import outside, spec
from runners.artifacts import hub, layout, registry, storage
from runners.artifacts.record import MANIFEST, manifest_of
from runners.cloud import follow, images, jobs
from runners.commands import status
from runners.corpus import categorize, dated_limits, formats, leaks, sources
from runners.errors import UserError
from runners.evaluation import cases, contamination, importer
from runners.evaluation.run import read as results_of
from runners.evaluation.store import Store
from runners.local import grid, sweep, sweep_report
from runners.planning import machines, stacks
from runners.serving import serve
from runners.spec import BucketSpec, Spec
from runners.training import checkpoint, examples
from runners.view import runs, screens, site
from runners.vm import facts, watch
from tests.evaluation.test_importer_forms import CSV, FINANCEBENCH, FINQA, KEYWORDS, MMLU, TATQA
from tests.vm.test_agent import metadata

ROOT = Path(__file__).resolve().parents[2]
BUDGET = int(os.environ.get("ELSON_FUZZ", "60"))
BUCKETS = BucketSpec(models="gs://models", scratch="gs://scratch")

ENTRY = {"name": "m-v1", "id": "dora-1", "kind": "dora", "status": "ready", "manifest": "0" * 16, "parents": {"base_model": "b"}, "bytes": 3}
CASE = yaml.safe_load(sorted((ROOT / "data/benchmark").rglob("*.yaml"))[-1].read_text())["cases"][0]
PAIRS = '{"id": "1", "question": "q", "answer": "a", "history": [{"role": "user", "content": "c"}]}\n' * 3
BOOT = {"id": "aaaa", "instance": "vm-1", "zone": "us-central1-a", "started_at": "2026-01-01T00:00:00+00:00"}
STATE = {
    "job_id": "dora-1", "role": "train", "status": "failed", "attempts": 1, "boots": [BOOT], "progress": {"message": "m", "done": 1, "total": 2}, "retries": 1,
    "max_attempts": 5, "minutes_left": 3.5, "reason": "r", "stage": "merge", "updated_at": "2026-01-01T00:00:00+00:00", "machine": {"region": "r"},
}  # fmt: skip


RESULTS = {
    "version": 1, "verdict": {"outcome": "passed", "headline": "h"}, "benchmark": {"digest": "b", "cases": 1}, "model": {"id": "dora-1"}, "settings": {},
    "contamination": {"dataset": "d", "pairs": 1, "cases": 1, "threshold": 0.5}, "started_at": "2026-01-01T00:00:00", "finished_at": "2026-01-01T00:00:00",
}  # fmt: skip
CHECKPOINT = {"run": "r", "step": 3, "best_step": 3, "best_loss": 1.0, "bad_evaluations": 0, "history": [], "validation": []}
RECORD = {
    "version": 1,
    "stage": "train",
    "id": "dora-1",
    "status": "complete",
    "metrics": {"loss_before": 3.1},
    "phases": [{"name": "train", "started_at": "2026-01-01T00:00:00+00:00", "seconds": 3.0}],
    "gates": [{"name": "kl", "value": 1.0, "bound": 2.0, "rule": "at most"}],
}
TRAINING = {
    "train.rank": 4, "status": "done", "name": "m-v1", "id": "dora-1", "before": 3.1, "after": 2.1, "best_step": 20, "steps": 20, "held_out": 8,
    "seconds": 61.0, "processor_s": 50.0, "reason": "",
}  # fmt: skip
LEARNED = {
    "history": [{"step": 1, "loss": 7.0, "seconds": 1.0}], "validation": [{"step": 0, "loss": 6.9}, {"step": 1, "loss": 6.0}], "best_step": 1, "examples": 40,
    "validation_loss_before": 6.9, "validation_loss_after": 6.0, "steps_done": 1, "steps_planned": 1, "resumed_from_step": 1, "held_out": 8,
}  # fmt: skip
TRAINED = {**RECORD, "name": "m-v1", "spec": {"train": {"rank": 4}}, "metrics": LEARNED}


def text_of(path: str) -> str:
    return (ROOT / path).read_text()


def on_file(parse: Callable[[Path], Any], name: str) -> Callable[[Path, bytes], Any]:
    """A parser of a file, given the bytes."""

    def call(folder: Path, content: bytes) -> Any:
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_bytes(content)
        return parse(folder / name)

    return call


def on_object(parse: Callable[[], Any], uri: str) -> Callable[[Path, bytes], Any]:
    """A parser of an object in the bucket, given what the bucket answers."""

    def call(folder: Path, content: bytes) -> Any:
        with pytest.MonkeyPatch.context() as patch:
            patch.setattr(storage, "read", lambda asked: (content, 1) if asked == uri else (b"a line", 1) if asked.endswith(".log") else None)
            there = [uri, uri.replace("state.json", "logs/vm-1-aaaa.log")]
            patch.setattr(storage, "listing", lambda folder: [storage.Stored(one[len(folder) + 1 :], 1, "", 1) for one in there if one.startswith(folder)])
            return parse()

    return call


def _shown() -> Any:
    """Everything that is shown of a job: its row, its state, its log, the lines of a terminal that follows it, what a plan takes from it."""
    jobs.state(BUCKETS, "dora-1")
    found = jobs.state(BUCKETS, "dora-1")
    status._show({**found, "vm": {}})
    jobs.last_log(BUCKETS, "dora-1", 5)
    follow._Seen(lambda _: None).state(follow._read(BUCKETS, "dora-1"))
    stacks._over(BUCKETS, "dora-1")


def _store(file: Path) -> Any:
    return Store(file.parent, {"api_url": "u"}, ())


def _rows(file: Path) -> Any:
    return list(formats.rows(file, "own"))


def _checkpoint(folder: Path) -> Any:
    """A checkpoint whose state.json is hostile and whose manifest agrees with it."""
    (folder / "manifest.json").write_text(manifest_of(folder).model_dump_json())
    if problem := checkpoint._problem(folder, "r"):
        raise UserError(problem, "a checkpoint", "")


def _swept(file: Path) -> Any:
    """The page of a sweep."""
    if (found := runs._sweep(file)).outcomes:
        screens.sweep(runs.Bucket("here", (), sweeps=(found,)), found)


def _trained() -> Any:
    """What a sweep makes of a record: a row of its table, and the time of the next training."""
    entry, trial = registry.Entry.model_validate(ENTRY), grid.trials(Spec(), grid.varied(Spec(), ["train.rank=4"]))[0]
    place = trial.spec.model_copy(update={"buckets": BUCKETS})
    found = sweep._outcome(replace(trial, spec=place), entry, None)
    sweep_report.document(place, "s", [found])
    grid.text([found])
    grid.expected(trial, 100, [grid.taken(sweep._record_of(place, entry))])


def _view(path: str) -> Callable[[Path, bytes], Any]:
    """The pages of a bucket that holds a good adapter and one hostile object."""
    good = {layout.registry(BUCKETS, "m-v1"): json.dumps(ENTRY).encode(), "gs://models/m-v1/record.json": json.dumps(RECORD).encode()}

    def call(folder: Path, content: bytes) -> Any:
        there = {**good, path: content}

        def listing(uri: str) -> list[storage.Stored]:
            return [storage.Stored(name.removeprefix(f"{uri}/"), 1, "", 1) for name in there if name.startswith(f"{uri}/")]

        with pytest.MonkeyPatch.context() as patch:
            patch.setattr(storage, "read", lambda uri: (there[uri], 1) if uri in there else None)
            patch.setattr(storage, "listing", listing)
            bucket = runs.load(BUCKETS, "here")
            return [site.draw(bucket, BUCKETS, name) for name in site.names(bucket)]

    return call


#: name -> (parser of bytes, good input)
PARSERS: dict[str, tuple[Callable[[Path, bytes], Any], str]] = {
    "profile": (on_file(spec.load, "p.yaml"), text_of("runners/profiles/tiny.yaml")),
    "stack file": (on_file(lambda file: stacks._config(file), "Pulumi.x.yaml"), text_of("infra/stacks/Pulumi.train-h100.yaml")),
    "taxonomy": (on_file(categorize.taxonomy, "t.yaml"), text_of("data/taxonomy.yaml")),
    "sources": (on_file(sources.load, "s.yaml"), text_of("data/sources.yaml")),
    "dated limits": (on_file(dated_limits.load, "d.yaml"), text_of("data/dated_limits.yaml")),
    "leaks' benchmark": (on_file(partial(leaks.load, threshold=0.7), "b.yaml"), yaml.safe_dump({"version": 1, "cases": [CASE]})),
    "leaks' benchmark (JSON)": (on_file(leaks._cases, "b.json"), json.dumps({"test_cases": [CASE]})),
    "benchmark": (on_file(cases.load, "c.yaml"), yaml.safe_dump({"version": 1, "cases": [CASE]})),
    "imported benchmark": (on_file(importer.convert, "i.json"), json.dumps({"metadata": {"created": "2025"}, "test_cases": [{"question": "Why?", "expected_keywords": ["a"], "category": "tax"}]})),
    "imported FinQA": (on_file(importer.convert, "i.json"), json.dumps([FINQA])),
    "imported TAT-QA": (on_file(importer.convert, "i.json"), json.dumps([TATQA])),
    "imported FinanceBench": (on_file(importer.convert, "i.jsonl"), f"{json.dumps(FINANCEBENCH)}\n{json.dumps(FINANCEBENCH)}\n"),
    "imported MMLU": (on_file(importer.convert, "i.json"), json.dumps([MMLU])),
    "imported keyword lists": (on_file(importer.convert, "i.json"), json.dumps({"questions": [KEYWORDS]})),
    "imported CSV": (on_file(lambda file: importer.convert(file, {"Prompt": "question", "Gold": "answer"}), "i.csv"), CSV),
    "training pairs": (on_file(contamination.read_pairs, "train.jsonl"), PAIRS),
    "dataset rows": (on_file(lambda file: examples.read_rows(file.parent, "train"), "train.jsonl"), PAIRS),
    "price table": (on_file(lambda file: machines.load_prices.__wrapped__("us-central1", file), "prices.yaml"), text_of("runners/planning/prices.yaml")),
    "base images": (on_file(lambda file: images.bases(file), "bases.yaml"), text_of("images/bases.yaml")),
    "request of a run": (on_file(_store, "request.json"), json.dumps({"api_url": "u"})),
    "answers of a run": (on_file(_store, "answers.jsonl"), "{}\n"),
    "model's config": (on_file(lambda file: serve.is_quantized(file.parent), "config.json"), '{"quantization_config": {"bits": 4}}'),
    "registry entry": (on_object(lambda: registry.read(BUCKETS, "m-v1"), layout.registry(BUCKETS, "m-v1")), json.dumps(ENTRY)),
    "production": (on_object(lambda: registry.production(BUCKETS), layout.production(BUCKETS)), json.dumps({"name": "m-v1", "id": "dora-1", "manifest": "0" * 16})),
    "manifest": (on_object(lambda: storage.read_manifest("gs://models/m"), f"gs://models/m/{MANIFEST}"), json.dumps({"version": 1, "files": {"a": {"size": 1, "crc32c": "AAAAAA==", "sha256": "0" * 64}}})),
    "job state": (on_object(lambda: jobs.state(BUCKETS, "dora-1"), f"{layout.job(BUCKETS, 'dora-1')}/state.json"), json.dumps(STATE)),
    "job state: shown": (on_object(_shown, f"{layout.job(BUCKETS, 'dora-1')}/state.json"), json.dumps(STATE)),
    "job state: retries": (on_object(lambda: stacks._over(BUCKETS, "dora-1"), f"{layout.job(BUCKETS, 'dora-1')}/state.json"), json.dumps(STATE)),
    "view: job": (_view(f"{layout.job(BUCKETS, 'dora-1')}/state.json"), json.dumps(STATE)),
    "metadata of a VM": (lambda _, content: facts.parse(outside.parsed_json(content, "metadata")), json.dumps(metadata())),
    "hub's index": (lambda _, content: hub.check("x", {"model.safetensors"}, {"config.json": b"{}", "tokenizer.json": b"{}", "tokenizer_config.json": b"{}", "model.safetensors.index.json": content}), '{"weight_map": {"a": "model.safetensors"}}'),
    "hub's config": (lambda _, content: hub.check("x", {"model.safetensors"}, {"config.json": content, "tokenizer.json": b"{}", "tokenizer_config.json": b"{}"}), '{"hidden_size": 1}'),
    "hub's answer": (lambda _, content: outside.shaped(lambda: hub._described("a/b", "c", outside.parsed_json(content, "hub")), "hub", "x"), json.dumps({"sha": "c", "siblings": [{"rfilename": "config.json", "size": 3, "blobId": "x"}], "tags": ["license:mit"]})),
    "own pairs (JSON lines)": (on_file(_rows, "own.jsonl"), PAIRS),
    "own pairs (JSON)": (on_file(_rows, "own.json"), json.dumps([{"question": "q", "answer": "a"}])),
    "own pairs (CSV)": (on_file(_rows, "own.csv"), "question,answer\nq,a\n"),
    "own pairs (YAML)": (on_file(_rows, "own.yaml"), "- question: q\n  answer: a\n"),
    "own pairs (Parquet)": (on_file(_rows, "own.parquet"), "PAR1xxxxPAR1"),
    "own pairs (gzip)": (on_file(_rows, "own.jsonl.gz"), "x"),
    "results of an evaluation": (on_file(results_of, "results.json"), json.dumps(RESULTS)),
    "checkpoint": (on_file(lambda file: _checkpoint(file.parent), "state.json"), json.dumps(CHECKPOINT)),
    "view: entry": (_view(layout.registry(BUCKETS, "m-v1")), json.dumps(ENTRY)),
    "view: record": (_view("gs://models/m-v1/record.json"), json.dumps(RECORD)),
    "view: results": (_view("gs://models/runs/r/evaluation/results.json"), json.dumps(RESULTS)),
    "view: summary": (_view("gs://models/runs/r/summary.json"), json.dumps({"loss": [1, 2]})),
    "view: log": (on_file(lambda file: runs.under_way(file.parent.parent), "work/tiny.jsonl"), '{"message": "train", "time": "2026-01-01T00:00:00+00:00", "done": 1}\n' * 3),
    "view: sweep": (on_file(_swept, "sweep.json"), json.dumps({"sweep": "s", "runs": [TRAINING, {**TRAINING, "train.rank": 8, "status": "failed", "reason": "why"}]})),
    "a sweep's times": (on_file(lambda file: sweep._processor_s(file.parent.parent.parent), "sweeps/tiny-1/sweep.json"), json.dumps({"runs": [TRAINING]})),
    "a sweep's record": (on_object(_trained, "gs://models/m-v1/record.json"), json.dumps(TRAINED)),
    "view: holder": (on_file(lambda file: runs.under_way(file.parent), "bucket.holder"), json.dumps({"pid": 1, "command": "x", "since": "2026-01-01T00:00:00+00:00"})),
    "vLLM's counters": (lambda _, content: watch.counters(content.decode(errors="replace")), 'vllm:generation_tokens_total{a="b"} 12.0\nvllm:num_requests_running 1\n'),
}  # fmt: skip

ODD: list[bytes] = [
    b"",
    b"\x00" * 50,
    b"\xff\xfe\x00a",
    b"null",
    b"[]",
    b"{}",
    b"3",
    b'"text"',
    b"- a\n- b",
    b"a: b: c",
    b"? [x]\n: y",
    b"{1: 2}",
    b"a: &a [*a]",
]
ODD += [
    b"[" * 5000,
    b'{"a":' * 3000,
    b"a: 2024-13-45",
    b"9" * 5000,
    b"a: !!python/object:os.system x",
    b"&a [*a, *a]",
    b"NaN",
    b"{,",
    b"\xef\xbb\xbf{}",
    b"a\tb: c",
]
VALUES: list[Any] = [None, True, -1, 1e308, "", "x" * 5000, "../../etc", [], {}, [None], {"a": None}, {"": 1}, float("nan"), 10**400, "\x00", ["a", 1, {}]]


def mutations(good: str, draw: random.Random, count: int) -> list[bytes]:
    """Bytes changed, cut, doubled; and, where the input has a structure, values replaced, removed and renamed in it."""
    found, data = list(ODD), good.encode()
    while len(found) < count + len(ODD):
        kind = draw.randrange(4)
        if kind == 0 and data:
            at = draw.randrange(len(data))
            found.append(data[:at] + bytes([draw.randrange(256)]) * draw.choice((1, 1, 9)) + data[at + 1 :])
        elif kind == 1 and data:
            found.append(data[: draw.randrange(len(data))] + draw.choice((b"", data)))
        else:
            try:
                value = json.loads(good) if good.lstrip()[:1] in "{[" and "\n{" not in good else yaml.safe_load(good)
            except (ValueError, yaml.YAMLError):
                value = [json.loads(line) if line.startswith("{") else line for line in good.splitlines()]
            changed = _changed(value, draw)
            lines = isinstance(changed, list) and "\n{" in good
            text = (
                "\n".join(json.dumps(row) for row in changed)
                if lines
                else draw.choice((partial(json.dumps, default=str), partial(yaml.safe_dump, allow_unicode=True)))(changed)
            )
            found.append(text.encode(errors="replace"))
    return found


def _changed(value: Any, draw: random.Random) -> Any:
    """The value with one place in it changed."""
    if isinstance(value, dict) and value and draw.random() < 0.85:
        key = draw.choice(list(value))
        if draw.random() < 0.15:
            return {other: inner for other, inner in value.items() if other != key}
        if draw.random() < 0.1:
            return {**value, f"{key}x": value[key]}
        return {**value, key: _changed(value[key], draw)}
    if isinstance(value, list) and value and draw.random() < 0.8:
        at = draw.randrange(len(value))
        return [*value[:at], _changed(value[at], draw), *value[at + 1 :]]
    return draw.choice(VALUES)


@pytest.mark.parametrize("name", PARSERS)
def test_bad_input_is_one_sentence(name: str, tmp_path: Path) -> None:
    parse, good = PARSERS[name]
    draw, tracebacks = random.Random(name), dict[str, bytes]()
    for content in mutations(good, draw, BUDGET):
        shutil.rmtree(tmp_path)
        tmp_path.mkdir()
        try:
            parse(tmp_path, content)
        except UserError as error:
            assert error.found and len(str(error)) < 20_000
        except Exception as error:  # noqa: BLE001 - each is a finding
            tracebacks[f"{type(error).__name__}: {str(error)[:100]}"] = content[:200]
    assert not tracebacks


@pytest.mark.parametrize("name", [name for name, (parse, _) in PARSERS.items() if "on_file" in parse.__qualname__])
def test_the_good_input_is_read(name: str, tmp_path: Path) -> None:
    """The other half: what is mutated is good before."""
    if name == "answers of a run":
        pytest.skip("an empty answer is none")
    parse, good = PARSERS[name]
    parse(tmp_path, good.encode())


@pytest.mark.parametrize("read", [outside.text, outside.read_json, outside.read_yaml, spec.load])
def test_what_is_no_file_is_one_sentence(read: Callable[[Path], Any], tmp_path: Path) -> None:
    (tmp_path / "latin").write_bytes("Zinsen f\xfcr".encode("latin-1"))
    for place in (
        tmp_path,
        tmp_path / "missing",
        tmp_path / "latin",
        tmp_path / "latin" / "below",
        tmp_path / ("x" * 300),
        Path("/dev/null/x"),
        tmp_path / "a\0b",
    ):
        with pytest.raises(UserError):
            read(place)


@pytest.mark.parametrize(
    "arguments", [["models", "ls", "--local"], ["status", "--local"], ["view", "--local", "--export", "site"], ["run", "--profile", "tiny"]]
)
def test_a_home_that_is_a_file_is_one_sentence(arguments: list[str], tmp_path: Path) -> None:
    (tmp_path / "file").write_text("mine")
    for home in (tmp_path / "file", tmp_path / "file" / "below"):
        done = subprocess.run([sys.executable, "-m", "runners", *arguments, "--home", str(home)], cwd=ROOT, capture_output=True, text=True)
        assert done.returncode in (1, 2) and "Traceback" not in done.stderr and "file" in done.stderr, done.stderr[-1000:]
    assert (tmp_path / "file").read_text() == "mine"
