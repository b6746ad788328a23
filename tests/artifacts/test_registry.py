"""Publishing: killed anywhere, done twice, raced by another machine."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from runners.artifacts import layout, registry, storage, wire
from runners.artifacts.record import MANIFEST
from runners.errors import UserError
from runners.spec import BucketSpec, ServeSpec


@pytest.fixture
def model(tmp_path: Path) -> Path:
    folder = tmp_path / "model"
    (folder / "sub").mkdir(parents=True)
    (folder / "weights.safetensors").write_bytes(bytes(range(256)) * 9000)
    (folder / "sub" / "tokenizer.json").write_text("{}")
    (folder / "record.json").write_text('{"version": 1}')
    return folder


def publish(buckets: BucketSpec, folder: Path, stage_id: str = "dora-1", name: str = "m-v1") -> registry.Entry:
    return registry.publish(buckets, folder, name=name, stage_id=stage_id, kind="dora", parents={"base_model": "b"})


def test_published_folder_comes_back_equal(buckets: BucketSpec, model: Path, tmp_path: Path) -> None:
    entry = publish(buckets, model)
    assert entry.status == "ready"
    manifest = storage.download(registry.folder_of(buckets, entry), tmp_path / "copy")
    assert set(manifest.files) == {"weights.safetensors", "sub/tokenizer.json", "record.json"}
    assert (tmp_path / "copy" / "weights.safetensors").read_bytes() == (model / "weights.safetensors").read_bytes()
    assert storage.listing(f"{buckets.scratch}/staging") == [], "nothing stays in staging"


def test_same_id_twice_writes_nothing(buckets: BucketSpec, model: Path) -> None:
    publish(buckets, model)
    before = {s.path: s.generation for s in storage.listing(buckets.models)}
    publish(buckets, model)
    assert {s.path: s.generation for s in storage.listing(buckets.models)} == before


def test_another_id_under_a_complete_name_is_refused(buckets: BucketSpec, model: Path) -> None:
    publish(buckets, model)
    with pytest.raises(UserError, match="bump the version.*m-v2"):
        publish(buckets, model, stage_id="dora-2")


def test_a_model_of_the_old_rule_of_ids_is_refused_in_one_sentence(buckets: BucketSpec, model: Path) -> None:
    publish(buckets, model)
    storage.update_json(layout.registry(buckets, "m-v1"), lambda old: {key: value for key, value in (old or {}).items() if key not in ("rule", "format")})
    with pytest.raises(UserError, match=r"release 0\.1, which made ids by another rule") as refusal:
        publish(buckets, model, stage_id="dora-2")
    assert "m-v2" in str(refusal.value) and "can be served as it is" in str(refusal.value)
    assert registry.to_serve(buckets, "m-v1").id == "dora-1"


def test_a_format_nobody_can_size_is_refused(buckets: BucketSpec, model: Path) -> None:
    publish(buckets, model)
    storage.update_json(layout.registry(buckets, "m-v1"), lambda old: {**(old or {}), "format": "fp9"})
    with pytest.raises(UserError, match="corrupt"):
        registry.read(buckets, "m-v1")


class Killed(BaseException):
    """As if the process had been killed at this call."""


@pytest.mark.parametrize("dies_at", range(1, 12))
def test_killed_at_any_write_then_run_again(buckets: BucketSpec, model: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, dies_at: int) -> None:
    calls = 0
    originals = {name: getattr(storage, name) for name in ("_write", "_send", "copy", "write_manifest", "delete")}

    def dying(name: str):
        def call(*arguments, **keywords):
            nonlocal calls
            calls += 1
            if calls == dies_at:
                raise Killed
            return originals[name](*arguments, **keywords)

        return call

    with monkeypatch.context() as patch:
        for name in originals:
            patch.setattr(storage, name, dying(name))
        try:
            publish(buckets, model)
        except Killed:
            entry = registry.read(buckets, "m-v1")
            if entry is None or entry.status != "ready":
                assert storage.read_manifest(layout.model(buckets, "m-v1")) is None or entry is not None
    assert publish(buckets, model).status == "ready"
    storage.download(layout.model(buckets, "m-v1"), tmp_path / "copy")


def test_two_machines_with_different_bytes_leave_one_whole_model(buckets: BucketSpec, model: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The second machine finds the first one's claim and finishes that publication instead of mixing in its own files."""
    with monkeypatch.context() as patch:
        patch.setattr(storage, "copy", lambda *a: (_ for _ in ()).throw(Killed))
        with pytest.raises(Killed):
            publish(buckets, model)
    (model / "weights.safetensors").write_bytes(b"another machine's weights")
    entry = publish(buckets, model)
    storage.download(registry.folder_of(buckets, entry), tmp_path / "copy")
    assert (tmp_path / "copy" / "weights.safetensors").stat().st_size == 256 * 9000


def test_flipped_byte_is_found_and_named(buckets: BucketSpec, model: Path, tmp_path: Path) -> None:
    entry = publish(buckets, model)
    uri = registry.folder_of(buckets, entry) + "/weights.safetensors"
    data, generation = storage.read(uri) or (b"", 0)
    storage.write(uri, b"\xff" + data[1:], generation=generation)
    with pytest.raises(UserError, match=r"weights\.safetensors arrived damaged"):
        storage.download(registry.folder_of(buckets, entry), tmp_path / "copy")
    assert not (tmp_path / "copy").exists()


