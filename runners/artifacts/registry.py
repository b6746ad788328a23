"""What a name means: a registry object for each published model and dataset, and which one is in production.

Publishing survives being killed at any instant and two machines doing it at once:

1. the files go to a staging folder named after their content, its manifest last;
2. the registry object claims the name for that content (compare-and-swap): from here on anyone can finish the publication;
3. the files are copied inside Cloud Storage to ``<name>/``, its manifest last;
4. the registry object says ``ready``.

A complete name never changes its id: a changed model needs a new name.
"""

from __future__ import annotations

import os
import re
from pathlib import Path
from typing import Any, Literal, TypeVar

from pydantic import Field, ValidationError

from runners import identity, log
from runners.artifacts import layout, storage
from runners.artifacts.record import Manifest, manifest_of, now
from runners.errors import Refused, UserError
from runners.fields import NAME, Id, Name, Strict
from runners.pipeline import QUANTIZED, Format, Kind
from runners.spec import BucketSpec, ServeSpec, Spec

#: Models of the first version, trained on an unknown number of pairs with another template: never to be used again.
DEPRECATED = {
    "wealth-lora-elson14b-vm1": "wealth-dora-elson14b-h100-v2",
    "wealth-lora-elson14b-vm2": "wealth-dora-elson14b-h100-v2",
}


T = TypeVar("T", bound=Strict)


class Production(Strict):
    """The model that ``serve.model: production`` means. Only people may write it (infra/README.md): a VM that makes models cannot choose what is served."""

    name: Name
    id: Id
    manifest: str = ""
    since: str = ""
    previous: str | None = None
    fp8_cache: str = Field("", description="why it may be served with kv_cache_dtype fp8: what two evaluations show; empty: it may not")


class Entry(Strict):
    """One name. ``manifest`` is the digest of the published files; ``parents`` are ids by role (base_model, dataset, adapter...);
    ``rule`` is the rule its id was made by (``runners/identity.py``), 1 where an entry does not say so."""

    name: Name
    id: Id
    kind: Kind
    status: Literal["building", "ready", "deprecated"]
    manifest: str = Field(pattern=r"^([0-9a-f]{16})?$")
    parents: dict[str, str] = Field(default_factory=dict)
    published_at: str = ""
    bytes: int = Field(0, ge=0)
    format: Format | None = None
    rule: int = 1
    reason: str | None = None
    replacement: str | None = None


def read(buckets: BucketSpec, name: str) -> Entry | None:
    """The entry of a name, or None. Raises UserError when the object is corrupt."""
    uri = layout.registry(buckets, checked(name))
    found = storage.read_json(uri)
    if found is None:
        return None
    entry = _parsed(Entry, found[0], uri)
    if entry.name != name:
        raise _corrupt(uri, f"it is the entry of {entry.name}")
    if entry.kind == "base" and entry.status == "ready" and entry.id != f"base-{entry.manifest}":
        raise _corrupt(uri, f"a base model's id is its content, and {entry.id} is not base-{entry.manifest}")
    return entry


def checked(name: str) -> str:
    """A name that can stand in a path. Raises UserError for any other text."""
    if not re.fullmatch(NAME, name):
        raise UserError(f"{name[:100]!r} is not a name of a model or dataset", "lower-case letters, digits, dots and dashes", "elson models ls")
    return name


def _parsed(shape: type[T], value: Any, uri: str) -> T:
    try:
        return shape.model_validate(value)
    except ValidationError as error:
        first = error.errors()[0]
        raise _corrupt(uri, f"{'.'.join(map(str, first['loc']))}: {first['msg']}") from None


def _corrupt(uri: str, why: str) -> UserError:
    return UserError(
        f"the registry object {uri} is corrupt: {why[:300]}", "an entry written by elson", f"restore an older version of it: gcloud storage ls -a {uri}"
    )


def entries(buckets: BucketSpec) -> list[Entry]:
    """Every entry, by name. An object whose name no model can have is left aside with a warning: nothing ever reads it."""
    names = sorted(stored.path.removesuffix(".json") for stored in storage.listing(layout.registry(buckets)) if stored.path.endswith(".json"))
    for odd in (name for name in names if not re.fullmatch(NAME, name)):
        log.warning("an object among the registry's entries is none, and is left aside", object=f"{layout.registry(buckets)}{odd[:100]}.json")
    return [entry for name in names if re.fullmatch(NAME, name) and (entry := read(buckets, name))]


