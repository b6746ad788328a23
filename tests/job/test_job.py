"""The job from end to end with the real parts, run twice, and killed at every boundary."""

from __future__ import annotations

import hashlib
import json
import os
import re
import shutil
import signal
import urllib.error
import urllib.request
from pathlib import Path

import pytest

from runners import identity
from tests.job.conftest import Ended, Watch, job, left_behind, profile


def models(home: Path) -> dict[str, Path]:
    """Published model folders by kind."""
    registry = home / "bucket" / "models" / "registry"
    found = {}
    for file in registry.glob("*.json"):
        entry = json.loads(file.read_text())
        if entry["kind"] in ("dora", "merged", "qdora"):
            assert entry["status"] == "ready"
            found[entry["kind"]] = home / "bucket" / "models" / entry["name"]
    return found


def digests(home: Path, kind: str) -> dict[str, str]:
    """SHA-256 of the weights of a published model."""
    return {file.name: hashlib.sha256(file.read_bytes()).hexdigest() for file in models(home)[kind].glob("*.safetensors")}


def copied(home: Path, folder: Path) -> Path:
    """A copy of the finished run, to go on with."""
    for part in ("bucket", "work"):
        shutil.copytree(home / part, folder / "home" / part)
    return folder / "home"


def test_everything_is_published_with_record_and_manifest(whole: tuple[Path, Ended]) -> None:
    home, _ = whole
    found = models(home)
    assert set(found) == {"dora", "merged", "qdora"}
    for folder in found.values():
        record, manifest = json.loads((folder / "record.json").read_text()), json.loads((folder / "manifest.json").read_text())
        assert record["status"] == "complete"
        assert record["parents"]["base_model"].startswith("base-")
        made_with = identity.ROOT / "images" / record["code"]["lock"]
        assert record["code"]["lock_sha256"] == hashlib.sha256(made_with.read_bytes()).hexdigest() and record["code"]["commit"]
        on_disk = {path.relative_to(folder).as_posix() for path in folder.rglob("*") if path.is_file()} - {"manifest.json"}
        assert set(manifest["files"]) == on_disk


def test_adapter_loads_in_stock_peft_files(whole: tuple[Path, Ended]) -> None:
    config = json.loads((models(whole[0])["dora"] / "adapter_config.json").read_text())
    assert config["use_dora"] is True


def test_quantized_model_says_awq(whole: tuple[Path, Ended]) -> None:
    config = json.loads((models(whole[0])["qdora"] / "config.json").read_text())["quantization_config"]
    assert (config["quant_method"], config["bits"]) == ("awq", 4)


def test_summary_tells_what_happened(whole: tuple[Path, Ended]) -> None:
    summary = whole[1].summary
    assert summary["training"]["after"] < summary["training"]["before"], "the loss falls"
    assert all(gate["passed"] for gate in summary["gates"])
    assert summary["evaluation"]["line"]
    results = json.loads((Path(summary["report"]).parent / "evaluation" / "results.json").read_text())
    assert results["served_with"] == {"kv_cache_dtype": "auto", "prefix_caching": True, "speculation": "none"}, "as the answers said"


def test_report_is_self_contained(whole: tuple[Path, Ended]) -> None:
    page = Path(whole[1].summary["report"]).read_text()
    assert "<svg" in page
    assert not re.search(r'(src|href)="(https?:)?//', page)
    assert (Path(whole[1].summary["report"]).parent / "evaluation" / "report.html").exists()


def test_no_process_is_left_and_no_secret_is_logged(whole: tuple[Path, Ended]) -> None:
    home, ended = whole
    assert left_behind(home) == []
    assert not (home / "api-key").exists()
    assert "Bearer" not in ended.stderr


def test_second_run_finds_everything_done(whole: tuple[Path, Ended], tmp_path: Path) -> None:
    home, first = copied(whole[0], tmp_path), whole[1]
    second = job(home)
    assert second.code == 0, second.stderr[-3000:]
    assert set(second.summary["skipped"]) == {"base", "train", "merge", "quantize", "evaluate"}
    assert second.summary["run"] == first.summary["run"]


def test_a_head_alone_is_made_for_a_model_that_is_there_and_found_by_the_next_run(whole: tuple[Path, Ended], tmp_path: Path) -> None:
    """The random model is as unsure as dice: its head passes gates that ask for nothing."""
    head = {"epochs": 1, "draft_vocabulary": 512, "probe_examples": 2, "probe_tokens": 16, "min_tokens_a_step": 1, "min_tokens_gained": 0}
    home, wanted = copied(whole[0], tmp_path), profile(tmp_path, head=head)
    first, second = (job(home, "--until", "merge", profile=wanted) for _ in range(2))
    assert first.code == 0, first.stderr[-3000:]
    assert set(first.summary["skipped"]) == {"base", "train"} and set(second.summary["skipped"]) == {"base", "train", "merge"}
    made = {one["kind"]: one["id"] for one in first.summary["published"]}
    (stored,) = (home / "bucket" / "models" / "registry").glob("tiny-eagle3-*.json")
    parents = json.loads(stored.read_text())["parents"]
    assert {parents[kind] for kind in ("merged", "adapter", "base_model", "dataset")} == {made[kind] for kind in ("merged", "dora", "base", "dataset")}


def at(message: str, **fields: object) -> Watch:
    return lambda row: str(row.get("message", "")).startswith(message) and all(row.get(key) == value for key, value in fields.items())


