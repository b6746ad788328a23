"""Storage as it is: preconditions everywhere, answers that are lost, late, cut or doubled, and several writers at once."""

from __future__ import annotations

import os
import threading
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest

from runners.artifacts import fetch, layout, registry, storage, wire
from runners.errors import Temporary, UserError
from runners.spec import BucketSpec
from tests.storage_proxy import KINDS, faults


def begin(**plan: Any) -> dict[str, int]:
    return faults(os.environ["STORAGE_EMULATOR_HOST"], **plan)


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    made = tmp_path / "folder"
    made.mkdir()
    for name, size in (("empty", 0), ("small", 10), ("middle", 40_000), ("large", 300_000)):
        (made / name).write_bytes(os.urandom(size))
    return made


def test_the_stand_in_holds_the_preconditions_that_the_emulator_ignores(buckets: BucketSpec, folder: Path) -> None:
    """The test of the test: each of these went through unseen before."""
    storage.write(f"{buckets.scratch}/there", b"first", generation=0)
    with pytest.raises(storage.Conflict):
        wire.send(folder / "small", f"{buckets.scratch}/there", 0)
    blob = storage.client().bucket("scratch").blob("there")
    storage.write(f"{buckets.scratch}/other", b"second", generation=0)
    with pytest.raises(storage.Conflict), storage.explained("gs://scratch/there"):
        blob.rewrite(storage.client().bucket("scratch").blob("other"), if_generation_match=0, retry=None)
    with pytest.raises(storage.Conflict), storage.explained("gs://scratch/there"):
        blob.delete(if_generation_match=1, retry=None)
    place = storage.client().bucket("scratch").blob("session").create_resumable_upload_session(size=10, if_generation_match=0, retry=None)
    assert wire.session().put(place, data=(folder / "small").read_bytes()).status_code == 200, "the last call of a session gets its answer"
    place = storage.client().bucket("scratch").blob("late").create_resumable_upload_session(size=10, if_generation_match=0, retry=None)
    storage.write(f"{buckets.scratch}/late", b"meanwhile", generation=0)
    assert wire.session().put(place, data=(folder / "small").read_bytes()).status_code == 412, "a session is held to its condition at its end, too"


