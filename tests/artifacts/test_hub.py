"""Base models from a hub, served on loopback as the public one serves: redirects to a file server, ranges, LFS sums, connections that break."""

from __future__ import annotations

import hashlib
import json
import os
import subprocess
import sys
import threading
from collections import Counter
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any
from urllib.parse import unquote, urlparse

import pytest

from runners.artifacts import bucket_source, hub, local_bucket, registry, storage, streaming
from runners.commands.places import LOCAL
from runners.errors import UserError
from runners.spec import BucketSpec

COMMIT = "cf98f3b3bbb457ad9e2bb7baf9a0125b6b88caa8"
SOURCE = f"hf:Qwen/Qwen2.5-14B-Instruct@{COMMIT}"
ROOT = Path(__file__).resolve().parents[2]


def model() -> dict[str, bytes]:
    shards = {f"model-0000{number}-of-00003.safetensors": os.urandom(700_000 + number) for number in (1, 2, 3)}
    index = {"weight_map": {f"layer.{number}": name for number, name in enumerate(shards)}}
    small = {"config.json": {"model_type": "qwen2"}, "tokenizer.json": {}, "tokenizer_config.json": {}, "model.safetensors.index.json": index}
    other = {"README.md": b"# a model", "LICENSE": b"Apache", "model.gguf": b"x" * 9, "pytorch_model.bin": b"y" * 9, ".gitattributes": b"*.safetensors lfs"}
    return shards | {name: json.dumps(value).encode() for name, value in small.items()} | other


