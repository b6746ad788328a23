"""A folder that is used while it arrives: what may be read is verified, and what was not published never may be."""

from __future__ import annotations

import json
import signal
import struct
import subprocess
import sys
from pathlib import Path

import pytest

from runners.artifacts import arrival, local_bucket, storage, wire
from runners.artifacts.record import MANIFEST, describe
from runners.errors import UserError
from runners.spec import BucketSpec

URI = "gs://models/m"
HEADER = json.dumps({"w": {"dtype": "U8", "shape": [3_000_000], "data_offsets": [0, 3_000_000]}}).encode()
SHARD = struct.pack("<Q", len(HEADER)) + HEADER + bytes(range(250)) * 12_000


@pytest.fixture
def bucket(tmp_path: Path):
    """A published model: a config and two shards."""
    source = tmp_path / "source"
    source.mkdir()
    (source / "config.json").write_text('{"a": 1}')
    for number in (1, 2):
        (source / f"model-{number}.safetensors").write_bytes(SHARD + bytes([number]))
    with local_bucket.running(tmp_path / "home", BucketSpec(models="gs://models", scratch="gs://scratch")):
        storage.upload(source, URI)
        yield source


def begin(tmp_path: Path) -> arrival.Arrival:
    return arrival.begin(URI, tmp_path / "here", lambda _: None)


def test_small_files_and_headers_come_first_and_no_shard_may_be_read(bucket: Path, tmp_path: Path) -> None:
    found = begin(tmp_path)
    assert (found.folder / "config.json").read_text() == '{"a": 1}'
    for path in found.shards:
        there = (found.folder / path).read_bytes()
        assert len(there) == len(SHARD) + 1 and there[: 8 + len(HEADER)] == SHARD[: 8 + len(HEADER)] and there != (bucket / path).read_bytes()
        assert not arrival.is_here(found.folder, path)
    assert not (found.folder / MANIFEST).exists()


def test_a_shard_is_marked_when_its_bytes_are_the_published_ones_and_the_manifest_comes_last(bucket: Path, tmp_path: Path, monkeypatch) -> None:
    found, seen = begin(tmp_path), []
    verify = arrival.Arrival._verify

    def watched(self: arrival.Arrival, path: str) -> None:
        assert not arrival.is_here(self.folder, path) and not (self.folder / MANIFEST).exists()
        verify(self, path)
        seen.append((path, (self.folder / path).read_bytes() == (bucket / path).read_bytes(), arrival.is_here(self.folder, path)))

    monkeypatch.setattr(arrival.Arrival, "_verify", watched)
    found.start().join(60)
    assert found.problem is None and sorted(seen) == [(path, True, True) for path in found.shards]
    assert storage.complete_here(found.folder, found.manifest) and not (found.folder / arrival.ARRIVING).exists()
    again = begin(tmp_path)
    again.start().join(60)
    assert again.shards == [] and again.problem is None, "the next start finds everything"
    assert storage.download(URI, found.folder) == found.manifest


def test_a_byte_that_is_flipped_on_the_way_is_refused_and_never_marked(bucket: Path, tmp_path: Path, monkeypatch) -> None:
    found, receive = begin(tmp_path), wire.receive

    def flipped(uri: str, path: str, start: int, end: int, generation: int = 0) -> int:
        got = receive(uri, path, start, end, generation)
        if path.endswith("model-2.safetensors"):
            with Path(path).open("r+b") as file:
                file.seek(1_000_000)
                byte = file.read(1)[0]
                file.seek(1_000_000)
                file.write(bytes([byte ^ 1]))
        return got

    monkeypatch.setattr(wire, "receive", flipped)
    found.start().join(60)
    assert isinstance(found.problem, UserError) and "model-2.safetensors arrived damaged" in found.problem.found
    assert arrival.is_here(found.folder, "model-1.safetensors") and not arrival.is_here(found.folder, "model-2.safetensors")
    assert not (found.folder / MANIFEST).exists()
    monkeypatch.setattr(wire, "receive", receive)
    again = begin(tmp_path)
    assert again.shards == ["model-2.safetensors"], "what was right is kept"
    again.rest()
    assert (again.folder / "model-2.safetensors").read_bytes() == (bucket / "model-2.safetensors").read_bytes()


