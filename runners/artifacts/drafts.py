"""What a server loads, pinned when it is planned: its model, and what drafts for it."""

from __future__ import annotations

from typing import Any

from runners.artifacts import registry, storage
from runners.artifacts.registry import Entry
from runners.errors import UserError
from runners.fields import SpeculationSpec
from runners.pipeline import ADAPTERS, QUANTIZED, Kind
from runners.spec import BucketSpec, ServeSpec

#: What may draft, by method. A base model is held by its config.json: a head from elsewhere is published as one.
_KINDS: dict[str, tuple[Kind, ...]] = {"draft": ("base", "merged", *QUANTIZED), "eagle3": ("eagle3", "base")}
_TRAIN_ONE = "train one in the session that makes the model (`head: {}` in its spec)"


def with_model(serve: ServeSpec, buckets: BucketSpec, entry: Entry) -> ServeSpec:
    """What is served, and what drafts for it, by name, id and digest: nothing that is written to the registry later changes it."""
    speculation = serve.speculation
    if speculation and (draft := draft_of(buckets, speculation, entry)):
        speculation = speculation.model_copy(update={**registry.pinned(draft), "model_bytes": draft.bytes or None})
    return serve.model_copy(update={**registry.pinned(entry), "speculation": speculation})


def draft_of(buckets: BucketSpec, speculation: SpeculationSpec, served: Entry) -> Entry | None:
    """What drafts for a model: the named draft or head, else the newest head that was trained on it; None where the prompt does.

    A head is of the merged model it was trained on, and of what is that model: its quantized form, or the adapter that a server merges.
    A head from elsewhere, published as a base model is, has no lineage: it is taken where its config.json is of a head, of the model's widths.
    A draft is a model of the same vocabulary, smaller than what is served.

    Raises UserError for a head of another model, for what is no head, no model or as large as what is served, and where there is no head.
    """
    if speculation.method == "ngram":
        return None
    own = _newest_head(buckets, served)
    if speculation.model is None:
        if own is None:
            expected = "a head that was trained on this model"
            raise UserError(f"no EAGLE-3 head of {served.name} ({served.id}) is published", expected, f"{_TRAIN_ONE}, or name one: serve.speculation.model")
        return _fits(buckets, speculation, own, served)
    draft = registry.usable(buckets, speculation.model)
    if draft.kind not in _KINDS[speculation.method]:
        expected = "an EAGLE-3 head" if speculation.method == "eagle3" else "a small model, no adapter and no head"
        raise UserError(f"{draft.name} is of kind {draft.kind}, and serve.speculation.method is {speculation.method}", expected, "elson models ls")
    if draft.kind == "eagle3" and not _is_head_of(draft, served):
        other = f"{draft.name} is the head of {draft.parents.get('merged')}, and {served.name} ({served.id}) is served"
        fix = f"leave serve.speculation.model out: the model's own head {own.name} is taken" if own else f"{_TRAIN_ONE}, or serve it with method ngram"
        raise UserError(other, "the head that was trained on this model", fix)
    return _fits(buckets, speculation, draft, served)


def _newest_head(buckets: BucketSpec, served: Entry) -> Entry | None:
    found = [one for one in registry.entries(buckets) if one.kind == "eagle3" and one.status == "ready" and _is_head_of(one, served)]
    return max(found, key=lambda one: (one.published_at, one.name), default=None)


def _is_head_of(head: Entry, served: Entry) -> bool:
    merged, adapter = head.parents.get("merged"), head.parents.get("adapter")
    return bool(merged and merged in (served.id, served.parents.get("merged"))) or bool(adapter and adapter == served.id)


def _fits(buckets: BucketSpec, speculation: SpeculationSpec, draft: Entry, served: Entry) -> Entry:
    """The same draft. Raises UserError where its size or its config.json says that the server cannot draft with it."""
    # An adapter is merged into its base model by the server, and has that one's size and widths.
    model = registry.base_of(buckets, served) if served.kind in ADAPTERS else served
    if speculation.method == "draft" and (draft.id in (served.id, model.id) or 0 < model.bytes <= draft.bytes):
        large = f"{draft.name} has {draft.bytes / 1e9:,.3f} GB, and {model.name}, for which it would draft, {model.bytes / 1e9:,.3f} GB"
        raise UserError(large, "a smaller model: it is read once for each drafted token", "name a small model of the family, or use method ngram")
    said, wanted = _config(buckets, draft), _config(buckets, model)
    architectures = said.get("architectures")
    name = str(architectures[0]) if isinstance(architectures, list) and architectures else "none"
    # vLLM's own rule (transformers_utils/configs/eagle.py); it renames any other model to one that it does not have, or loads it as a head.
    is_head = name.startswith("Eagle3") or name.endswith("Eagle3")
    if is_head != (speculation.method == "eagle3"):
        expected = "that of an EAGLE-3 head, as LlamaForCausalLMEagle3" if speculation.method == "eagle3" else "that of a model that writes text by itself"
        fix = "serve.speculation.method: eagle3" if is_head else f"name a head, or {_TRAIN_ONE}"
        raise UserError(f"the architecture of {draft.name} is {name}, and serve.speculation.method is {speculation.method}", expected, fix)
    inner = said.get("transformer_layer_config")
    said = inner | said if isinstance(inner, dict) else said
    held = {"vocab_size": said.get("vocab_size")} | ({"hidden_size": said.get("target_hidden_size") or said.get("hidden_size")} if is_head else {})
    if wrong := {key: value for key, value in held.items() if value is None or value != wanted.get(key)}:
        found = ", ".join(f"{key} {value}" for key, value in wrong.items())
        expected = ", ".join(f"{key} {wanted.get(key)}" for key in wrong)
        what = "a head that was trained on this model" if is_head else "a model of the same family with as many words"
        raise UserError(f"{draft.name} has {found}: it cannot draft for {served.name}", f"{expected}, as {model.name} has", f"name {what}")
    return draft


def _config(buckets: BucketSpec, entry: Entry) -> dict[str, Any]:
    uri = f"{registry.folder_of(buckets, entry)}/config.json"
    found = storage.read_json(uri)
    if not found or not isinstance(found[0], dict):
        raise UserError(
            f"{uri} is {'no mapping' if found else 'not there'}", "a model's config.json, which drafting is checked by", f"publish {entry.name} again"
        )
    said: dict[str, Any] = found[0]
    return said
