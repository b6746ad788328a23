"""`elson view` in a real browser: runs, one run, side by side, cases, pairs; nothing from outside, nothing a model wrote runs."""

from __future__ import annotations

import csv
import json
import os
import struct
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import replace
from datetime import UTC, datetime
from pathlib import Path

import google_crc32c
import httpx
import pytest
import uvicorn
from tensorboardX.proto import event_pb2

from runners import log
from runners.artifacts import layout, local_bucket, storage
from runners.errors import UserError
from runners.spec import BucketSpec
from runners.training import checkpoint, train
from runners.view import exports, now, screens, server, site
from runners.view.runs import Bucket, load
from runners.vm import decide
from tests.browser import Browser
from tests.view.conftest import HOSTILE, _publish


@pytest.mark.parametrize(("width", "dark"), [(390, False), (390, True), (1366, False), (1366, True)])
def test_every_page_reads_well_and_runs_nothing_foreign(browser: Browser, runs: BucketSpec, swept: Path, tmp_path: Path, width: int, dark: bool) -> None:
    names = site.export(runs, "a bucket", swept, tmp_path / "site")
    assert {name.split("--")[0] for name in names} == {"index.html", "run", "cases", "data", "compare", "sweep"}
    for name in names:
        shown = browser.open(tmp_path / "site" / name, width=width, dark=dark)
        shown.run("document.querySelectorAll('details').forEach(d => d.open = true)")
        assert (name, shown.faults()) == (name, {})
        assert shown.run("window.pwned") is None


def test_cases_are_filtered_and_show_every_models_answer(browser: Browser, runs: BucketSpec, tmp_path: Path) -> None:
    site.export(runs, "a bucket", None, tmp_path)
    shown = browser.open(tmp_path / f"cases--dora-{0:016x}.html")
    assert shown.run("document.querySelectorAll('.item').length") == 12
    assert shown.run("[...document.querySelectorAll('.item')[0].querySelectorAll('h3')].map(h => h.textContent.split(' ')[0])") == [
        "base",
        "tuned",
        "quantized",
    ]
    assert shown.run("document.querySelector('.item mark').textContent") == "0 dol"
    shown.run("(() => { const m = document.querySelector('[data-by=outcome]'); m.value = 'wrong'; m.dispatchEvent(new Event('input', {bubbles: true})); })()")
    assert shown.run("document.querySelector('.filters output').textContent") == "1 of 12"
    shown.run("(() => { const m = document.querySelector('[data-by=domain]'); m.value = 'estate'; m.dispatchEvent(new Event('input', {bubbles: true})); })()")
    assert shown.run("document.querySelectorAll('.item:not([hidden])').length") == 0


def test_two_runs_are_chosen_by_keyboard_and_compared(browser: Browser, runs: BucketSpec, tmp_path: Path) -> None:
    site.export(runs, "a bucket", None, tmp_path)
    shown = browser.open(tmp_path / "index.html")
    assert shown.run("document.querySelector('.pick button').disabled")
    for box in (0, 1):
        shown.run(f"document.querySelectorAll('[data-pick] input[type=checkbox]')[{box}].focus()")
        for kind in ("keyDown", "keyUp"):
            shown.call("Input.dispatchKeyEvent", type=kind, key=" ", code="Space", windowsVirtualKeyCode=32, text=" " if kind == "keyDown" else "")
    assert not shown.run("document.querySelector('.pick button').disabled")
    shown.events.clear()
    shown.run("document.querySelector('.pick button').click()")
    shown.wait_for("Page.loadEventFired")
    text = shown.run("document.body.textContent")
    assert "Runs side by side" in text and "train.rank" in text and "base_model.name" not in text.split("What differs in the spec")[1].split("Losses")[0]


def test_one_run_and_none_are_pages_too(browser: Browser, runs: BucketSpec, tmp_path: Path) -> None:
    found = load(runs, "here")
    for count in (0, 1):
        (tmp_path / "index.html").write_text(screens.index(replace(found, runs=found.runs[:count])))
        assert browser.open(tmp_path / "index.html").faults() == {}


