"""Stack files: where they are, what they say, and what the bucket adds to it (ids, the corpus, the shape of the model, whether it is done).

infra/stacks/Pulumi.<stack>.yaml        what the stack is; tracked
infra/stacks/mine/Pulumi.<stack>.yaml   your project, region, images, changes; ignored by git, and the file that `pulumi config` reads and writes

Both hold ``config: {gcp:project: …, elson:spec: {…}}``. The second is laid over the first, key by key.
"""

from __future__ import annotations

import functools
import os
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import yaml

from runners import log, outside
from runners.artifacts import drafts, layout, registry, storage
from runners.artifacts.registry import Entry
from runners.errors import Refused, UserError, did_you_mean
from runners.fields import SpeculationSpec
from runners.identity import model_name, stage_id
from runners.outside import digest
from runners.pipeline import ADAPTERS, Format, images_of
from runners.planning import costs, notices, places, serving, session
from runners.planning.machines import Prices, load_prices, machine
from runners.planning.parts import Plan, machine_of
from runners.planning.plan import make_plan
from runners.planning.serving import ANSWERS, Answers, ModelToServe, TokensAStep
from runners.planning.training import ASSUMED_CORPUS, CorpusSize
from runners.serving import compiled
from runners.spec import BucketSpec, FoundationSpec, ServeSpec, Spec, parse
from runners.training.shape import QWEN2_14B, Shape

FOLDER = Path(__file__).resolve().parents[2] / "infra" / "stacks"
#: Pulumi.yaml names the same folder as its stackConfigDir.
MINE = "mine"
#: Characters a token, template and system prompt aside: 614 characters are 140 tokens.
_CHARACTERS_PER_TOKEN = 614 / 140
#: Role markers of the chat template.
_TEMPLATE_TOKENS = 20


@dataclass(frozen=True)
class Stack:
    """What a stack file says."""

    name: str
    project: str
    spec: Spec

    @property
    def role(self) -> str:
        """``foundation``, ``train`` or ``serve``."""
        return "foundation" if self.spec.foundation else self.spec.machine.role if self.spec.machine else "none"


@dataclass(frozen=True)
class ResolvedStack:
    """A spec with every id in it, and what the bucket says about its job.

    ``model_copies`` is 2 where the server merges an adapter by itself; ``done`` is the artifact if it is there; ``over`` why the job ended without one;
    ``elsewhere`` what machine of another kind is at work on it; ``retries`` how often `elson retry` let it begin again; ``bucket_region`` where the
    models are; ``second`` is what is known of the second model."""

    spec: Spec
    job_id: str
    format: Format = "awq"
    shape: Shape = QWEN2_14B
    corpus: CorpusSize = ASSUMED_CORPUS
    answers: Answers = ANSWERS
    model_copies: int = 1
    done: Entry | None = None
    over: str = ""
    elsewhere: str = ""
    retries: int = 0
    bucket_region: str = ""
    second: ModelToServe | None = None


def names(folder: Path | None = None) -> list[str]:
    """Stacks that have a file."""
    folder = folder or FOLDER
    files = (*folder.glob("Pulumi.*.yaml"), *folder.glob(f"{MINE}/Pulumi.*.yaml"))
    return sorted({file.name.removeprefix("Pulumi.").removesuffix(".yaml") for file in files})


def load(name: str, folder: Path | None = None) -> Stack:
    """Read a stack's files. Raises UserError when there is none, or one is not valid."""
    folder = folder or FOLDER
    if name not in (known := names(folder)):
        raise UserError(f"there is no stack {name}{did_you_mean(name, known)}", f"one of {', '.join(known)}", "name one of them")
    values = layered(_config(folder / _file(name)), _config(folder / MINE / _file(name)))
    project = values.get("gcp:project") or os.environ.get("GOOGLE_CLOUD_PROJECT") or ""
    return from_config(name, project, values.get("elson:spec") or {}, str(folder / _file(name)))


def tracked(name: str, folder: Path | None = None) -> dict[str, Any] | None:
    """The spec of a stack's tracked file, as plain values; None when there is no such file."""
    found = _config((folder or FOLDER) / _file(name)).get("elson:spec")
    return dict(found) if found else None


def layered(base: dict[str, Any], own: dict[str, Any]) -> dict[str, Any]:
    """``own`` over ``base``: mappings key by key, everything else as a whole."""
    merged = dict(base)
    for key, value in own.items():
        merged[key] = layered(merged[key], value) if isinstance(value, dict) and isinstance(merged.get(key), dict) else value
    return merged