def usable(buckets: BucketSpec, name: str) -> Entry:
    """The entry of a name that may be trained on, quantized or served. Raises UserError for deprecated, incomplete and unknown names."""
    if replacement := DEPRECATED.get(name):
        raise _refusal(name, "a LoRA model of the first version", replacement)
    entry = read(buckets, name)
    if entry is None:
        known = ", ".join(e.name for e in entries(buckets)) or "nothing is published yet"
        raise UserError(f"there is no model or dataset named {name} in {buckets.models}", known, _how_to_make(name))
    if entry.status == "deprecated":
        raise _refusal(name, entry.reason or "deprecated", entry.replacement)
    if entry.status != "ready":
        raise UserError(
            f"{name} is not complete: a publication of {entry.id} was cut off",
            "a published model",
            "run the stage that makes it again: it finishes the publication",
        )
    return entry


def complete(buckets: BucketSpec, name: str, stage_id: str) -> Entry | None:
    """The entry if ``name`` is published as ``stage_id``; None if the stage still has to run. Raises UserError if the name is another's."""
    if replacement := DEPRECATED.get(name):
        raise _refusal(name, "a LoRA model of the first version", replacement)
    entry = read(buckets, name)
    if entry is None or (entry.status == "building" and entry.id != stage_id):
        return None
    if entry.id != stage_id and entry.rule < identity.RULE and entry.kind not in ("base", "dataset"):
        raise UserError(
            f"{name} was published by release 0.1, which made ids by another rule: it is {entry.id}, and this run would make {stage_id}",
            "a name that is free; the published model is complete, and can be served as it is",
            f"to train it again, bump the version in the spec's names (…{_bumped(name)})",
        )
    if entry.id != stage_id:
        raise UserError(
            f"the name {name} is taken by {entry.id}, and this run would make {stage_id}",
            "a name that is free: a published model never changes",
            f"bump the version in the spec's names (…{_bumped(name)})",
        )
    if entry.status == "building":
        return _finish(buckets, entry)
    if entry.status == "deprecated":
        raise _refusal(name, entry.reason or "deprecated", entry.replacement)
    return entry


def publish(
    buckets: BucketSpec, folder: Path, *, name: str, stage_id: str, kind: Kind, format: Format | None = None, parents: dict[str, str] | None = None
) -> Entry:
    """Publish a folder (its record.json included) under a name; see the module's text. Returns the current entry, which may be another machine's."""
    if done := complete(buckets, name, stage_id):
        return done
    manifest = manifest_of(folder)
    storage.upload(folder, layout.staging(buckets, stage_id, manifest.digest), label=f"upload {name}")
    return publish_staged(buckets, manifest, name=name, stage_id=stage_id, kind=kind, format=format, parents=parents)


def publish_staged(
    buckets: BucketSpec, manifest: Manifest, *, name: str, stage_id: str, kind: Kind, format: Format | None = None, parents: dict[str, str] | None = None
) -> Entry:
    """Publish what is complete in its staging folder, manifest included. Raises UserError when an id that is made of content is another's."""
    content = {"dataset": manifest.dataset_id, "base": f"base-{manifest.digest}"}.get(kind, stage_id)
    if stage_id != content:
        raise UserError(f"the id {stage_id} is not that of these files", content, "publish them under the id of their content")
    claim = Entry(
        name=name,
        id=stage_id,
        kind=kind,
        status="building",
        manifest=manifest.digest,
        parents=parents or {},
        published_at=now(),
        bytes=manifest.total_bytes,
        format=format,
        rule=identity.RULE,
    )
    standing = Entry.model_validate(storage.update_json(layout.registry(buckets, name), lambda old: _claimed(old, claim)))
    if standing.status != "building":
        storage.delete(layout.staging(buckets, stage_id, manifest.digest))  # another machine was faster: what was staged is of no use
    return _finish(buckets, standing)


def _claimed(old: dict[str, Any] | None, claim: Entry) -> dict[str, Any] | None:
    """The registry object after a claim: ours, unless another's claim or publication is there."""
    if old is not None and (old.get("id") == claim.id or old.get("status") != "building"):
        if old.get("id") != claim.id:
            raise UserError(f"the name {claim.name} was taken by {old.get('id')} meanwhile", "a free name", "bump the version in the spec's names")
        return None
    return claim.model_dump(mode="json")


def _finish(buckets: BucketSpec, entry: Entry) -> Entry:
    """Copy what was claimed to its place, then say so. Anyone may do it, any number of times, and who comes late finds it done."""
    if entry.status == "ready":
        return entry
    try:
        return _finished(buckets, entry)
    except UserError:
        standing = read(buckets, entry.name)
        if standing and standing.status == "ready" and (standing.id, standing.manifest) == (entry.id, entry.manifest):
            return standing
        raise


