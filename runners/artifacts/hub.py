"""A public model from a model hub into the bucket, shard by shard: no disk is needed for its 30 GB.

The hub announces every file's size and SHA-256 (LFS) or git blob id (small files) for one commit; that is what is verified, so the id of the base model
is known before its weights are read, and a second run finds the shards that are there. The commit and the licence are kept in ``source.json``.

Left out: weights in other formats than safetensors, models that need their own code, and conversion.
"""

from __future__ import annotations

import functools
import hashlib
import json
import os
import re
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from typing import Any
from urllib.parse import quote

from runners import log, outside
from runners.artifacts import layout, registry, storage, streaming
from runners.artifacts.record import Manifest, ManifestFile
from runners.artifacts.registry import Entry
from runners.errors import UserError
from runners.spec import BucketSpec

SOURCE = "source.json"
#: What a base model is made of; other formats of the same weights, images and evaluation results stay at the hub.
WANTED = re.compile(r"(config|generation_config|tokenizer|tokenizer_config|special_tokens_map|added_tokens|vocab)\.json|merges\.txt|tokenizer\.model"
                    r"|chat_template\.(jinja|json)|model[\w.-]*\.safetensors(\.index\.json)?|(LICENSE|LICENCE|NOTICE)[\w.-]*")  # fmt: skip
NEEDED = ("config.json", "tokenizer.json", "tokenizer_config.json")
PARALLEL = 4
_NAME = re.compile(r"hf:([\w.-]+/[\w.-]+)(?:@([\w./-]+))?")


@dataclass(frozen=True)
class Model:
    """One commit of a model at the hub: ``files`` are path -> (size, SHA-256 or empty, git blob id)."""

    repo: str
    commit: str
    licence: str
    files: dict[str, tuple[int, str, str]]


def publish(buckets: BucketSpec, name: str, source: str) -> Entry:
    """Publish ``hf:OWNER/NAME@REVISION`` as the base model ``name``. Raises UserError with what is wrong and how to fix it."""
    model = look_up(source)
    small = {path: _small(model, path) for path, (_, sha256, _) in model.files.items() if not sha256}
    small[SOURCE] = json.dumps({"source": f"hf:{model.repo}", "commit": model.commit, "licence": model.licence}, indent=1, sort_keys=True).encode()
    check(model.repo, {path for path in model.files if path.endswith(".safetensors")}, small)
    known = {path: sha256 for path, (_, sha256, _) in model.files.items() if sha256} | {path: hashlib.sha256(data).hexdigest() for path, data in small.items()}
    unsummed = Manifest(files={path: ManifestFile(size=_size(model, small, path), crc32c="", sha256=known[path]) for path in sorted(known)})
    made_id = f"base-{unsummed.digest}"
    if done := registry.complete(buckets, name, made_id):
        log.event("done already", name=done.name, id=done.id)
        return done
    target = layout.staging(buckets, made_id, unsummed.digest)
    log.event(
        "publishing from the hub", source=f"hf:{model.repo}@{model.commit}", licence=model.licence, files=len(known), gb=round(unsummed.total_bytes / 1e9, 2)
    )
    manifest = _staged(model, small, unsummed, target)
    return registry.publish_staged(buckets, manifest, name=name, stage_id=made_id, kind="base", format="bf16")


def look_up(source: str) -> Model:
    """What the hub says about ``hf:OWNER/NAME@REVISION``. A source without a revision is refused, with the commit to pin."""
    match = _NAME.fullmatch(source)
    if not match:
        raise UserError(f"{source} is not a model at the hub", "hf:OWNER/NAME@REVISION", "hf:Qwen/Qwen2.5-14B-Instruct@ and a commit")
    repo, revision = match.groups()
    with _answer(f"/api/models/{repo}/revision/{quote(revision or 'main', safe='')}?blobs=true", repo) as answer:
        found = outside.parsed_json(answer.content, f"the hub's answer about {repo}")
    return outside.shaped(lambda: _described(repo, revision, found), f"the hub's answer about {repo}", "what the hub says of a model", "try again later")


def _described(repo: str, revision: str | None, found: Any) -> Model:
    if revision != found["sha"]:
        what = f"{revision} is a branch or a tag, which may move" if revision else "no revision is given"
        raise UserError(f"{what}; today it is the commit {found['sha']}", "a commit, so that the same command always publishes the same weights",
                        f"hf:{repo}@{found['sha']}")  # fmt: skip
    files = {
        item["rfilename"]: (int(item["size"]), str((item.get("lfs") or {}).get("sha256", "")), str(item.get("blobId", "")))
        for item in found["siblings"]
        if WANTED.fullmatch(item["rfilename"])
    }
    licences = [tag.removeprefix("license:") for tag in found.get("tags", []) if tag.startswith("license:")]
    return Model(repo, found["sha"], licences[0] if licences else "not stated", files)