def remember(name: str, changes: dict[str, Any], folder: Path | None = None) -> Path | None:
    """Lay values over the user's own file of a stack, in one rename; returns the file, or None when it said so already.

    Args:
        name: the stack.
        changes: what goes under ``config``, e.g. ``{"elson:spec": {"machine": {"region": "europe-west4"}}}``.
        folder: the folder of the tracked files.
    """
    file = (folder or FOLDER) / MINE / _file(name)
    before = _read(file)
    after = layered(before, {"config": changes})
    if after == before:
        return None
    file.parent.mkdir(parents=True, exist_ok=True)
    outside.write_durably(file, yaml.safe_dump(after, sort_keys=False, width=150))
    return file


def _file(name: str) -> str:
    return f"Pulumi.{name}.yaml"


def _read(file: Path) -> dict[str, Any]:
    return outside.read_yaml(file) if file.exists() else {}


def _config(file: Path) -> dict[str, Any]:
    found = _read(file).get("config") or {}
    if not isinstance(found, dict) or not isinstance(found.get("elson:spec") or {}, dict):
        raise UserError(f"{file}: config or elson:spec is no mapping", "config: {elson:spec: {…}}", f"edit {file}")
    return dict(found)


def from_config(name: str, project: str, values: dict[str, Any], source: str) -> Stack:
    """A stack from its configuration; bucket names follow from the project unless they are set."""
    defaults = {"buckets": buckets_of(project).model_dump()} if project else {}
    spec = parse({**defaults, **values}, source)
    if (spec.foundation is None) == (spec.machine is None):
        raise UserError(f"{source} has {'both' if spec.machine else 'neither'} foundation and machine", "one of the two under elson:spec", f"edit {source}")
    if spec.machine and spec.machine.role == "serve":
        spec = spec.model_copy(update={"profile": name})
    return Stack(name, project, spec)


def buckets_of(project: str) -> BucketSpec:
    """The buckets that the foundation makes in a project."""
    return BucketSpec(models=f"gs://{project}-elson-models", scratch=f"gs://{project}-elson-scratch")


def look_up(spec: Spec) -> ResolvedStack:
    """Ask the bucket what a train or serve spec means. Reads only. Raises UserError for a name that is not there, with the command that makes it."""
    region = _location(spec.buckets)
    found = _serving(spec) if spec.machine and spec.machine.role == "serve" else _training(spec)
    return replace(found, bucket_region=region)


def planned(stack: Stack, *, offline: bool = False, model_format: Format = "awq", whole_logits: bool = False, measured: TokensAStep | None = None) -> Plan:
    """The plan of a stack with a machine; without the bucket when it is offline, or has no project, no bucket or no model in it yet.

    Raises Refused for a model in the bucket that cannot be planned. A name that is taken is a warning here, and `pulumi up` refuses it.
    """
    if not offline:
        try:
            found = look_up(stack.spec)
        except Refused:
            raise
        except UserError as error:
            _without_bucket(error.found, error.fix)
        else:
            return plan_of(stack.name, found, whole_logits=whole_logits, measured=measured)
    found = ResolvedStack(stack.spec, "", format=model_format, answers=Answers(), bucket_region=FoundationSpec().region)
    return plan_of(stack.name, found, whole_logits=whole_logits, measured=measured)


@functools.cache
def _without_bucket(found: str, fix: str) -> None:
    """Said once, not for each stack of a comparison."""
    log.warning(f"planned without the bucket: {found}\n  fix:      {fix}")


def plan_of(stack: str, found: ResolvedStack, *, whole_logits: bool = False, measured: TokensAStep | None = None) -> Plan:
    """The plan of a stack and of its other places, by what the bucket says of it. Raises UserError for a machine or a price that is not known."""

    def make(spec: Spec, prices: Prices) -> Plan:
        return make_plan(
            stack,
            spec,
            prices,
            shape=found.shape,
            corpus=found.corpus,
            answers=found.answers,
            format=found.format,
            model_copies=found.model_copies,
            bucket_region=found.bucket_region,
            whole_logits=whole_logits,
            measured=measured,
            second=found.second,
        )

    plan = make(found.spec, load_prices(machine_of(stack, found.spec).region))
    refusals = (*plan.refusals, *notices.at_work_elsewhere(found.job_id, found.elsewhere))
    second = found.second or ModelToServe()
    shapes = (found.shape, second.shape) if found.spec.serve.second else (found.shape,)
    warnings = (*notices.assumed_shape(found.spec, shapes), *plan.warnings)
    return places.with_places(replace(plan, refusals=refusals, warnings=warnings), found.spec, make, found.shape, found.corpus)