def _finished(buckets: BucketSpec, entry: Entry) -> Entry:
    source, target = layout.staging(buckets, entry.id, entry.manifest), folder_of(buckets, entry)
    manifest = storage.read_manifest(source)
    if manifest is None:
        published = storage.read_manifest(target)
        if published is None or published.digest != entry.manifest:
            raise UserError(
                f"the publication of {entry.name} was cut off, and its staged files are gone",
                "the staged upload",
                f"elson models forget {entry.name}, then run the stage again",
            )
        manifest = published
    else:
        storage.copy(source, target, manifest)
        _verify(target, manifest)
        storage.write_manifest(target, manifest)
    ready = entry.model_copy(update={"status": "ready"})
    storage.update_json(layout.registry(buckets, entry.name), lambda old: ready.model_dump(mode="json") if old and old["id"] == entry.id else None)
    storage.delete(source)
    log.event("published", name=entry.name, id=entry.id, to=target)
    return ready


def _verify(target: str, manifest: Manifest) -> None:
    stored = {item.path: item.crc32c for item in storage.listing(target)}
    wrong = [path for path, file in manifest.files.items() if stored.get(path) != file.crc32c]
    if wrong:
        raise UserError(f"{target}/{wrong[0]} is not what was uploaded", "the staged file", "run the same command again: it copies what differs")


def folder_of(buckets: BucketSpec, entry: Entry) -> str:
    """Where an entry's files stand."""
    return layout.dataset(buckets, entry.id) if entry.kind == "dataset" else layout.model(buckets, entry.name)


def format_of(entry: Entry) -> Format:
    """How a model's weights are stored; entries of release 0.1 did not say so."""
    return entry.format or ("awq" if entry.kind in QUANTIZED else "bf16")


def base_of(buckets: BucketSpec, adapter: Entry) -> Entry:
    """The base model that an adapter was trained on. Raises UserError when it is not published."""
    base = adapter.parents.get("base_model", "")
    found = next((entry for entry in entries(buckets) if entry.id == base and entry.kind == "base" and entry.status == "ready"), None)
    if found is None:
        raise UserError(
            f"{adapter.name} is an adapter of {base or 'an unknown base model'}, which is not published here",
            "its base model, to merge it into",
            "serve its quantized model, or publish the base model again: elson base publish --help",
        )
    return found


def forget(buckets: BucketSpec, name: str) -> None:
    """Free a name whose publication never finished. Raises UserError for a complete one."""
    entry = read(buckets, name)
    if entry is None or entry.status != "building":
        raise UserError(f"{name} is {'not there' if entry is None else entry.status}", "a publication that was cut off", "elson models ls")
    storage.delete_object(layout.registry(buckets, name))


def retract(buckets: BucketSpec, entry: Entry) -> None:
    """Take a name and its files away. Only for the embedded bucket: in the cloud a model is deprecated, never deleted."""
    if "STORAGE_EMULATOR_HOST" not in os.environ:
        raise UserError(f"{entry.name} is in a bucket of Google Cloud", "the embedded bucket", f"elson models deprecate {entry.name}")
    storage.delete_object(layout.registry(buckets, entry.name))
    storage.delete(folder_of(buckets, entry))


def deprecate(buckets: BucketSpec, name: str, *, reason: str, replacement: str | None = None) -> Entry:
    """Mark a name so that train, quantize and serve refuse it."""
    entry = read(buckets, name)
    if entry is None:
        raise UserError(f"there is no model named {name}", "a published name", "elson models ls")
    if (live := production(buckets)) and live.name == name:
        raise UserError(f"{name} is in production", "another model in production first", "elson models promote OTHER")
    marked = entry.model_copy(update={"status": "deprecated", "reason": reason, "replacement": replacement})
    storage.update_json(layout.registry(buckets, name), lambda _: marked.model_dump(mode="json"))
    return marked


def promote(buckets: BucketSpec, name: str, *, fp8_cache: str = "") -> Entry:
    """Make a name what ``serve.model: production`` means: one object, swapped atomically.

    Args:
        fp8_cache: what shows that it may be served with an fp8 cache; left out, what was shown of the same model before.
    """
    entry = usable(buckets, name)
    _refuse_no_model(entry)
    previous = production(buckets)
    kept = previous.fp8_cache if previous and is_live(previous, entry) else ""
    live = Production(
        name=entry.name, id=entry.id, manifest=entry.manifest, since=now(), previous=previous.name if previous else None, fp8_cache=fp8_cache or kept
    )
    storage.update_json(layout.production(buckets), lambda _: live.model_dump(mode="json"))
    return entry


