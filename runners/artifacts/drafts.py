"""What a server loads, pinned when it is planned: its model, and what drafts for it."""

from __future__ import annotations

from runners.artifacts import registry
from runners.artifacts.registry import Entry
from runners.errors import UserError
from runners.spec import BucketSpec, ServeSpec, SpeculationSpec


def with_model(serve: ServeSpec, buckets: BucketSpec, entry: Entry) -> ServeSpec:
    """What is served, and what drafts for it, by name, id and digest: nothing that is written to the registry later changes it."""
    speculation = serve.speculation
    if speculation and (draft := draft_of(buckets, speculation, entry)):
        speculation = speculation.model_copy(update=registry.pinned(draft))
    return serve.model_copy(update={**registry.pinned(entry), "speculation": speculation})


def draft_of(buckets: BucketSpec, speculation: SpeculationSpec, served: Entry) -> Entry | None:
    """What drafts for a model: the named draft or head, else the newest head that was trained on it; None where the prompt does.

    A head is of the merged model it was trained on, and of what is that model: its quantized form, or the adapter that a server merges.
    A head from elsewhere, published as a base model is, has no lineage, and is taken as it is.

    Raises UserError for a head of another model, for what is no head or no model, and where there is none.
    """
    if speculation.method == "ngram":
        return None
    if speculation.model is None:
        found = [one for one in registry.entries(buckets) if one.kind == "eagle3" and one.status == "ready" and _is_head_of(one, served)]
        if not found:
            fix = "train one in the session that makes the model (`head: {}` in its spec), or name one: serve.speculation.model"
            raise UserError(f"no EAGLE-3 head of {served.name} ({served.id}) is published", "a head that was trained on this model", fix)
        return max(found, key=lambda one: (one.published_at, one.name))
    draft = registry.usable(buckets, speculation.model)
    if draft.kind == "dataset" or (draft.kind == "eagle3") != (speculation.method == "eagle3" and draft.kind != "base"):
        expected = "an EAGLE-3 head" if speculation.method == "eagle3" else "a small model"
        raise UserError(f"{draft.name} is of kind {draft.kind}, and serve.speculation.method is {speculation.method}", expected, "elson models ls")
    if draft.kind == "eagle3" and not _is_head_of(draft, served):
        other = f"{draft.name} is the head of {draft.parents.get('merged')}, and {served.name} ({served.id}) is served"
        raise UserError(other, "the head that was trained on this model", "leave serve.speculation.model out: the model's own head is taken")
    return draft


def _is_head_of(head: Entry, served: Entry) -> bool:
    merged, adapter = head.parents.get("merged"), head.parents.get("adapter")
    return bool(merged and merged in (served.id, served.parents.get("merged"))) or bool(adapter and adapter == served.id)