def test_killed_at_each_boundary_and_inside_then_the_same_weights(whole: tuple[Path, Ended], tmp_path: Path) -> None:
    """SIGKILL to the whole process group, again and again; what stands at the end is what an undisturbed run made, to the bit."""
    moments: list[tuple[str, Watch]] = [
        ("base begins", at("stage 1 of 5: base")),
        ("base upload", at("upload tiny-random-qwen2")),
        ("train begins", at("stage 3 of 5: train")),
        ("first step", lambda row: row.get("message") == "train" and row.get("done", 0) >= 1),
        ("a checkpoint leaves", at("checkpoint ")),
        ("later step", lambda row: row.get("message") == "train" and row.get("done", 0) >= 10),
        ("adapter upload", at("upload tiny-dora")),
        ("merge begins", at("stage 4 of 5: merge")),
        ("merged upload", at("upload tiny-merged")),
        ("quantize begins", at("stage 5 of 5: quantize")),
        ("quantize works", at("quantiz", stage="quantize")),
        ("quantized upload", at("upload tiny-qdora")),
    ]
    killed = []
    for name, moment in moments:
        ended = job(tmp_path, "--until", "quantize", kill_when=moment)
        assert left_behind(tmp_path) == [], name
        if ended.code == -9:
            killed.append(name)
        else:
            assert ended.code == 0, (name, ended.stderr[-3000:])
    assert len(killed) >= 10, f"only killed at {killed}"
    ended = job(tmp_path, "--until", "quantize")
    assert ended.code == 0, ended.stderr[-3000:]
    for kind in ("dora", "merged", "qdora"):
        assert digests(tmp_path, kind) == digests(whole[0], kind), kind


@pytest.mark.timeout(1800)
def test_base_and_tuned_are_asked_the_same_cases_though_killed_twice(whole: tuple[Path, Ended], tmp_path: Path) -> None:
    """The base's answers survive a SIGKILL among them; finished evaluations are taken from the bucket; then each model is beside the others in the report."""
    home, compared = copied(whole[0], tmp_path), profile(tmp_path, evaluate={"compared_cases": 1})
    first = job(home, profile=compared, kill_when=lambda row: row.get("message") == "cases" and row.get("done", 0) >= 5)
    assert first.code == -9, first.stderr[-3000:]
    second = job(home, profile=compared, kill_when=at("stage 8 of 9: serve"))
    assert second.code == -9, second.stderr[-3000:]
    goes_on = [row for row in second.log if row.get("message") == "going on with an interrupted run"]
    assert len(goes_on) == 1 and goes_on[0]["answered"] >= 5
    third = job(home, profile=compared)
    assert third.code == 0, third.stderr[-3000:]
    assert {"train", "evaluate base", "evaluate tuned"} <= set(third.summary["skipped"])
    assert left_behind(home) == []
    found = third.summary["compared"]
    assert [(one["model"], one["against"]) for one in found] == [("tuned", "base"), ("quantized", "base"), ("quantized", "tuned")]
    assert [one["overall"]["cases"] for one in found] == [18, 18, 18]
    assert {one["verdict"] for one in found} <= {"better", "not shown", "worse"}
    page = Path(third.summary["report"]).read_text()
    for name in ("base", "tuned", "quantized"):
        assert page.count(f"<h3>{name} ") == 10, "ten cases, each model's answer to them"
    kept = (home / "bucket" / "models" / "runs").rglob("results.json")
    assert {json.loads(file.read_text())["model"]["id"].split("-")[0] for file in kept} == {"base", "merged", "qdora"}


def test_redone_from_a_stage_and_kept_serving_until_interrupted(whole: tuple[Path, Ended], tmp_path: Path) -> None:
    """``--from quantize --keep-serving``: earlier stages are kept, the server answers with its key and to nobody else, Ctrl-C ends it."""
    home, before = copied(whole[0], tmp_path), digests(whole[0], "qdora")
    seen: dict[str, object] = {}

    def try_it(pid: int) -> None:
        url = next(line for line in (home / "served").read_text().split() if line.startswith("http"))
        body = json.dumps({"model": "elson", "messages": [{"role": "user", "content": "What is an IRA?"}], "max_tokens": 4}).encode()
        for name, key in (("right", (home / "api-key").read_text()), ("wrong", "not-the-key-of-this-server"), ("none", "")):
            headers = {"Content-Type": "application/json"} | ({"Authorization": f"Bearer {key}"} if key else {})
            try:
                with urllib.request.urlopen(urllib.request.Request(f"{url}/v1/chat/completions", body, headers)) as answer:
                    seen[name] = len(json.load(answer)["choices"])
            except urllib.error.HTTPError as error:
                seen[name] = error.code
        seen["mode"] = (home / "api-key").stat().st_mode & 0o777
        os.kill(pid, signal.SIGTERM)

    def serving(row: dict) -> bool:
        if not str(row.get("message", "")).startswith("serving at"):
            return False
        (home / "served").write_text(str(row["message"]))
        return True

    ended = job(home, "--from", "quantize", "--keep-serving", act_when=(serving, try_it))
    assert ended.code == 0, ended.stderr[-3000:]
    assert seen == {"right": 1, "wrong": 401, "none": 401, "mode": 0o600}
    assert {"base", "train", "merge"} <= set(ended.summary["skipped"])
    assert "quantize" not in ended.summary["skipped"]
    assert digests(home, "qdora") == before, "quantizing again makes the same bytes"
    assert left_behind(home) == []
    assert not (home / "api-key").exists()