def test_an_object_that_somebody_replaced_is_refused_before_anything_starts(bucket: Path, tmp_path: Path) -> None:
    generation = next(item.generation for item in storage.listing(URI) if item.path == "model-1.safetensors")
    storage.write(f"{URI}/model-1.safetensors", SHARD + b"x", generation=generation)
    with pytest.raises(UserError, match="is another object") as error:
        begin(tmp_path)
    assert "restore its older version" in error.value.fix and not (tmp_path / "here").exists()


def test_an_object_that_is_replaced_while_it_arrives_is_refused(bucket: Path, tmp_path: Path) -> None:
    found = begin(tmp_path)
    generation = next(item.generation for item in storage.listing(URI) if item.path == "model-1.safetensors")
    storage.write(f"{URI}/model-1.safetensors", SHARD[:-1] + b"xy", generation=generation)
    found.start().join(60)
    assert isinstance(found.problem, Exception) and not arrival.is_here(found.folder, "model-1.safetensors")


def test_a_shard_whose_crc32c_was_kept_is_refused(bucket: Path, tmp_path: Path) -> None:
    """Whoever may write the bucket can keep a CRC32C: added anywhere, its own polynomial changes nothing."""
    content, at = (bucket / "model-1.safetensors").read_bytes(), 1_000_000
    pattern = (1 | 0x82F63B78 << 1).to_bytes(5, "little")
    evil = content[:at] + bytes(byte ^ more for byte, more in zip(content[at : at + 5], pattern, strict=True)) + content[at + 5 :]
    generation = next(item.generation for item in storage.listing(URI) if item.path == "model-1.safetensors")
    storage.write(f"{URI}/model-1.safetensors", evil, generation=generation)
    found = begin(tmp_path)
    found.start().join(60)
    assert isinstance(found.problem, UserError) and "SHA-256" in found.problem.expected
    assert not arrival.is_here(found.folder, "model-1.safetensors") and not (found.folder / MANIFEST).exists()
    (found.folder / "model-1.safetensors").write_bytes(evil)
    assert begin(tmp_path).shards == ["model-1.safetensors"], "nor is it taken from a start that was cut off"


#: Ends itself before the n-th step of an arrival, as a machine that is taken away.
KILLED = """
import itertools, os, signal, sys
from pathlib import Path
from runners import outside
from runners.artifacts import arrival, wire

steps, last = itertools.count(), int(sys.argv[3])
def counted(function):
    def call(*values, **named):
        if next(steps) >= last:
            os.kill(os.getpid(), signal.SIGKILL)
        return function(*values, **named)
    return call
names = {wire: ("receive",), arrival: ("describe", "crc32c_of", "mark"), outside: ("sync", "write_durably"), arrival.shutil: ("rmtree",)}
for module, name in ((module, name) for module in names for name in names[module]):
    setattr(module, name, counted(getattr(module, name)))
arrival.begin(sys.argv[1], Path(sys.argv[2]), lambda _: None).rest()
print(next(steps))
"""


@pytest.mark.parametrize("was_damaged", [False, True])
def test_a_start_that_is_killed_at_any_step_goes_on(bucket: Path, tmp_path: Path, was_damaged: bool) -> None:
    def start(folder: Path, last: int) -> subprocess.CompletedProcess[str]:
        if was_damaged:
            storage.download(URI, folder)
            (folder / "model-2.safetensors").write_bytes(SHARD + b"x")
        return subprocess.run([sys.executable, "-c", KILLED, URI, str(folder), str(last)], capture_output=True, text=True, timeout=120, check=False)

    steps = int(start(tmp_path / "whole", 1000).stdout)
    assert steps > 12
    for last in (2, 7, *range(9, steps)):
        folder = tmp_path / f"killed-{last}"
        assert start(folder, last).returncode == -signal.SIGKILL, last
        for path in ("model-1.safetensors", "model-2.safetensors"):
            assert not arrival.is_here(folder, path) or (folder / path).read_bytes() == (bucket / path).read_bytes(), (last, path)
        again = arrival.begin(URI, folder, lambda _: None)
        again.rest()
        assert storage.complete_here(folder, again.manifest) and not (folder / arrival.ARRIVING).exists(), last