def test_a_list_that_trickles_is_asked_for_again(buckets: BucketSpec, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(wire, "SLOW_S", 0.5)
    for number in range(20):
        storage.write(f"{buckets.scratch}/many/{number}", b"x", generation=0)
    begin(rate=1, kinds=["trickle"], count=2)
    start = time.monotonic()
    assert len(storage.listing(f"{buckets.scratch}/many")) == 20
    assert time.monotonic() - start < 30, "at 10 bytes a second the list takes 20 minutes"
    assert begin()["trickle"] == 2


@pytest.mark.parametrize("kind", KINDS)
def test_every_fault_is_survived(kind: str, buckets: BucketSpec, folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(wire, "SLOW_S", 0.5)
    begin(rate=0.4, seed=7, kinds=[kind], count=6)
    for number in range(2):
        storage.update_json(f"{buckets.scratch}/counter.json", lambda value: (value or 0) + 1)
        assert (storage.read_json(f"{buckets.scratch}/counter.json") or (0, 0))[0] == number + 1
    entry = registry.publish(buckets, folder, name="m-v1", stage_id="dora-1", kind="dora")
    fetch.download(buckets, entry, tmp_path / "copy")
    done = begin()
    assert done.get(kind), "the fault happened"
    assert all((tmp_path / "copy" / file.name).read_bytes() == file.read_bytes() for file in folder.iterdir() if file.name != "manifest.json")
    assert storage.listing(f"{buckets.scratch}/staging") == []


def test_a_lost_answer_to_a_put_is_no_conflict(buckets: BucketSpec, folder: Path) -> None:
    for only in ("PUT /upload", "POST /upload"):
        begin(rate=1, kinds=["lost"], only=only, count=2)
        storage.upload(folder, f"{buckets.scratch}/{only[:4].strip()}")
        assert begin() == {"lost": 2}, only


def test_a_small_answer_that_arrives_short_is_asked_for_again(buckets: BucketSpec) -> None:
    uri = f"{buckets.scratch}/object.json"
    storage.write_json(uri, {"a": "b" * 100}, generation=0)
    begin(rate=1, kinds=["short"], only="/download/", count=2)
    assert storage.read_json(uri) is not None and begin()["short"] == 2
    begin(rate=1, kinds=["short"], only="/download/")
    with pytest.raises(UserError, match="corrupt"):
        storage.read(uri)


@pytest.mark.parametrize("kind", ["503", "lost", "truncated"])
def test_trouble_that_stays_is_temporary(kind: str, buckets: BucketSpec, folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    storage.upload(folder, f"{buckets.scratch}/f")
    monkeypatch.setattr(wire, "RETRY_S", 0.5)
    begin(rate=1, kinds=[kind])
    for call in (
        lambda: storage.read(f"{buckets.scratch}/f/small"),
        lambda: storage.write(f"{buckets.scratch}/new", b"1", generation=0),
        lambda: storage.listing(f"{buckets.scratch}/f"),
        lambda: storage.upload(folder, f"{buckets.scratch}/g"),
        lambda: storage.download(f"{buckets.scratch}/f", tmp_path / "copy"),
    ):
        with pytest.raises(Temporary) as error:
            call()
        assert error.value.exit_code == 75
    assert not (tmp_path / "copy").exists()


def test_eight_writers_of_one_object_all_get_through(buckets: BucketSpec) -> None:
    uri = f"{buckets.scratch}/counter.json"
    with ThreadPoolExecutor(8) as pool:
        for _ in pool.map(lambda _: [storage.update_json(uri, lambda value: (value or 0) + 1) for _ in range(5)], range(8)):
            pass
    assert (storage.read_json(uri) or (0, 0))[0] == 40


@pytest.mark.parametrize("same", [True, False])
def test_two_machines_publish_at_once(same: bool, buckets: BucketSpec, tmp_path: Path) -> None:
    """Both succeed, one model stands, and it is one of the two."""
    for number in range(6):
        check_race(buckets, tmp_path / str(number), f"model-v{number}", same=same)


def check_race(buckets: BucketSpec, folder: Path, name: str, *, same: bool) -> None:
    gate = threading.Barrier(2)
    contents = [os.urandom(5000)] * 2 if same else [os.urandom(5000), os.urandom(5000)]

    def machine(number: int) -> registry.Entry:
        mine = folder / f"machine-{number}"
        mine.mkdir(parents=True)
        (mine / "weights").write_bytes(contents[number])
        (mine / "config.json").write_text("{}")
        gate.wait()
        return registry.publish(buckets, mine, name=name, stage_id="dora-1", kind="dora")

    with ThreadPoolExecutor(2) as pool:
        entries = [job.result() for job in [pool.submit(machine, number) for number in range(2)]]
    standing = registry.usable(buckets, name)
    assert {(entry.id, entry.manifest) for entry in entries} == {("dora-1", standing.manifest)}
    fetch.download(buckets, standing, folder / "copy")
    assert (folder / "copy" / "weights").read_bytes() in contents
    assert {item.path for item in storage.listing(layout.model(buckets, name))} == {"weights", "config.json", "manifest.json"}


@pytest.mark.parametrize("content", ["", "{", '{"version": 1}', "\x00" * 100])
def test_a_record_cut_off_by_a_loss_of_power_counts_as_not_made(content: str, tmp_path: Path, buckets: BucketSpec, folder: Path) -> None:
    from runners import stages

    (folder / "record.json").write_text(content)
    assert not stages._is_made(folder, "merged-1")
    storage.upload(folder, f"{buckets.scratch}/f")
    storage.download(f"{buckets.scratch}/f", tmp_path / "copy")
    (tmp_path / "copy" / "manifest.json").write_text(content)
    assert storage.download(f"{buckets.scratch}/f", tmp_path / "copy")