def _training(spec: Spec) -> ResolvedStack:
    _images_are_built(spec, "train")
    resolved = costs.with_price(registry.resolve(spec))
    job_id, name = stage_id(resolved, "quantize"), model_name(resolved, "quantize")
    done = _published(resolved, "quantize")
    for stage in () if done else ("train", *(["merge"] if spec.merge.publish else []), *(["head"] if spec.head else [])):
        _published(resolved, stage)  # raises where the session would, after it was paid for
    if done and resolved.head and not _published(resolved, "head"):
        log.warning(f"{name} is done, and has no EAGLE-3 head of these settings: one is trained in the session that makes the model")
    shape, corpus = _shape(spec.buckets, layout.model(spec.buckets, spec.base_model.name)), read_corpus(resolved)
    return ResolvedStack(
        session.with_plan(resolved, shape, corpus),
        job_id,
        shape=shape,
        corpus=corpus,
        done=done,
        over="" if done else _over(spec.buckets, job_id),
        elsewhere="" if done else _elsewhere(resolved, job_id),
        retries=_retries(spec.buckets, job_id),
    )


def _published(spec: Spec, stage: str) -> Entry | None:
    """What a stage of a resolved spec has published. Raises UserError where its name is another's, or was deprecated. Finishes no publication."""
    name = model_name(spec, stage)
    entry = registry.read(spec.buckets, name)
    return None if entry and entry.status == "building" else registry.complete(spec.buckets, name, stage_id(spec, stage))


def _serving(spec: Spec) -> ResolvedStack:
    _images_are_built(spec, "serve")
    entry, model = _served(spec.buckets, spec.serve)
    serve, second = _with_draft_cache(drafts.with_model(spec.serve, spec.buckets, entry), spec.buckets), None
    if spec.serve.second:
        other, second = _served(spec.buckets, spec.serve.models()[1])
        if other.id == entry.id:
            raise UserError(f"serve.model and serve.second.model are both {entry.name} ({entry.id})", "two models", "name another one, or remove serve.second")
        serve = serve.model_copy(update={"second": spec.serve.second.model_copy(update=registry.pinned(other))})
    host = machine(machine_of(spec.profile, spec).machine_type)
    shared = serving.with_share(serve, (model, second), host, spec.quantize.group_size) if second else serve
    resolved = spec.model_copy(update={"serve": shared})
    if (there := compiled.published(resolved)) != serve.compiled:
        resolved = resolved.model_copy(update={"serve": shared.model_copy(update={"compiled": there})})
    # The profile is the stack's name: two stacks with equal settings are two servers, each with its own state.
    # How many servers, and what is before them, makes no other server. Of several the job is the stack's, whatever it serves: what changes is rolled out.
    settings = serve.model_dump(mode="json", exclude={"compiled": True, "speculation": SpeculationSpec.FOR_THE_PLAN, "replicas": True, "certificate": True})
    inputs = [entry.id, spec.profile, settings, spec.environments.serve, spec.environments.gateway]
    # A group stays in its zones, so another place is another group, which is made before the old one goes.
    inputs = [spec.profile, "replicas", *_place(spec)] if serve.replicas.several else inputs
    job_id = f"serve-{digest(inputs)}"
    return ResolvedStack(resolved, job_id, model.format, model.shape, model_copies=model.copies, over=_over(spec.buckets, job_id), second=second)


def _served(buckets: BucketSpec, serve: ServeSpec) -> tuple[Entry, ModelToServe]:
    """What a model's name stands for, as it is loaded."""
    entry = registry.to_serve(buckets, serve.model)
    registry.refuse_unproven_cache(buckets, serve)
    shaped_as, merges = entry, False
    if entry.kind in ADAPTERS:
        if merged := _merged_of(buckets, entry):
            entry = shaped_as = merged
        else:
            # vLLM refuses DoRA adapters (vllm#10849): the server merges this one into its base, on its own disk, before vLLM starts.
            shaped_as, merges = registry.base_of(buckets, entry), True
    shape = _shape(buckets, registry.folder_of(buckets, shaped_as))
    return entry, ModelToServe(shape, registry.format_of(shaped_as), 2 if merges else 1)


def _place(spec: Spec) -> tuple[str, ...]:
    """Region and zones of a stack's VMs."""
    wanted = machine_of(spec.profile, spec)
    return (wanted.region, *(wanted.zones or machine(wanted.machine_type).zones_in(wanted.region)))


