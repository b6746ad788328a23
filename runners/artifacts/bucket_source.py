"""A model folder that is in Cloud Storage already, published as a base model: read once for its SHA-256, then copied inside Cloud Storage."""

from __future__ import annotations

import functools
from concurrent.futures import ThreadPoolExecutor

from runners.artifacts import hub, layout, registry, storage, streaming, wire
from runners.artifacts.record import Manifest, ManifestFile
from runners.artifacts.registry import Entry
from runners.errors import UserError
from runners.spec import BucketSpec


def publish(buckets: BucketSpec, name: str, uri: str) -> Entry:
    """Publish the folder ``uri`` (gs://…) as the base model ``name``. Raises UserError when it is not a model that can be trained."""
    uri = uri.rstrip("/")
    found = {item.path: item for item in storage.listing(uri) if hub.WANTED.fullmatch(item.path) or item.path == hub.SOURCE}
    if not found:
        raise UserError(f"{uri} holds no model", "a folder with config.json, tokenizer.json and *.safetensors", f"gcloud storage ls {uri}")
    shards = {path for path in found if path.endswith(".safetensors")}
    small = {path: (storage.read(f"{uri}/{path}") or (b"", 0))[0] for path in found if path.endswith(".json")}
    hub.check(uri, shards, small)
    with ThreadPoolExecutor(hub.PARALLEL) as pool:
        sums = dict(
            zip(
                found,
                pool.map(lambda item: streaming.describe(functools.partial(wire.bytes_from, f"{uri}/{item.path}"), item.size), found.values()),
                strict=True,
            )
        )
    wrong = [path for path, (crc32c, _) in sums.items() if crc32c != found[path].crc32c]
    if wrong:
        raise UserError(f"{uri}/{wrong[0]} changed while it was read", "a folder that nobody writes to", "run the same command again")
    manifest = Manifest(files={path: ManifestFile(size=found[path].size, crc32c=crc32c, sha256=sha256) for path, (crc32c, sha256) in sums.items()})
    made_id = f"base-{manifest.digest}"
    if done := registry.complete(buckets, name, made_id):
        return done
    target = layout.staging(buckets, made_id, manifest.digest)
    storage.copy(uri, target, manifest)
    storage.write_manifest(target, manifest)
    return registry.publish_staged(buckets, manifest, name=name, stage_id=made_id, kind="base", format="bf16")