def check(what: str, shards: set[str], small: dict[str, bytes]) -> None:
    """Refuse a model that training could not use, before 30 GB are moved."""
    missing = [path for path in NEEDED if path not in small]
    index = outside.parsed_json(small.get("model.safetensors.index.json", b"{}"), f"the index of {what}")
    missing += outside.shaped(lambda: sorted(set(index.get("weight_map", {}).values()) - shards), f"the index of {what}", "a weight_map")
    if missing or not shards:
        raise UserError(f"{what} has no {missing[0] if missing else '*.safetensors'}", "config, tokenizer and weights in safetensors", "pick another model")
    config = outside.parsed_json(small["config.json"], f"config.json of {what}")
    if not isinstance(config, dict):
        raise UserError(f"config.json of {what} is no mapping", "a model's config.json", "pick another model")
    if "quantization_config" in config:
        raise UserError(f"{what} is quantized", "plain weights (bf16): quantization is a stage of its own", "pick the model it was made from")
    if "auto_map" in config:
        raise UserError(f"{what} needs code of its own (auto_map)", "an architecture that transformers has", "pick another model")


def _staged(model: Model, small: dict[str, bytes], wanted: Manifest, target: str) -> Manifest:
    """Bring every file to the staging folder that is not there; returns the manifest with all checksums."""
    present = {stored.path: stored for stored in storage.listing(target)}
    finished = {path: present[path].crc32c for path, file in wanted.files.items() if path in present and present[path].size == file.size}
    todo = sorted(set(wanted.files) - set(finished), key=lambda path: -wanted.files[path].size)
    if finished and todo:
        log.event("going on where it stopped", files_there=len(finished), files_left=len(todo))
    total = sum(wanted.files[path].size for path in todo)
    with log.progress("stream", max(1, round(total / 2**20)), "MiB") as meter, ThreadPoolExecutor(PARALLEL) as pool:

        def one(path: str) -> str:
            read = functools.partial(_slices, small[path]) if path in small else functools.partial(_ranges, model, path)
            try:
                return streaming.stream(read, f"{target}/{path}", wanted.files[path].size, wanted.files[path].sha256, meter.advance)
            except storage.Conflict:
                # Another machine finished it first: only verified bytes get the name of this folder's content.
                return next(item.crc32c for item in storage.listing(target) if item.path == path)

        jobs = {path: pool.submit(one, path) for path in todo}
        try:
            finished |= {path: job.result() for path, job in jobs.items()}
        finally:
            for job in jobs.values():
                job.cancel()
    manifest = Manifest(files={path: file.model_copy(update={"crc32c": finished[path]}) for path, file in wanted.files.items()})
    storage.write_manifest(target, manifest)
    return manifest


def _slices(data: bytes, start: int) -> Iterator[bytes]:
    yield data[start:]


def _ranges(model: Model, path: str, start: int) -> Iterator[bytes]:
    with _answer(f"/{model.repo}/resolve/{model.commit}/{quote(path)}", model.repo, start) as answer:
        yield from answer.iter_content(streaming.BLOCK_BYTES)


def _small(model: Model, path: str) -> bytes:
    """A file that git keeps itself, verified by its blob id."""
    size, _, blob = model.files[path]
    data = b"".join(streaming._chunks(functools.partial(_ranges, model, path), size))
    if hashlib.sha1(b"blob %d\0" % len(data) + data, usedforsecurity=False).hexdigest() != blob:
        raise UserError(f"{path} of {model.repo} arrived damaged", f"the git blob {blob}", "run the same command again")
    return data


def _size(model: Model, small: dict[str, bytes], path: str) -> int:
    return len(small[path]) if path in small else model.files[path][0]


def _answer(path: str, repo: str, start: int = 0) -> Any:
    """A streamed answer of the hub. HF_ENDPOINT and HF_TOKEN mean what they mean to huggingface_hub."""
    import requests

    base = os.environ.get("HF_ENDPOINT", "https://huggingface.co").rstrip("/")
    headers = {"Accept-Encoding": "identity"} | ({"Range": f"bytes={start}-"} if start else {})
    if token := os.environ.get("HF_TOKEN"):
        headers["Authorization"] = f"Bearer {token}"
    try:
        answer = requests.get(base + path, headers=headers, stream=True, timeout=(10, 60))
    except requests.ConnectionError as error:
        if start:
            raise
        raise UserError(f"the hub {base} does not answer: {str(error)[:200]}", "a reachable hub", "check the network and HF_ENDPOINT") from None
    if answer.status_code in (401, 403):
        raise UserError(f"the hub refuses {repo} (HTTP {answer.status_code})", "a public model, or a token that may read it",
                        "check the name; accept the model's terms on its page and set HF_TOKEN")  # fmt: skip
    if answer.status_code == 404:
        raise UserError(f"the hub has no {repo} at this revision", "OWNER/NAME and a commit that exist", "look at the model's page")
    if start and answer.status_code != 206:
        raise requests.ConnectionError(f"HTTP {answer.status_code} instead of a range")
    answer.raise_for_status()
    return answer