class Hub(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    disable_nagle_algorithm = True  # head and body are two writes, and the second would wait 40 ms for the acknowledgement of the first
    files: dict[str, bytes]
    served: Counter[str]
    #: path -> how many times the connection is cut half way; path -> bytes sent in place of the right ones
    cuts: Counter[str]
    corrupt: dict[str, bytes]
    gated = False

    def do_GET(self) -> None:
        address = urlparse(self.path)
        repo = "Qwen/Qwen2.5-14B-Instruct"
        if self.gated and self.headers.get("Authorization") != "Bearer right":
            return self.send(401, b"{}")
        if address.path in (f"/api/models/{repo}/revision/{COMMIT}", f"/api/models/{repo}/revision/main"):
            # Without blobs=true the real hub tells neither sizes nor sums.
            full = "blobs=true" in address.query
            return self.send(200, json.dumps({"sha": COMMIT, "tags": ["license:apache-2.0"], "siblings": [self.sibling(p, full) for p in self.files]}).encode())
        prefix = f"/{repo}/resolve/{COMMIT}/"
        if address.path.startswith(prefix) and (path := unquote(address.path.removeprefix(prefix))) in self.files:
            if not path.endswith(".safetensors"):
                return self.file(path)
            self.send_response(302)  # LFS files are at a file server
            self.send_header("Location", f"/cdn/{path}?signature=x")
            self.send_header("Content-Length", "0")
            self.end_headers()
            return None
        if address.path.startswith("/cdn/"):
            return self.file(unquote(address.path.removeprefix("/cdn/")))
        return self.send(404, b"{}")

    def sibling(self, path: str, full: bool) -> dict[str, Any]:
        data = self.files[path]
        if not full:
            return {"rfilename": path}
        if path.endswith((".safetensors", ".gguf", ".bin")):
            return {
                "rfilename": path,
                "size": len(data),
                "blobId": "0" * 40,
                "lfs": {"sha256": hashlib.sha256(data).hexdigest(), "size": len(data), "pointerSize": 134},
            }
        return {"rfilename": path, "size": len(data), "blobId": hashlib.sha1(b"blob %d\0" % len(data) + data).hexdigest()}

    def file(self, path: str) -> None:
        data = self.corrupt.get(path, self.files[path])
        start = int(self.headers["Range"].removeprefix("bytes=").rstrip("-")) if "Range" in self.headers else 0
        body = data[start:]
        self.send_response(206 if start else 200)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        if self.cuts[path] > 0:
            self.cuts[path] -= 1
            body = body[: len(body) // 2]
            self.close_connection = True
        self.served[path] += len(body)
        self.wfile.write(body)

    def send(self, status: int, body: bytes) -> None:
        self.send_response(status)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, *_: object) -> None: ...


@pytest.fixture
def served(monkeypatch: pytest.MonkeyPatch) -> Iterator[type[Hub]]:
    class Mine(Hub):
        files, served, cuts, corrupt = model(), Counter(), Counter(), {}

    server = ThreadingHTTPServer(("127.0.0.1", 0), Mine)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    monkeypatch.setenv("HF_ENDPOINT", f"http://127.0.0.1:{server.server_address[1]}")
    monkeypatch.delenv("HF_TOKEN", raising=False)
    monkeypatch.setattr(streaming, "CHUNK_BYTES", 256 << 10)
    monkeypatch.setattr(streaming, "BLOCK_BYTES", 64 << 10)
    yield Mine
    server.shutdown()


def test_a_public_model_is_published_with_its_licence_and_nothing_unneeded(served: type[Hub], buckets: BucketSpec, tmp_path: Path) -> None:
    entry = hub.publish(buckets, "qwen", SOURCE)
    assert registry.usable(buckets, "qwen").id == entry.id and (entry.kind, entry.format) == ("base", "bf16")
    storage.download(registry.folder_of(buckets, entry), tmp_path / "there")
    here = {path.name: path.read_bytes() for path in (tmp_path / "there").iterdir()}
    wanted = {name: data for name, data in served.files.items() if name not in ("README.md", "model.gguf", "pytorch_model.bin", ".gitattributes")}
    assert {name: data for name, data in here.items() if name in wanted} == wanted
    assert set(here) - set(wanted) == {"manifest.json", "source.json"}
    assert json.loads(here["source.json"]) == {"source": "hf:Qwen/Qwen2.5-14B-Instruct", "commit": COMMIT, "licence": "apache-2.0"}
    assert not storage.listing(f"{buckets.scratch}/staging")
    before = served.served.total()
    assert hub.publish(buckets, "qwen", SOURCE) == registry.usable(buckets, "qwen")
    assert not [path for path in served.files if path.endswith("safetensors") and served.served[path] > len(served.files[path])], "shards were read again"
    assert served.served.total() - before < 10_000


def test_a_connection_that_breaks_goes_on_at_the_byte_where_it_broke(served: type[Hub], buckets: BucketSpec) -> None:
    shard = "model-00002-of-00003.safetensors"
    served.cuts[shard] = 3
    hub.publish(buckets, "qwen", SOURCE)
    # At most the block that was cut is read again.
    assert len(served.files[shard]) <= served.served[shard] <= len(served.files[shard]) + 3 * streaming.BLOCK_BYTES


def test_wrong_bytes_are_never_written_and_the_next_run_reads_only_that_shard(served: type[Hub], buckets: BucketSpec) -> None:
    shard = "model-00003-of-00003.safetensors"
    served.corrupt[shard] = bytes(len(served.files[shard]))
    with pytest.raises(UserError, match="which the source announces"):
        hub.publish(buckets, "qwen", SOURCE)
    assert registry.read(buckets, "qwen") is None
    assert not [item for item in storage.listing(f"{buckets.scratch}/staging") if item.path.endswith(shard)]
    served.corrupt.clear()
    served.served.clear()
    hub.publish(buckets, "qwen", SOURCE)
    assert served.served[shard] == len(served.files[shard])
    assert not [path for path in served.served if path.endswith(".safetensors") and path != shard]


def test_a_killed_publication_goes_on(served: type[Hub], tmp_path: Path) -> None:
    """The command itself, ended in the middle by a source that stops; then the same command again."""
    stuck = "model-00001-of-00003.safetensors"
    served.cuts[stuck] = 1000
    command = [sys.executable, "-m", "runners", "base", "publish", "qwen", "--from", SOURCE, "--local", "--home", str(tmp_path)]
    environment = {name: value for name, value in os.environ.items() if not name.startswith(("GOOGLE_", "STORAGE_", "ELSON_"))}
    child = subprocess.Popen(command, cwd=ROOT, env=environment, stdout=subprocess.PIPE, stderr=subprocess.PIPE)
    while served.served[stuck] == 0 or served.served["model-00003-of-00003.safetensors"] == 0:
        assert child.poll() is None, child.stderr and child.stderr.read()
    try:
        child.wait(1.5)
    except subprocess.TimeoutExpired:
        child.kill()
    child.wait()
    served.cuts.clear()
    with local_bucket.running(tmp_path, LOCAL):
        assert registry.read(LOCAL, "qwen") is None
    done = subprocess.run(command, cwd=ROOT, env=environment, capture_output=True, text=True)
    assert done.returncode == 0 and done.stdout.startswith("qwen base-"), done.stderr


@pytest.mark.parametrize(
    "source, words",
    [
        ("hf:Qwen/Qwen2.5-14B-Instruct", f"no revision is given; today it is the commit {COMMIT}"),
        ("hf:Qwen/Qwen2.5-14B-Instruct@main", "which may move"),
        ("hf:Qwen/Nothing@" + COMMIT, "the hub has no Qwen/Nothing"),
        ("hf:Qwen", "OWNER/NAME@REVISION"),
    ],
)
def test_a_source_that_is_not_one_commit_of_a_model_is_refused(source: str, words: str, served: type[Hub], buckets: BucketSpec) -> None:
    with pytest.raises(UserError, match=words):
        hub.publish(buckets, "qwen", source)


@pytest.mark.parametrize(
    "change, words",
    [
        ({"config.json": {"quantization_config": {}}}, "is quantized"),
        ({"config.json": {"auto_map": {}}}, "code of its own"),
        ({"tokenizer.json": None}, "has no tokenizer.json"),
        ({"model-00002-of-00003.safetensors": None}, "has no model-00002-of-00003"),
    ],
)
def test_a_model_that_cannot_be_trained_is_refused_before_its_weights_are_read(
    change: dict[str, Any], words: str, served: type[Hub], buckets: BucketSpec
) -> None:
    for name, value in change.items():
        if value is None:
            del served.files[name]
        else:
            served.files[name] = json.dumps(value).encode()
    with pytest.raises(UserError, match=words):
        hub.publish(buckets, "qwen", SOURCE)
    assert not [path for path in served.served if path.endswith(".safetensors")]


def test_a_gated_model_needs_a_token(served: type[Hub], buckets: BucketSpec, monkeypatch: pytest.MonkeyPatch) -> None:
    served.gated = True
    with pytest.raises(UserError, match="HF_TOKEN"):
        hub.publish(buckets, "qwen", SOURCE)
    monkeypatch.setenv("HF_TOKEN", "right")
    assert hub.publish(buckets, "qwen", SOURCE).status == "ready"


def test_a_hub_that_is_not_there(buckets: BucketSpec, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HF_ENDPOINT", "http://127.0.0.1:9")
    with pytest.raises(UserError, match="does not answer"):
        hub.publish(buckets, "qwen", SOURCE)


def test_a_model_that_is_in_a_bucket_already(buckets: BucketSpec) -> None:
    for path, data in model().items():
        storage.write(f"{buckets.scratch}/mine/{path}", data, generation=0)
    entry = bucket_source.publish(buckets, "mine", f"{buckets.scratch}/mine/")
    stored = {item.path for item in storage.listing(registry.folder_of(buckets, entry))}
    assert "model-00003-of-00003.safetensors" in stored and "model.gguf" not in stored
    with pytest.raises(UserError, match="holds no model"):
        bucket_source.publish(buckets, "other", f"{buckets.scratch}/nothing")
