"""Nothing that another machine wrote is believed unchecked: specs, registry entries, manifests, datasets, promotions, names."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from runners import outside, spec, stages
from runners.artifacts import checkpoint_bucket, layout, registry, storage
from runners.artifacts.record import MANIFEST, Manifest, ManifestFile, crc32c_of, manifest_of
from runners.errors import UserError
from runners.serving import serve
from runners.spec import BaseModelSpec, BucketSpec, DatasetSpec, ServeSpec, Spec
from runners.vm import containers, facts
from tests.vm.test_agent import SPEC, metadata


def folder(at: Path, **files: str) -> Path:
    for name, text in files.items():
        (at / name.replace("__", ".")).parent.mkdir(parents=True, exist_ok=True)
        (at / name.replace("__", ".")).write_text(text)
    return at


def publish(buckets: BucketSpec, at: Path, name: str = "m-v1", stage_id: str = "qdora-1", kind: Any = "qdora", **parents: str) -> registry.Entry:
    record = json.dumps({"id": stage_id, "parents": parents})
    return registry.publish(
        buckets, folder(at, config__json="{}", weights__bin=name, record__json=record), name=name, stage_id=stage_id, kind=kind, parents=parents
    )


def rewrite(uri: str, **changes: Any) -> None:
    """What a thief of an account that may write there does."""
    value, generation = storage.read_json(uri) or ({}, 0)
    storage.write_json(uri, {**value, **changes}, generation=generation)


def put(uri: str, content: bytes) -> None:
    found = storage.read(uri)
    storage.write(uri, content, generation=found[1] if found else 0)


# Specs


def test_a_spec_that_is_not_what_its_name_says_is_refused(buckets: BucketSpec) -> None:
    uri = stages.save_spec(Spec(buckets=buckets))
    assert stages.load_spec(uri).buckets == buckets
    rewrite(uri, serve={"model": "another-model"})
    with pytest.raises(UserError, match="not what its name says"):
        stages.load_spec(uri)


@pytest.mark.parametrize(
    "domain", ["a.example.org\nfile_server", "a.example.org {", "-a.example.org", "a..org", "A.example.org", ":8000", "localhost", "1.2.3.4", "a.b/c", ""]
)
def test_a_domain_is_a_host_name(domain: str) -> None:
    with pytest.raises(UserError, match=r"serve\.domain"):
        spec.parse({"serve": {"domain": domain, "open_to_the_internet": True}})
    if domain:
        with pytest.raises(UserError, match="host name"):
            containers.run_arguments("gateway", facts.parse(metadata("serve")), {**SPEC, "serve": {**SPEC["serve"], "domain": domain}})
    assert spec.parse({"serve": {"domain": "api-2.example.co.uk", "open_to_the_internet": True}}).serve.domain


@pytest.mark.parametrize("ranges", [["0.0.0.0/0"], ["0.0.0.0/1", "128.0.0.0/1"], ["::/0"], ["not a range"], ["10.0.0.1/8"]])
def test_the_whole_internet_is_not_let_in_by_parts(ranges: list[str]) -> None:
    with pytest.raises(UserError, match=r"serve|network"):
        spec.parse({"serve": {"allowed_cidrs": ranges}})


@pytest.mark.parametrize("values", [{"model": "../x"}, {"model_id": "a/../b"}, {"served_model_name": "--trust-remote-code"}])
def test_what_becomes_a_path_or_an_argument_has_the_form_of_one(values: dict[str, str]) -> None:
    with pytest.raises(UserError, match=r"serve\."):
        spec.parse({"serve": values})


# Registry, manifests, datasets


def test_an_entry_under_another_name_is_refused(buckets: BucketSpec, tmp_path: Path) -> None:
    publish(buckets, tmp_path / "a", "first")
    publish(buckets, tmp_path / "b", "second", "qdora-2")
    entry, _ = storage.read_json(layout.registry(buckets, "second")) or ({}, 0)
    rewrite(layout.registry(buckets, "first"), **entry)
    with pytest.raises(UserError, match="entry of second"):
        registry.usable(buckets, "first")


@pytest.mark.parametrize("name", ["../production", "a/b", "", "A", "x" * 99, "a\nb"])
def test_a_name_that_is_no_name_reaches_no_object(buckets: BucketSpec, name: str) -> None:
    with pytest.raises(UserError, match="not a name"):
        registry.read(buckets, name)


def test_a_swapped_folder_is_not_served(buckets: BucketSpec, tmp_path: Path) -> None:
    entry = publish(buckets, tmp_path / "a")
    other = folder(tmp_path / "b", config__json="{}", weights__bin="evil", record__json=json.dumps({"id": entry.id, "parents": {}}))
    for path in ("weights.bin", "record.json"):
        put(f"{layout.model(buckets, 'm-v1')}/{path}", (other / path).read_bytes())
    put(f"{layout.model(buckets, 'm-v1')}/{MANIFEST}", manifest_of(other).model_dump_json().encode())
    served = Spec(buckets=buckets, serve=ServeSpec(model="m-v1", model_id=entry.id))
    with pytest.raises(UserError, match="not what was published"):
        serve.fetch_model(served, None, tmp_path / "work")
    assert not (tmp_path / "work/models/m-v1").exists()


@pytest.mark.parametrize("says_so", [False, True], ids=["same checksum", "manifest says so"])
def test_other_bytes_under_the_same_sha256_are_not_served(says_so: bool, buckets: BucketSpec, tmp_path: Path) -> None:
    """A CRC32C finds accidents. Whoever writes the bucket can keep it, or change it in the manifest, whose digest is of the SHA-256 sums."""
    entry = publish(buckets, tmp_path / "a", name="m-v1")
    uri = layout.model(buckets, "m-v1")
    content = (storage.read(f"{uri}/record.json") or (b"", 0))[0]
    # The polynomial of CRC32C itself, as the checksum shifts bits: added anywhere, it leaves the checksum as it is.
    pattern = (1 | 0x82F63B78 << 1).to_bytes(5, "little")
    evil = bytes(byte ^ more for byte, more in zip(content, pattern, strict=False)) + content[5:]
    if says_so:
        evil = b"x" + content[1:]
        found = storage.read_manifest(uri)
        assert found
        (tmp_path / "evil").write_bytes(evil)
        changed = found.files["record.json"].model_copy(update={"crc32c": crc32c_of(tmp_path / "evil")})
        put(f"{uri}/{MANIFEST}", Manifest(files={**found.files, "record.json": changed}).model_dump_json().encode())
    put(f"{uri}/record.json", evil)
    assert evil != content and len(evil) == len(content)
    with pytest.raises(UserError, match=r"record\.json arrived damaged"):
        serve.fetch_model(Spec(buckets=buckets, serve=ServeSpec(model="m-v1", model_id=entry.id)), None, tmp_path / "work")
    assert not (tmp_path / "work/models/m-v1").exists()


def test_an_entry_that_says_another_manifest_is_not_served_under_a_pinned_one(buckets: BucketSpec, tmp_path: Path) -> None:
    entry = publish(buckets, tmp_path / "a")
    planned = Spec(buckets=buckets, serve=ServeSpec(**registry.pinned(entry)))
    evil = publish(buckets, tmp_path / "b", "evil-v1", "qdora-9")
    rewrite(layout.registry(buckets, "m-v1"), manifest=evil.manifest)
    with pytest.raises(UserError, match="the plan was made for"):
        serve.fetch_model(planned, None, tmp_path / "work")


@pytest.mark.parametrize("changes", [{"id": "qdora-9"}, {"manifest": "0123456789abcdef"}, {"parents": {"base_model": "base-0123456789abcdef"}}])
def test_what_was_promoted_is_what_is_served(buckets: BucketSpec, tmp_path: Path, changes: dict[str, Any]) -> None:
    """Promotion is a write that no VM's account may make; the registry's entry, which a training VM may change, is held against it."""
    publish(buckets, tmp_path / "a")
    registry.promote(buckets, "m-v1")
    served = Spec(buckets=buckets, serve=ServeSpec(model="production"))
    assert serve.fetch_model(served, None, tmp_path / "first")[1].name == "m-v1"
    rewrite(layout.registry(buckets, "m-v1"), **changes)
    with pytest.raises(UserError, match="was promoted as|not what was published"):
        serve.fetch_model(served, None, tmp_path / "second")


def test_a_base_model_is_its_content(buckets: BucketSpec, tmp_path: Path) -> None:
    base = stages.publish_base(buckets, folder(tmp_path / "base", config__json="{}"), "base-v1")
    wanted = Spec(buckets=buckets, base_model=BaseModelSpec(name="base-v1", id=base.id))
    assert stages.base_folder(wanted, tmp_path / "work")
    rewrite(layout.registry(buckets, "base-v1"), manifest="0123456789abcdef")
    with pytest.raises(UserError, match="id is its content"):
        stages.base_folder(wanted, tmp_path / "work")
    rewrite(layout.registry(buckets, "base-v1"), id="base-0123456789abcdef")
    with pytest.raises(UserError, match="was resolved with"):
        stages.base_folder(wanted, tmp_path / "work")


def test_a_dataset_is_its_content(buckets: BucketSpec, tmp_path: Path) -> None:
    entry = stages.publish_dataset(buckets, folder(tmp_path / "d", train__jsonl="{}\n", record__json="{}"), "corpus")
    wanted = Spec(buckets=buckets, dataset=DatasetSpec(name="corpus", id=entry.id))
    assert stages.dataset_folder(wanted, tmp_path / "work")
    poisoned = folder(tmp_path / "p", train__jsonl='{"poison": 1}\n', record__json="{}")
    put(f"{layout.dataset(buckets, entry.id)}/train.jsonl", (poisoned / "train.jsonl").read_bytes())
    put(f"{layout.dataset(buckets, entry.id)}/{MANIFEST}", manifest_of(poisoned).model_dump_json().encode())
    with pytest.raises(UserError, match="not what was published"):
        stages.dataset_folder(wanted, tmp_path / "other")
    with pytest.raises(UserError, match="not that of these files"):
        registry.publish(buckets, poisoned, name="corpus-2", stage_id="data-0123456789abcdef", kind="dataset")


# Names that would leave their folder

ESCAPES = ["../x", "/etc/passwd", "a/../../x", "a//b", "./a", "", ".", "..", "a\\..\\b", "C:x", "a\x00b", "a\nb", "a/", "x" * 300, MANIFEST]
FILE = {"size": 1, "crc32c": "AAAAAA==", "sha256": "0" * 64}


@pytest.mark.parametrize("path", ESCAPES)
def test_a_manifest_with_a_path_that_leaves_its_folder_is_refused(path: str, buckets: BucketSpec, tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="not one of a file below"):
        Manifest.model_validate({"files": {path: FILE}})
    storage.write_json(f"{buckets.models}/evil/{MANIFEST}", {"version": 1, "files": {path: FILE}}, generation=0)
    with pytest.raises(UserError, match="corrupt"):
        storage.download(f"{buckets.models}/evil", tmp_path / "inner" / "copy")
    assert not list(tmp_path.rglob("x"))


def test_a_manifest_with_a_file_that_is_also_a_folder_is_refused() -> None:
    with pytest.raises(ValueError, match="not one of a file below"):
        Manifest.model_validate({"files": {"a": FILE, "a/b": FILE}})


@given(st.text(st.sampled_from("ab./\\:\0 ~-"), max_size=12))
def test_a_path_that_is_let_through_stays_below(path: str) -> None:
    if outside.is_below(path):
        assert Path("/base").joinpath(path).resolve().is_relative_to("/base/")
        Manifest(files={path: ManifestFile(**FILE)})


@pytest.mark.parametrize("name", ["..", "step-1", "step-000001.partial", "step-00000x", "STEP-000001"])
def test_a_checkpoint_of_another_name_is_nothing_to_remove_or_resume_from(name: str, buckets: BucketSpec, tmp_path: Path) -> None:
    (tmp_path / "work" / "precious").mkdir(parents=True)
    blob = storage.client().bucket("scratch").blob(f"checkpoints/dora-1/{name}/{MANIFEST}")
    if name != "..":  # the emulator keeps objects as files, so that one is given as a listing below
        blob.upload_from_string('{"files": {}}')
    assert checkpoint_bucket.newest(buckets, "dora-1", tmp_path / "work") is None
    uploads = checkpoint_bucket.Uploads(buckets, "dora-1")
    uploads._drop_old(5)
    assert (tmp_path / "work" / "precious").is_dir()


def test_listed_names_that_leave_the_folder_are_passed_over(buckets: BucketSpec, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    class Blob:
        size, crc32c, generation = 1, "AAAAAA==", 1

        def __init__(self, name: str) -> None:
            self.name = f"checkpoints/dora-1/{name}"

    names = [f"{path}/{MANIFEST}" for path in ("..", "a/../..", "step-000001/..")]
    monkeypatch.setattr(storage.client(), "list_blobs", lambda *_, **__: [Blob(name) for name in names])
    assert storage.listing(f"{buckets.scratch}/checkpoints/dora-1") == []
    (tmp_path / "work" / "checkpoints").mkdir(parents=True)
    assert checkpoint_bucket.newest(buckets, "dora-1", tmp_path / "work") is None
    assert (tmp_path / "work" / "checkpoints").is_dir()
