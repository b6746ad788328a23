"""What goes wrong from outside: one clear error, a non-zero exit, and nothing lost."""

from __future__ import annotations

import json
import os
import shutil
import signal
import socket
import subprocess
import sys
from pathlib import Path

import pytest
import yaml

from tests.job.conftest import ROOT, Ended, job, left_behind, profile


@pytest.fixture
def home(prepared: Path, tmp_path: Path) -> Path:
    """A finished run's bucket, to damage."""
    shutil.copytree(prepared / "bucket", tmp_path / "home" / "bucket")
    return tmp_path / "home"


def one_error(ended: Ended, *words: str) -> None:
    """It ended with an error that a person can act on, and no traceback."""
    assert ended.code not in (0, -9), ended.stderr[-2000:]
    assert "Traceback" not in ended.stderr, ended.stderr[-3000:]
    for word in words:
        assert word in ended.error, ended.error


def registered(home: Path, kind: str) -> tuple[Path, dict]:
    for file in (home / "bucket" / "models" / "registry").glob("*.json"):
        entry = json.loads(file.read_text())
        if entry["kind"] == kind:
            return file, entry
    raise AssertionError(kind)


def test_unknown_spec_key(tmp_path: Path) -> None:
    one_error(job(tmp_path, profile=profile(tmp_path, train={"learning_rat": 1})), "train.learning_rat")


def test_unknown_profile(tmp_path: Path) -> None:
    one_error(job(tmp_path, profile="nope"), "there is no profile nope", "local")


def test_empty_dataset(prepared: Path, tmp_path: Path) -> None:
    sources = tmp_path / "sources.yaml"
    (tmp_path / "empty.json").write_text("[]")
    sources.write_text(yaml.safe_dump({"version": 1, "sources": [{"name": "empty", "kind": "qa", "path": str(tmp_path / "empty.json"), "licence": "MIT"}]}))
    one_error(job(tmp_path / "home", "--until", "train", profile=profile(tmp_path, data={"sources": str(sources)})))


def test_example_longer_than_the_context(home: Path, tmp_path: Path) -> None:
    one_error(job(home, "--until", "train", profile=profile(tmp_path, train={"max_tokens": 230})), "tokens", "230")


def test_too_few_optimizer_steps(home: Path, tmp_path: Path) -> None:
    one_error(job(home, "--until", "train", profile=profile(tmp_path, train={"minimum_steps": 500})), "500")


def test_benchmark_that_repeats_the_training_set(home: Path, tmp_path: Path) -> None:
    question = "How is a qualified dividend taxed to a single filer in 2025?"
    bench = tmp_path / "leak.yaml"
    case = {
        "id": "leak-1",
        "category": "tax",
        "difficulty": "easy",
        "kind": "answer",
        "question": question,
        "checks": [{"fact": "x", "accepted": ["zebra"]}],
        "source": "t",
        "as_of": 2025,
    }
    bench.write_text(yaml.safe_dump({"version": 1, "cases": [case]}))
    sources = tmp_path / "sources.yaml"
    sources.write_text(yaml.safe_dump({"version": 1, "sources": [{"name": "qa", "kind": "qa", "path": str(tmp_path / "qa.json"), "licence": "MIT"}]}))
    (tmp_path / "qa.json").write_text(json.dumps([{"question": question, "answer": "A long enough answer that is in the training data.", "category": "tax"}]))
    ended = job(tmp_path / "h2", "--until", "data", profile=profile(tmp_path, data={"sources": str(sources), "benchmark": str(bench), "drop_leaks": False}))
    one_error(ended, "drop-leaks")


def test_corrupt_registry_object(home: Path) -> None:
    file, _ = registered(home, "dora")
    file.write_text("{half")
    one_error(job(home, "--until", "train"), "corrupt")