def test_download_goes_on_where_it_stopped(buckets: BucketSpec, model: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    entry = publish(buckets, model)
    partial = tmp_path / "copy.partial"
    partial.mkdir()
    (partial / "weights.safetensors").write_bytes((model / "weights.safetensors").read_bytes())
    fetched: list[str] = []
    original = wire.receive
    monkeypatch.setattr(wire, "receive", lambda uri, *rest: fetched.append(uri) or original(uri, *rest))
    storage.download(registry.folder_of(buckets, entry), tmp_path / "copy")
    assert not [uri for uri in fetched if uri.endswith("weights.safetensors")]


def test_incomplete_folder_is_not_downloaded(buckets: BucketSpec, tmp_path: Path) -> None:
    storage.write(f"{buckets.models}/half/weights.safetensors", b"1", generation=0)
    with pytest.raises(UserError, match="not complete"):
        storage.download(f"{buckets.models}/half", tmp_path / "copy")


def test_corrupt_registry_object_is_one_clear_error(buckets: BucketSpec) -> None:
    storage.write(layout.registry(buckets, "broken"), b"{not json", generation=0)
    with pytest.raises(UserError, match="corrupt"):
        registry.usable(buckets, "broken")
    storage.write(layout.registry(buckets, "odd"), json.dumps({"name": "odd"}), generation=0)
    with pytest.raises(UserError, match="corrupt"):
        registry.usable(buckets, "odd")


def test_corrupt_manifest_is_one_clear_error(buckets: BucketSpec, model: Path, tmp_path: Path) -> None:
    entry = publish(buckets, model)
    uri = f"{registry.folder_of(buckets, entry)}/{MANIFEST}"
    _, generation = storage.read(uri) or (b"", 0)
    storage.write(uri, b'{"files": 3}', generation=generation)
    with pytest.raises(UserError, match="corrupt"):
        storage.download(registry.folder_of(buckets, entry), tmp_path / "copy")


def test_first_versions_lora_models_are_refused_even_when_the_registry_forgot_them(buckets: BucketSpec, model: Path) -> None:
    for name in ("wealth-lora-elson14b-vm1", "wealth-lora-elson14b-vm2"):
        with pytest.raises(UserError, match="deprecated.*\n.*\n.*use wealth-dora-elson14b-h100-v2"):
            registry.usable(buckets, name)
        with pytest.raises(UserError, match="deprecated"):
            publish(buckets, model, name=name)


def test_production_is_swapped_and_guards_against_deprecation(buckets: BucketSpec, model: Path) -> None:
    publish(buckets, model)
    with pytest.raises(UserError, match="no model is in production"):
        registry.to_serve(buckets, "production")
    registry.promote(buckets, "m-v1")
    assert registry.to_serve(buckets, "production").id == "dora-1"
    with pytest.raises(UserError, match="is in production"):
        registry.deprecate(buckets, "m-v1", reason="old")
    publish(buckets, model, name="m-v2", stage_id="dora-2")
    registry.promote(buckets, "m-v2")
    registry.deprecate(buckets, "m-v1", reason="old", replacement="m-v2")
    with pytest.raises(UserError, match="use m-v2"):
        registry.to_serve(buckets, "m-v1")
    live = registry.production(buckets)
    assert live and live.previous == "m-v1"


def test_an_fp8_cache_is_served_of_production_only_with_its_proof_which_stays_with_the_model(buckets: BucketSpec, model: Path) -> None:
    publish(buckets, model)
    production, by_name = ServeSpec(kv_cache_dtype="fp8"), ServeSpec(model="m-v1", kv_cache_dtype="fp8")
    for one in (production, by_name, ServeSpec()):
        registry.refuse_unproven_cache(buckets, one)  # nothing is in production: to_serve says so
    registry.promote(buckets, "m-v1")
    for allowed in (by_name, ServeSpec()):
        registry.refuse_unproven_cache(buckets, allowed)
    with pytest.raises(UserError, match="nothing shows what m-v1 loses by it") as refused:
        registry.refuse_unproven_cache(buckets, production)
    assert "elson models promote m-v1 --fp8-cache AUTO_RUN FP8_RUN" in str(refused.value)
    registry.promote(buckets, "m-v1", fp8_cache="none of 100 cases lost")
    registry.promote(buckets, "m-v1")
    registry.refuse_unproven_cache(buckets, production)
    publish(buckets, model, name="m-v2", stage_id="dora-2")
    registry.promote(buckets, "m-v2")
    with pytest.raises(UserError, match="nothing shows what m-v2 loses by it"):
        registry.refuse_unproven_cache(buckets, production)


def test_unreachable_bucket_is_one_clear_error(buckets: BucketSpec, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("STORAGE_EMULATOR_HOST", "http://127.0.0.1:9")
    monkeypatch.setattr(wire, "RETRY_S", 0.5)
    storage.forget_clients()
    with pytest.raises(UserError, match="does not answer"):
        registry.entries(buckets)


def test_missing_bucket_names_the_command_that_makes_it(buckets: BucketSpec) -> None:
    with pytest.raises(UserError, match="pulumi up -s foundation"):
        storage.write("gs://not-there/x", b"1", generation=0)


def test_an_object_with_an_odd_name_hides_no_model(buckets: BucketSpec, model: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """A training VM may write below the registry; `elson models ls` must go on for everybody else."""
    entry = publish(buckets, model)
    for odd in ("Upper.json", "sub/m-v2.json", "..%2f.json", "a b.json", f"{'x' * 150}.json"):
        storage.write(f"{layout.registry(buckets)}{odd}", "{}", generation=0)
    assert registry.entries(buckets) == [entry]
    said = capsys.readouterr().err
    assert "Upper.json" in said and "sub/m-v2.json" in said