def test_a_sweep_leads_to_its_trainings(browser: Browser, runs: BucketSpec, swept: Path, tmp_path: Path) -> None:
    site.export(runs, "a bucket", swept, tmp_path)
    shown = browser.open(tmp_path / "index.html")
    assert shown.run("document.querySelector('#sweeps tbody tr').innerText.split(/\\s+/)").count("tiny-1") == 1
    shown.events.clear()
    shown.run("document.querySelector('#sweeps a').click()")
    shown.wait_for("Page.loadEventFired")
    rows = shown.run("[...document.querySelectorAll('#trainings tbody tr')].map(row => [...row.children].map(cell => cell.textContent))")
    assert [row[0] for row in rows] == ["4", "8", "16"] and rows[0][2:4] == ["3.1000", "2.1000"]
    assert [row[-2].split()[-1] for row in rows] == ["done", "done", "failed"]
    assert [row[-1] for row in rows] == ["good-adapter", "hostile-adapter", HOSTILE]
    links = shown.run("[...document.querySelectorAll('#trainings a')].map(link => link.getAttribute('href'))")
    assert links == [f"run--dora-{n:016x}.html" for n in (0, 1)] and all((tmp_path / link).exists() for link in links)
    assert "Best: rank 4" in shown.run("document.body.textContent") and shown.run("document.querySelectorAll('#losses svg').length") > 0


@pytest.mark.parametrize(
    "content",
    ["{", "[]", '{"runs": 3}', '{"runs": [{}]}', '{"runs": [{"train.rank": 4, "id": "x", "status": "done"}]}', '{"runs": [{"id": "x", "status": "gone"}]}']
    + [
        f'{{"runs": [{{"train.rank": 4, "id": "x", "status": "done", "before": 3, "after": {after}, "seconds": {seconds}}}]}}'
        for after, seconds in ((1, "1e999"), ('"low"', 1), (1, '"long"'))
    ],
)
def test_a_damaged_sweep_hides_nothing_else(runs: BucketSpec, swept: Path, content: str) -> None:
    (swept / "sweeps" / "tiny-2").mkdir()
    (swept / "sweeps" / "tiny-2" / "sweep.json").write_text(content)
    found = load(runs, "here", swept)
    assert [one.name for one in found.sweeps] == ["tiny-1"] and len(found.problems) == 1 and "tiny-2" in found.problems[0]
    assert site.render(runs, "here", swept, "sweep--tiny-2.html") is None and site.render(runs, "here", swept, "sweep--tiny-1.html")


def test_the_comparison_names_the_cases_that_differ(runs: BucketSpec) -> None:
    document = site.render(runs, "here", None, f"compare--dora-{0:016x}--dora-{1:016x}.html")
    assert document and "McNemar" not in document.split("<main>")[0]
    rows = document.split('id="case-by-case"')[1]
    assert "tax-004" in rows and "tax-001" not in rows and "against" in rows


@pytest.mark.parametrize(
    "name", ["../etc/passwd", "run--nobody.html", "data--..%2f..", "compare--dora-1.html", "x" * 5000, "run--", "--", "live.html", "jobs--1"]
)
def test_only_pages_that_exist_are_drawn(runs: BucketSpec, name: str) -> None:
    document = site.render(runs, "here", None, name)
    assert document is None or (name == "live.html" and "nothing is running" in document)


def test_the_server_is_read_only_and_for_this_machine(runs: BucketSpec) -> None:
    config = uvicorn.Config(server.application(runs, "here"), port=0, log_level="error")  # type: ignore[arg-type]
    running = uvicorn.Server(config)
    thread = threading.Thread(target=running.run, daemon=True)
    thread.start()
    while not running.started:
        time.sleep(0.02)
    url = f"http://127.0.0.1:{running.servers[0].sockets[0].getsockname()[1]}"
    try:
        found = httpx.get(url)
        assert found.status_code == 200 and "good-adapter" in found.text and found.headers["x-content-type-options"] == "nosniff"
        assert httpx.get(url, headers={"Host": "evil.example"}).status_code == 400
        assert httpx.get(f"{url}/nothing.html").status_code == 404 and httpx.get(f"{url}/%2e%2e/x").status_code == 404
        assert {httpx.request(method, url).status_code for method in ("POST", "PUT", "DELETE", "PATCH")} == {405}
    finally:
        running.should_exit = True
        thread.join(20)