def is_live(live: Production | None, entry: Entry) -> bool:
    """Whether an entry is what is in production."""
    return bool(live and (live.id, live.manifest) == (entry.id, entry.manifest))


def production(buckets: BucketSpec) -> Production | None:
    """The model in production, or None. Raises UserError when the object is corrupt."""
    uri = layout.production(buckets)
    found = storage.read_json(uri)
    return _parsed(Production, found[0], uri) if found else None


def to_serve(buckets: BucketSpec, model: str) -> Entry:
    """The entry that ``serve.model`` names, ``production`` included."""
    if model != "production":
        entry = usable(buckets, model)
    elif live := production(buckets):
        entry = usable(buckets, live.name)
        if (entry.id, entry.manifest) != (live.id, live.manifest or entry.manifest):
            raise UserError(
                f"{live.name} was promoted as {live.id} ({live.manifest}), and its registry entry now says {entry.id} ({entry.manifest})",
                "the model that was promoted",
                "somebody changed the entry: look at it, then restore an older version or promote again",
            )
    else:
        raise UserError("no model is in production", "a promoted model", "elson models ls, then elson models promote NAME")
    _refuse_no_model(entry)
    return entry


def refuse_unproven_cache(buckets: BucketSpec, serve: ServeSpec) -> None:
    """Refuse what is in production with an fp8 cache that no evaluation allows: answers would get worse without a word. A model by its name is evaluated so."""
    if serve.model != "production" or serve.kv_cache_dtype == "auto":
        return
    if (live := production(buckets)) and not live.fp8_cache:
        raise UserError(
            f"serve.kv_cache_dtype is {serve.kv_cache_dtype}, which rounds what the cache holds, and nothing shows what {live.name} loses by it",
            "two runs of `elson evaluate`, of servers with auto and with fp8",
            f"serve.kv_cache_dtype: auto; or evaluate it with each (serve.model: {live.name}), then: "
            f"elson models promote {live.name} --fp8-cache AUTO_RUN FP8_RUN",
        )


def _refuse_no_model(entry: Entry) -> None:
    if entry.kind in ("dataset", "eagle3"):
        raise UserError(f"{entry.name} is {'a dataset' if entry.kind == 'dataset' else 'an EAGLE-3 head'}", "a model", "elson models ls")


def resolve(spec: Spec) -> Spec:
    """Fill in the ids that the names of a training stand for, from the bucket, and the digests of the code that is here.

    Raises UserError with the command that makes what is missing, and Refused for what is of another kind.
    """
    base, dataset = usable(spec.buckets, spec.base_model.name), usable(spec.buckets, spec.dataset.name)
    kinds: dict[str, tuple[Kind, ...]] = {"base_model": ("base", "merged"), "dataset": ("dataset",)}
    for part, entry in (("base_model", base), ("dataset", dataset)):
        wanted = getattr(spec, part).id
        if entry.kind not in kinds[part]:
            raise Refused(f"{part}.name is {entry.name}, of kind {entry.kind}", f"one of kind {' or '.join(kinds[part])}", "elson models ls")
        if wanted and wanted != entry.id:
            raise UserError(f"{part}.id is pinned to {wanted}, and {entry.name} is {entry.id}", "the same id", f"change {part}.id or {part}.name in the spec")
    spec = identity.with_code(spec)
    return spec.model_copy(
        update={"base_model": spec.base_model.model_copy(update={"id": base.id}), "dataset": spec.dataset.model_copy(update={"id": dataset.id})}
    )


def pinned(entry: Entry) -> dict[str, str]:
    """What a resolved spec says of a model that a server loads."""
    return {"model": entry.name, "model_id": entry.id, "model_manifest": entry.manifest}


def _refusal(name: str, why: str, replacement: str | None) -> UserError:
    return UserError(f"{name} is deprecated: {why}", "a model that may be used", f"use {replacement}" if replacement else "elson models ls")


def _how_to_make(name: str) -> str:
    return f"elson data build --publish (a dataset), elson base publish {name} --from DIR (a base model), or run the stage that makes it"


def _bumped(name: str) -> str:
    stem, _, version = name.rpartition("-v")
    return f"{stem}-v{int(version) + 1}" if stem and version.isdigit() else f"{name}-v2"
