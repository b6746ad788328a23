"""Bases pinned by their registry, builds named by content, digests into the stack files; and the boot image's calls. gcloud itself is not here."""

from __future__ import annotations

import json
import os
import shutil
import socket
import subprocess
import time
import urllib.request
from collections.abc import Iterator
from hashlib import sha256
from pathlib import Path

import pytest
import yaml
from click.testing import CliRunner

from runners.cloud import bake, images
from runners.commands.images import images as command
from runners.errors import UserError
from runners.pipeline import IMAGES
from runners.planning import stacks
from runners.spec import EnvironmentDigests, MachineSpec, Spec

ROOT = Path(__file__).resolve().parents[2]
DIGEST = "sha256:" + "1" * 64
TEXT = f"""# kept
python:
  image: docker.io/library/python
  tag: 3.11-bookworm
  digest: null
  resolved_at: null
caddy:
  image: h/caddy
  tag: 2
  digest: {DIGEST}
  resolved_at: 2026-01-01
cuda:
  image: h/cuda
  tag: 13.0.1
  digest: sha256:2222222222222222222222222222222222222222222222222222222222222222
  resolved_at: 2026-01-01
builder:
  image: h/docker
  tag: latest
  digest: {DIGEST}
  resolved_at: 2026-01-01
"""


@pytest.fixture
def bases(tmp_path: Path) -> Path:
    file = tmp_path / "bases.yaml"
    file.write_text(TEXT)
    return file