def test_a_complete_folder_starts_at_once_and_each_shard_is_read_when_it_was_checked(bucket: Path, tmp_path: Path, monkeypatch) -> None:
    begin(tmp_path).rest()
    read, received, check, receive = [], [], arrival.crc32c_of, wire.receive
    monkeypatch.setattr(arrival, "crc32c_of", lambda path: read.append(path.name) or check(path))
    monkeypatch.setattr(arrival, "describe", lambda path: read.append(path.name) or describe(path))
    monkeypatch.setattr(
        wire, "receive", lambda uri, path, start, end, generation=0: received.append((start, end)) or receive(uri, path, start, end, generation)
    )
    found = begin(tmp_path)
    assert read == ["config.json"] and found.here == ["model-1.safetensors", "model-2.safetensors"] and not found.shards
    assert not any(arrival.is_here(found.folder, path) for path in found.here), "whatever the disk says, it was not checked yet"
    found.rest()
    assert sorted(read) == ["config.json", *found.here] and all(end <= 8 + len(HEADER) for _, end in received), "of the bucket, headers alone"
    assert storage.complete_here(found.folder, found.manifest) and not (found.folder / arrival.ARRIVING).exists()


@pytest.mark.parametrize("at", [3, 20, 1_000_000])
def test_a_shard_that_the_disk_damaged_is_brought_again_alone(bucket: Path, tmp_path: Path, monkeypatch, at: int) -> None:
    begin(tmp_path).rest()
    damaged = tmp_path / "here" / "model-2.safetensors"
    content = bytearray(damaged.read_bytes())
    content[at] ^= 1
    damaged.write_bytes(bytes(content))
    received, receive = [], wire.receive
    monkeypatch.setattr(
        wire, "receive", lambda uri, path, start, end, generation=0: received.append((Path(path).name, end)) or receive(uri, path, start, end, generation)
    )
    found = begin(tmp_path)
    assert damaged.read_bytes()[: 8 + len(HEADER)] == SHARD[: 8 + len(HEADER)], "what vLLM reads before anything was checked"
    found.rest()
    assert damaged.read_bytes() == (bucket / damaged.name).read_bytes() and (found.folder / MANIFEST).exists()
    assert {name for name, end in received if end > 8 + len(HEADER)} == ({damaged.name} if at > 8 + len(HEADER) else set())


@pytest.mark.parametrize("is_complete", [False, True])
def test_a_shard_that_nobody_published_is_removed_before_anything_starts(bucket: Path, tmp_path: Path, is_complete: bool) -> None:
    """vLLM would load it with the others."""
    if is_complete:
        begin(tmp_path).rest()
    (tmp_path / "here" / "more").mkdir(parents=True)
    for name in ("model-3.safetensors", "more/model.safetensors"):
        (tmp_path / "here" / name).write_bytes(SHARD)
    found = begin(tmp_path)
    found.rest()
    assert {path.name for path in found.folder.rglob("*") if path.is_file()} == {*found.manifest.files, MANIFEST}


@pytest.mark.parametrize("length", [0, 1 << 40])
def test_a_shard_that_is_no_safetensors_file_is_refused(bucket: Path, tmp_path: Path, length: int) -> None:
    folder = tmp_path / "other"
    folder.mkdir()
    (folder / "model.safetensors").write_bytes(struct.pack("<Q", length) + b"{}")
    storage.upload(folder, "gs://models/other")
    with pytest.raises(UserError, match="has a header of"):
        arrival.begin("gs://models/other", tmp_path / "there", lambda _: None)