def test_flipped_byte_in_a_download(home: Path) -> None:
    _, entry = registered(home, "merged")
    weights = next((home / "bucket" / "models" / entry["name"]).glob("*.safetensors"))
    data = bytearray(weights.read_bytes())
    data[len(data) // 2] ^= 1
    weights.write_bytes(bytes(data))
    registered(home, "qdora")[0].unlink()
    shutil.rmtree(home / "bucket" / "models" / registered(home, "merged")[1]["name"].replace("merged", "qdora"), ignore_errors=True)
    one_error(job(home, "--until", "quantize"), "damaged")


def test_truncated_checkpoint_is_passed_over(home: Path, whole: tuple[Path, Ended]) -> None:
    """Training falls back to the checkpoint before, and ends with the same weights."""
    file, entry = registered(home, "dora")
    file.unlink()
    shutil.rmtree(home / "bucket" / "models" / entry["name"])
    stopped = job(home, "--until", "train", kill_when=lambda row: row.get("message") == "train" and row.get("done", 0) >= 10)
    assert stopped.code == -9
    damaged = 0
    for folder in (home / "work" / "tiny" / "checkpoints").glob("step-*"):
        for tensor in list(folder.rglob("*.safetensors")) + list(folder.rglob("*.pt")):
            tensor.write_bytes(tensor.read_bytes()[:100])
            damaged += 1
    for folder in (home / "bucket" / "scratch" / "checkpoints").rglob("*.safetensors"):
        folder.write_bytes(folder.read_bytes()[:100])
    assert damaged
    ended = job(home, "--until", "train")
    assert ended.code == 0, ended.stderr[-3000:]
    weights = home / "bucket" / "models" / entry["name"] / "adapter_model.safetensors"
    assert weights.read_bytes() == (whole[0] / "bucket" / "models" / entry["name"] / "adapter_model.safetensors").read_bytes()


def kill_the_bucket(pid: int) -> None:
    """SIGKILL to the emulator that the job started."""
    for stat in Path("/proc").glob("[0-9]*/stat"):
        try:
            text = stat.read_text()
        except OSError:
            continue
        if int(text.rpartition(")")[2].split()[1]) == pid and b"storage_proxy" in (stat.parent / "cmdline").read_bytes():
            os.kill(int(stat.parent.name), signal.SIGKILL)


def test_bucket_gone_in_the_middle(home: Path) -> None:
    file, entry = registered(home, "dora")
    file.unlink()
    shutil.rmtree(home / "bucket" / "models" / entry["name"])
    ended = job(home, "--until", "train", act_when=(lambda row: row.get("message") == "train" and row.get("done", 0) >= 2, kill_the_bucket))
    one_error(ended, "does not answer")
    assert job(home, "--until", "train").code == 0


def test_two_runs_on_one_home(home: Path) -> None:
    import fcntl

    with (home / "bucket.lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        one_error(job(home), "another elson command")


def test_stage_killed_from_outside_is_told(home: Path) -> None:
    file, entry = registered(home, "dora")
    file.unlink()
    shutil.rmtree(home / "bucket" / "models" / entry["name"])

    def kill_the_stage(pid: int) -> None:
        for stat in Path("/proc").glob("[0-9]*/stat"):
            text = stat.read_text() if stat.exists() else ""
            if text and int(text.rpartition(")")[2].split()[1]) == pid and "python" in text:
                os.kill(int(stat.parent.name), signal.SIGKILL)

    ended = job(home, "--until", "train", act_when=(lambda row: row.get("message") == "train" and row.get("done", 0) >= 2, kill_the_stage))
    one_error(ended, "train stage ended with code -9")
    assert left_behind(home) == []


@pytest.mark.skipif(os.geteuid() != 0, reason="a full disk is made with a small tmpfs, which needs root")
def test_disk_full(home: Path, tmp_path: Path) -> None:
    small = tmp_path / "small"
    small.mkdir()
    subprocess.run(["mount", "-t", "tmpfs", "-o", "size=1m", "tmpfs", str(small)], check=True)
    try:
        ended = job(small, "--until", "train")
        one_error(ended)
        assert "space" in ended.stderr or "free" in ended.stderr
    finally:
        subprocess.run(["umount", "-l", str(small)], check=True)


def test_port_taken_and_wrong_key(home: Path, tmp_path: Path) -> None:
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        spec = profile(tmp_path, serve={"port": taken.getsockname()[1]})
        command = [sys.executable, "-m", "runners", "serve", "--spec", spec, "--work", str(tmp_path / "w")]
        ended = subprocess.run(command, cwd=ROOT, env={**os.environ, "VLLM_API_KEY": "k" * 24}, capture_output=True, text=True)
        assert ended.returncode == 1
        assert "is taken" in ended.stderr
        assert "Traceback" not in ended.stderr
        ended = subprocess.run(command, cwd=ROOT, env={**os.environ, "VLLM_API_KEY": "k"}, capture_output=True, text=True)
        assert "API key" in ended.stderr