def _images_are_built(spec: Spec, role: str) -> None:
    missing = [image for image in images_of(role) if not getattr(spec.environments, image)]
    if missing:
        raise UserError(f"environments.{missing[0]} is not set: no image was built", "an image pinned by digest", "elson images build")


def _merged_of(buckets: BucketSpec, adapter: Entry) -> Entry | None:
    """The published model that an adapter was merged into, if there is one."""
    return next((e for e in registry.entries(buckets) if e.kind == "merged" and e.status == "ready" and e.parents.get("adapter") == adapter.id), None)


def _over(buckets: BucketSpec, job_id: str) -> str:
    """Why a job ended without an artifact, or an empty text."""
    from runners.vm.decide import OVER

    state = _state(buckets, job_id)
    return f"{state['status']}: {state.get('reason', '')}" if state.get("status") in OVER else ""


def _elsewhere(spec: Spec, job_id: str) -> str:
    """What machine of the other kind is at work on a training, or an empty text."""
    from runners.vm.decide import elsewhere

    is_run = spec.machine is not None and machine(spec.machine.machine_type).is_run
    return elsewhere(_state(spec.buckets, job_id), "run_job" if is_run else "group", datetime.now(UTC))


def _retries(buckets: BucketSpec, job_id: str) -> int:
    found = _state(buckets, job_id).get("retries")
    return found if isinstance(found, int) else 0


def _state(buckets: BucketSpec, job_id: str) -> dict[str, Any]:
    """A job's state, which its VM writes: nothing where it is no object."""
    found = storage.read_json(f"{layout.job(buckets, job_id)}/state.json")
    return found[0] if found and isinstance(found[0], dict) else {}


def _location(buckets: BucketSpec) -> str:
    """Where the models bucket is. Raises UserError when it does not answer."""
    if buckets == BucketSpec():
        raise UserError("no bucket is named: no project is set", "a project", "export GOOGLE_CLOUD_PROJECT=my-project, or set gcp:project in the stack file")
    bucket = storage.split(buckets.models)[0]
    try:
        with storage.explained(buckets.models):
            return str(storage.client().get_bucket(bucket, timeout=30).location or "").lower()
    except FileNotFoundError:
        raise UserError(f"the bucket {bucket} is not there", "the foundation stack", "pulumi up -s foundation") from None


def _shape(buckets: BucketSpec, folder: str) -> Shape:
    """The shape in a model's config.json; the 14B's where there is none to read."""
    found = storage.read_json(f"{folder}/config.json")
    return Shape.of_config(found[0], f"{folder}/config.json") if found else QWEN2_14B


def _with_draft_cache(serve: ServeSpec, buckets: BucketSpec) -> ServeSpec:
    """What drafts has keys and values of its own; those of a config.json that does not say its sizes are assumed."""
    speculation = serve.speculation
    draft = registry.read(buckets, speculation.model) if speculation and speculation.model else None
    if speculation is None or draft is None:
        return serve
    found = storage.read_json(f"{registry.folder_of(buckets, draft)}/config.json")
    said = found[0] if found else {}
    try:
        # A head as `speculators` writes it has its layer's sizes one level below.
        shape = Shape.of_config({**(said.get("transformer_layer_config") or {}), **said})
    except (UserError, TypeError, AttributeError):
        return serve
    return serve.model_copy(update={"speculation": speculation.model_copy(update={"token_cache_bytes": shape.kv_bytes_per_token})})


def read_corpus(spec: Spec) -> CorpusSize:
    """Examples and mean tokens of a resolved spec's dataset, tokens estimated from characters."""
    import json

    name = f"{layout.dataset(spec.buckets, spec.dataset.id or '')}/train.jsonl"
    found = storage.read(name)
    if found is None:
        return replace(ASSUMED_CORPUS, source=f"assumed: {name} could not be read")
    rows = [json.loads(line) for line in found[0].decode().splitlines() if line.strip()]
    characters = [
        len(spec.chat.system_prompt) + len(row["question"]) + len(row["answer"]) + sum(len(turn["content"]) for turn in row.get("history", [])) for row in rows
    ]
    mean = sum(characters) / max(1, len(characters)) / _CHARACTERS_PER_TOKEN + _TEMPLATE_TOKENS
    return CorpusSize(len(rows), round(mean, 1), f"{spec.dataset.name} ({spec.dataset.id}), tokens estimated from characters")