@pytest.fixture
def registry(tmp_path: Path) -> Iterator[tuple[str, str]]:
    """A real registry with one image: (host, digest)."""
    program = shutil.which("docker-registry")
    if not program:
        reason = "docker-registry is not installed (`make system` installs it)"
        pytest.fail(reason) if os.environ.get("CI") else pytest.skip(reason)
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        host = f"127.0.0.1:{probe.getsockname()[1]}"
    config = tmp_path / "registry.json"
    storage = {"filesystem": {"rootdirectory": str(tmp_path / "files")}}
    config.write_text(json.dumps({"version": 0.1, "log": {"level": "error"}, "storage": storage, "http": {"addr": host}}))
    server = subprocess.Popen([program, "serve", str(config)], stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    try:
        for _ in range(100):
            try:
                urllib.request.urlopen(f"http://{host}/v2/", timeout=1).close()
                break
            except OSError:
                time.sleep(0.1)
        layer = b"{}"
        _upload(host, layer)
        kind = "application/vnd.docker.distribution.manifest.v2+json"
        described = {"mediaType": "application/vnd.docker.container.image.v1+json", "size": len(layer), "digest": f"sha256:{sha256(layer).hexdigest()}"}
        manifest = json.dumps({"schemaVersion": 2, "mediaType": kind, "config": described, "layers": []}).encode()
        request = urllib.request.Request(f"http://{host}/v2/library/python/manifests/3.11", manifest, {"Content-Type": kind}, method="PUT")
        urllib.request.urlopen(request, timeout=10).close()
        yield host, f"sha256:{sha256(manifest).hexdigest()}"
    finally:
        server.terminate()
        server.wait()


def _upload(host: str, blob: bytes) -> None:
    begin = urllib.request.urlopen(urllib.request.Request(f"http://{host}/v2/library/python/blobs/uploads/", b"", method="POST"), timeout=10)
    place = begin.headers["Location"]
    target = f"{place}{'&' if '?' in place else '?'}digest=sha256:{sha256(blob).hexdigest()}"
    urllib.request.urlopen(urllib.request.Request(target, blob, {"Content-Type": "application/octet-stream"}, method="PUT"), timeout=10).close()


def test_a_digest_is_what_the_registry_says(registry: tuple[str, str]) -> None:
    host, digest = registry
    assert images.look_up(f"{host}/library/python", "3.11", scheme="http") == digest


def test_what_the_registry_does_not_have_is_an_error_with_the_fix(registry: tuple[str, str]) -> None:
    with pytest.raises(UserError, match="cannot be looked up"):
        images.look_up(f"{registry[0]}/library/python", "9.9", scheme="http")


def test_one_digest_is_changed_and_every_other_line_stays() -> None:
    changed = images.with_digest(TEXT, "python", "sha256:" + "2" * 64, "2026-02-03")
    assert yaml.safe_load(changed)["python"]["digest"] == "sha256:" + "2" * 64
    assert [a for a, b in zip(TEXT.splitlines(), changed.splitlines(), strict=True) if a != b] == ["  digest: null", "  resolved_at: null"]
    with pytest.raises(UserError):
        images.with_digest(TEXT, "rocm", DIGEST, "2026-02-03")


def test_a_base_without_a_digest_is_refused_with_the_command_that_finds_it(bases: Path) -> None:
    with pytest.raises(UserError) as refusal:
        images.build_command("train", "proj", "us-central1", "abc", bases)
    assert "elson images resolve" in str(refusal.value)
    image, call = images.build_command("gateway", "proj", "us-central1", "abc", bases)
    assert image.startswith("us-central1-docker.pkg.dev/proj/elson/gateway:")
    values = dict(part.split("=", 1) for part in next(p for p in call if p.startswith("--substitutions=")).removeprefix("--substitutions=").split(","))
    assert values["_BASE"] == f"h/caddy@{DIGEST}" and values["_BASE_ARGUMENT"] == "CADDY_BASE" and values["_COMMIT"] == "abc"
    assert values["_COMPAT_BASE"] == values["_BASE"], "an empty place for the compatibility library"
    assert "--service-account=projects/proj/serviceAccounts/elson-build@proj.iam.gserviceaccount.com" in call
    assert "--gcs-source-staging-dir=gs://proj-elson-scratch/builds" in call, "where that account may read (infra/components/identities.py)"


def test_a_server_gets_the_compatibility_library_of_its_own_base(bases: Path) -> None:
    bases.write_text(images.with_digest(TEXT, "python", DIGEST, "2026-02-03"))
    (train, _), (serve, call) = (images.build_command(image, "proj", "us-central1", "abc", bases) for image in ("train", "serve"))
    assert f"_COMPAT_BASE=h/cuda@sha256:{'2' * 64}" in next(part for part in call if part.startswith("--substitutions="))
    bases.write_text(images.with_digest(bases.read_text(), "cuda", "sha256:" + "3" * 64, "2026-02-04"))
    assert images.build_command("serve", "proj", "us-central1", "abc", bases)[0] != serve, "another library is another image"
    assert images.build_command("train", "proj", "us-central1", "abc", bases)[0] == train


def test_no_digest_in_the_repository_is_invented() -> None:
    for base in images.bases().values():
        assert base["digest"] is None or (base["digest"].startswith("sha256:") and base["resolved_at"])


def test_the_tag_changes_with_every_input_and_with_nothing_else(tmp_path: Path) -> None:
    for image in IMAGES:
        images.context(image, tmp_path)
    tags = [images.content_tag("train", "base", tmp_path)]
    for file in images.inputs("train", tmp_path):
        with file.open("a") as text:
            text.write("\n# edited\n")
        tags.append(images.content_tag("train", "base", tmp_path))
    tags.append(images.content_tag("train", "another base", tmp_path))
    assert len(set(tags)) == len(tags)
    (tmp_path / "images/gateway/Caddyfile").write_text("edited")
    assert images.content_tag("train", "another base", tmp_path) == tags[-1]


def test_digests_go_into_the_users_files_of_the_stacks_that_use_the_image(tmp_path: Path) -> None:
    for file in stacks.FOLDER.glob("Pulumi.*.yaml"):
        shutil.copy(file, tmp_path)
    before = {file.name: file.read_bytes() for file in tmp_path.glob("*.yaml")}
    own = tmp_path / stacks.MINE / "Pulumi.serve-l4.yaml"
    own.parent.mkdir()
    own.write_text("encryptionsalt: v1:abc\nconfig:\n  gcp:project: mine\n  elson:spec:\n    serve: {idle_minutes: 5}\n")
    changed = images.write_digests({"gateway": "h/p/gateway@" + DIGEST}, tmp_path)
    assert own in changed and all("serve" in file.name and file.parent == own.parent for file in changed)
    assert images.write_digests({"gateway": "h/p/gateway@" + DIGEST}, tmp_path) == []
    assert {file.name: file.read_bytes() for file in tmp_path.glob("*.yaml")} == before, "tracked files hold nobody's values"
    kept = yaml.safe_load(own.read_text())
    assert kept["encryptionsalt"] == "v1:abc" and kept["config"]["gcp:project"] == "mine"
    stack = stacks.load("serve-l4", tmp_path)
    assert (stack.project, stack.spec.serve.idle_minutes, stack.spec.environments.gateway) == ("mine", 5, "h/p/gateway@" + DIGEST)
    assert stack.spec.machine and stack.spec.machine.machine_type == "g2-standard-8"  # from the tracked file


def test_an_own_file_that_is_broken_is_one_error(tmp_path: Path) -> None:
    own = tmp_path / stacks.MINE / "Pulumi.train-h100.yaml"
    own.parent.mkdir()
    for text in ("config: [", "- a list\n"):
        own.write_text(text)
        with pytest.raises(UserError, match="edit .*mine"):
            stacks.load("train-h100", tmp_path)


def planned(tmp_path: Path) -> bake.Bake:
    digests = EnvironmentDigests(train="h/p/train@" + DIGEST, quantize="h/p/quantize@" + DIGEST)
    return bake.plan(Spec(machine=MachineSpec(machine_type="a3-highgpu-1g"), environments=digests), "train", "proj", "us-central1-a", tmp_path)


def test_baking_uses_a_machine_without_a_gpu_that_ends_by_itself(tmp_path: Path) -> None:
    calls = planned(tmp_path)
    create = " ".join(calls.create)
    assert "--machine-type=n2-standard-4" in create and "accelerator" not in create.replace("ubuntu-accelerator", "").replace("os-accelerator", "")
    assert "--max-run-duration=60m --instance-termination-action=DELETE" in create and "--no-address" not in create, "without a stack there is no NAT"
    assert "--image-family=ubuntu-accelerator-2404-amd64-with-nvidia-580" in create
    assert calls.cleanup[3:5] == ["delete", calls.create[4]]
    assert calls.image.endswith(calls.create[4])


def test_baking_needs_containers() -> None:
    with pytest.raises(UserError, match="environments.train"):
        bake.containers(Spec(), "train")


def test_dry_runs_do_nothing_and_print_the_calls() -> None:
    runner = CliRunner()
    done = runner.invoke(command, ["resolve", "--dry-run", "--json"], catch_exceptions=False)
    assert set(json.loads(done.stdout)) == set(images.bases())
    refused = runner.invoke(command, ["bake", "-s", "train-h100", "--project", "proj", "--dry-run"])
    assert isinstance(refused.exception, UserError) and "elson images build" in str(refused.exception)