def test_one_damaged_object_hides_nothing_else(runs: BucketSpec) -> None:
    storage.write(f"{layout.registry(runs)}broken.json", "[1, 2", generation=0)
    storage.write(f"{layout.run(runs, 'odd')}/evaluation/results.json", '{"verdict": 3}', generation=0)
    found = load(runs, "here")
    assert len(found.runs) == 3 and len(found.problems) == 2
    document = site.render(runs, "here", None, "index.html")
    assert document and "What could not be read" in document


def test_a_run_that_goes_on_is_followed(runs: BucketSpec, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The log is written by what writes it in a training: its progress, its fields, its held-out losses."""
    (tmp_path / "work").mkdir(exist_ok=True)
    monkeypatch.setenv("ELSON_LOG_FILE", str(tmp_path / "work" / "tiny.jsonl"))
    monkeypatch.setattr(log.Progress, "every_s", 0.0)
    state = checkpoint.State("run", 0, 0, 3.0, 0, [], [{"step": 0, "loss": 3.0}])
    log.event("stage 3 of 7: train")
    with log.progress("train", 30, "steps") as progress:
        for n in range(1, 11):
            row = {"loss": 3 - n / 30, "learning_rate": 1e-4, "tokens": 1600, "seconds": 4.0}
            progress.advance(1, **train.step_fields(row, 1.5 + n / 10))
        train.judge(replace(state, step=10), 2.75)
    with (tmp_path / "work" / "tiny.jsonl").open("a") as file:
        file.write('{"torn": ' + HOSTILE)
    (tmp_path / "bucket.holder").write_text(json.dumps({"pid": os.getpid(), "command": "elson run", "since": "2020-01-01T00:00:00+00:00"}))
    document = site.render(runs, "here", tmp_path, "live.html")
    assert document and 'http-equiv="refresh"' in document
    tiles = document.split("</section>")[0]
    for text in ("3 of 7: train", "10 of 30 steps", " left", "400", "2.5 GiB", f"elson run (pid {os.getpid()})"):
        assert text in tiles, text
    assert "Loss on the answers" in document and "<td>validation</td>" in document
    assert "refresh" not in (site.render(runs, "here", tmp_path, "index.html") or "").split("<main>")[0]


def test_machines_show_minutes_and_what_would_stop_them() -> None:
    """The states are those that a VM writes."""
    at = datetime(2026, 11, 26, 12, 0, tzinfo=UTC)
    last = decide.Boot("b", "machine-b", "z", "2026-11-26T11:30:00+00:00", lived_s=1740.0)
    first = decide.Boot("a", "machine-a", "z", "2026-11-26T11:00:00+00:00", lived_s=1500.0)
    state = decide.Job("dora-1", "train", status="starting", stage="train", boots=(first, last), earlier_s=1500.0, updated_at="2026-11-26T11:59:00+00:00")
    job = state.to_json() | {"minutes_left": 96.5, "max_attempts": 3}
    job = json.loads(json.dumps(job))
    assert now.billed_minutes(job, at) == 25 + 30
    assert "after 96 more minutes" in dict(now.next_stops(job))["the machine itself"] and len(now.next_stops(job)) == 4
    done = job | {"status": "done", "reason": "published"}
    assert now.billed_minutes(done, at) == 25 + 29 and now.next_stops(done) == [("the machine itself", "has ended: published")]
    assert now.billed_minutes(job | {"status": "preempted"}, at) == 25 + 29
    server = job | {"role": "serve", "stage": "", "status": "ready", "minutes_left": None}
    assert "idle_minutes" in now.next_stops(server)[0][1]
    assert "55" in now.jobs(Bucket("here", (), (job,)), at)
    odd = {"job_id": 3, "boots": [{"started_at": "yesterday"}], "status": None}
    assert now.billed_minutes(odd, at) == 0 and "cannot be read" in now.next_stops(odd)[0][1]
    assert now.jobs(Bucket("here", (), (odd,)), at)


def test_tables_for_other_tools(runs: BucketSpec, tmp_path: Path) -> None:
    files = exports.as_csv(load(runs, "here"), tmp_path / "csv")
    read = {file.stem: list(csv.DictReader(file.open())) for file in files}
    assert len(read["runs"]) == 3 and len(read["steps"]) == 60 and len(read["cases"]) == (2 * 3 + 1) * 12, "the base model's answers are every run's"
    assert read["runs"][0]["spec.train.rank"] and {row["model"] for row in read["cases"]} == {"base", "tuned", "quantized"}


def test_event_files_hold_every_step(runs: BucketSpec, tmp_path: Path) -> None:
    bucket = load(runs, "here")
    folders = exports.as_tensorboard(bucket, tmp_path / "events")
    assert [folder.name for folder in folders] == [run.id for run in bucket.runs]
    for run, folder in zip(bucket.runs, folders, strict=True):
        (file,) = folder.glob("events.out.tfevents.*")
        read = _scalars(file.read_bytes())
        losses = {row["step"]: row["loss"] for row in run.training["history"]}
        assert {step: pytest.approx(value) for tag, step, value in read if tag == "train/loss"} == losses
        assert {tag for tag, _, _ in read} >= {"train/loss", "train/learning_rate", "validation/loss"}


def _scalars(content: bytes) -> list[tuple[str, int, float]]:
    """(tag, step, value) of a file of TFRecords: length, its checksum, an event, its checksum."""
    found, at = [], 0
    while at < len(content):
        length, checksum = struct.unpack_from("<QI", content, at)
        assert checksum == _masked(content[at : at + 8])
        data = content[at + 12 : at + 12 + length]
        assert struct.unpack_from("<I", content, at + 12 + length) == (_masked(data),)
        event = event_pb2.Event.FromString(data)
        found += [(value.tag, event.step, value.simple_value) for value in event.summary.value]
        at += 16 + length
    return found


def _masked(data: bytes) -> int:
    value = google_crc32c.value(data)
    return ((value >> 15 | value << 17) + 0xA282EAD8) & 0xFFFFFFFF


def test_a_missing_client_is_one_sentence(runs: BucketSpec) -> None:
    with pytest.raises(UserError, match="wandb is not installed"):
        exports.to_tracker(load(runs, "here"), "wandb", "p")


@contextmanager
def viewed(home: Path) -> Iterator[str]:
    """`elson view` of a folder, as a person starts it; yields its address."""
    command = [sys.executable, "-m", "runners", "view", "--local", "--home", str(home), "--port", "0"]
    with subprocess.Popen(command, stderr=subprocess.PIPE, text=True, cwd=Path(__file__).resolve().parents[2]) as process:
        assert process.stderr
        try:
            yield json.loads(process.stderr.readline())["message"].split()[0]
        finally:
            process.terminate()


def test_a_view_hinders_no_run_and_outlives_it(tmp_path: Path) -> None:
    """Opened before a run or during one, it shows what the run publishes, goes on after it, and is not itself what is under way."""
    pair = BucketSpec(models="gs://models", scratch="gs://scratch")
    (tmp_path / "work").mkdir()
    (tmp_path / "work" / "tiny.jsonl").write_text('{"time": "2026-01-01T00:00:00", "message": "stage 1 of 9: base"}\n')
    with viewed(tmp_path) as before, ExitStack() as later:
        assert "nothing is running" in httpx.get(f"{before}live.html", timeout=30).text
        with local_bucket.running(tmp_path, pair):
            during = later.enter_context(viewed(tmp_path))
            _publish(pair, tmp_path / "made", "made-here", "train", "dora-1", "dora", {"base_model": "base-1"})
            pages = [httpx.get(f"{address}live.html", timeout=30).text for address in (before, during)]
            assert all("Under way" in page and "stage 1 of 9" not in page for page in pages), "the log is an earlier run's"
        for address in (before, during):
            found = httpx.get(address, timeout=30)
            assert found.status_code == 200 and "made-here" in found.text


def test_a_killed_run_is_not_under_way(tmp_path: Path) -> None:
    with subprocess.Popen([sys.executable, "-c", ""]) as ended:
        pass
    (tmp_path / local_bucket.HOLDER).write_text(json.dumps({"pid": ended.pid, "command": "elson run", "since": "2026-11-26T10:00:00+00:00"}))
    assert local_bucket.holder(tmp_path) is None
