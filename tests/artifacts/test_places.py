"""Whose bucket a command uses: option, environment, stack, project; no default for everybody; no stranger's bucket. Readers share a run's bucket."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from urllib.parse import parse_qs, urlparse

import pytest

from runners.artifacts import local_bucket
from runners.commands import places
from runners.errors import UserError
from runners.planning import stacks
from runners.spec import BucketSpec

MINE = BucketSpec(models="gs://mine-elson-models", scratch="gs://mine-elson-scratch")
ROOT = Path(__file__).resolve().parents[2]


@pytest.fixture(autouse=True)
def no_project(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("GOOGLE_CLOUD_PROJECT", "ELSON_MODELS_BUCKET", "ELSON_SCRATCH_BUCKET"):
        monkeypatch.delenv(name, raising=False)


def test_without_a_project_there_is_no_bucket() -> None:
    with pytest.raises(UserError, match="no bucket is named"):
        places.resolve(None, None, None)
    with pytest.raises(UserError, match="no bucket is named"):
        stacks.look_up(stacks.load("train-h100").spec)


def test_the_project_names_the_buckets_of_the_stacks(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("GOOGLE_CLOUD_PROJECT", "mine")
    assert places.resolve(None, None, None) == (MINE, "mine") == places.resolve(None, None, "serve-l4")
    assert stacks.load("train-h100").spec.buckets == MINE


def test_an_option_outranks_the_stack_one_bucket_at_a_time(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("GOOGLE_CLOUD_PROJECT", "mine")
    assert places.resolve("gs://other", None, None)[0] == BucketSpec(models="gs://other", scratch=MINE.scratch)
    assert places.resolve("gs://other", "gs://more", None)[0] == BucketSpec(models="gs://other", scratch="gs://more")


def test_stacks_that_disagree_need_a_name(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("one", "two"):
        (tmp_path / f"Pulumi.{name}.yaml").write_text(f"config: {{gcp:project: {name}, elson:spec: {{foundation: {{}}}}}}\n")
    monkeypatch.setattr(stacks.names, "__defaults__", (tmp_path,))
    monkeypatch.setattr(stacks.load, "__defaults__", (tmp_path,))
    with pytest.raises(UserError, match="--stack, one of one, two"):
        places.resolve(None, None, None)
    assert places.resolve(None, None, "two")[0].models == "gs://two-elson-models"


class CloudStorage(BaseHTTPRequestHandler):
    """Lists buckets as Cloud Storage does: those of one project, to callers who may; every object of every bucket can be written by anybody."""

    def do_GET(self) -> None:
        address = urlparse(self.path)
        asked = parse_qs(address.query)
        if address.path != "/storage/v1/b":
            return self.answer(404, {"error": {"code": 404, "message": "not found"}})
        (project,) = asked["project"]
        if project == "closed":
            return self.answer(403, {"error": {"code": 403, "message": "no storage.buckets.list"}})
        owned = {"mine": ["mine-elson-models", "mine-elson-scratch", "mine-other"], "stranger": ["elson-models", "theirs-elson-models"]}
        names = [name for name in owned.get(project, []) if name.startswith(asked.get("prefix", [""])[0])]
        return self.answer(200, {"kind": "storage#buckets", "items": [{"name": name} for name in names]})

    def answer(self, status: int, value: object) -> None:
        body = json.dumps(value).encode()
        self.send_response(status)
        self.send_header("Content-Type", "application/json")
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, *_: object) -> None: ...


@pytest.fixture
def cloud() -> Iterator[str]:
    server = ThreadingHTTPServer(("127.0.0.1", 0), CloudStorage)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    url = f"http://127.0.0.1:{server.server_address[1]}"
    with local_bucket._addressed(url):
        yield url
    server.shutdown()


def test_my_own_buckets_are_used(cloud: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("GOOGLE_CLOUD_PROJECT", "mine")
    with places.Place(None).open() as found:
        assert found == MINE


@pytest.mark.parametrize("models, project", [("gs://elson-models", "mine"), (None, "theirs"), ("gs://mine-elson", "mine")])
def test_a_bucket_of_another_project_is_refused(models: str | None, project: str, cloud: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("GOOGLE_CLOUD_PROJECT", project)
    with pytest.raises(UserError, match="belongs to somebody else"), places.Place(None, models, "gs://mine-elson-scratch" if models else None).open():
        pytest.fail("it was opened")


def test_a_project_that_hides_its_buckets_is_refused(cloud: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("GOOGLE_CLOUD_PROJECT", "closed")
    with pytest.raises(UserError, match="may not be listed"), places.Place(None).open():
        pytest.fail("it was opened")


@pytest.mark.parametrize(
    "command",
    [
        ["data", "build", "--publish", "--out", "DIR"],
        ["models", "ls"],
        ["models", "promote", "x"],
        ["status"],
        ["retry", "x"],
        ["base", "publish", "x", "--from", "BASE"],
        ["evaluate", "--api-url", "http://127.0.0.1:9"],
    ],
)
def test_no_command_has_a_bucket_of_its_own(command: list[str], tmp_path: Path) -> None:
    for name in ("config.json", "tokenizer.json", "tokenizer_config.json", "model.safetensors"):
        (tmp_path / name).write_text("{}")
    clean = {name: value for name, value in os.environ.items() if not name.startswith(("GOOGLE_", "STORAGE_", "ELSON_"))}
    named = [str(tmp_path / "data") if word == "DIR" else str(tmp_path) if word == "BASE" else word for word in command]
    done = subprocess.run([sys.executable, "-m", "runners", *named], cwd=ROOT, env=clean, capture_output=True, text=True)
    assert done.returncode in (1, 2) and "no bucket is named" in done.stderr and "Traceback" not in done.stderr, done.stderr


def test_a_reader_shares_the_bucket_of_a_run_and_a_writer_does_not(tmp_path: Path) -> None:
    clean = {name: value for name, value in os.environ.items() if not name.startswith(("GOOGLE_", "STORAGE_", "ELSON_"))}

    def elson(*arguments: str) -> subprocess.CompletedProcess[str]:
        return subprocess.run(
            [sys.executable, "-m", "runners", *arguments, "--local", "--home", str(tmp_path)], cwd=ROOT, env=clean, capture_output=True, text=True
        )

    with local_bucket.running(tmp_path, places.LOCAL):
        assert elson("models", "ls").returncode == 0 == elson("status").returncode
        refused = elson("models", "promote", "x")
        assert refused.returncode == 1 and "another elson command is using" in refused.stderr
    assert elson("models", "ls").returncode == 0
