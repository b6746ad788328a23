"""Every setting of elson and its default, declared once.

Stack files (``infra/stacks``) and profiles (``runners/profiles``) hold values only; both are validated here, and the same object
reaches infrastructure and containers. Units stand in the names. Unknown keys are refused. Derived values are functions.

Nothing here imports torch, click or pulumi: this module is read everywhere.
"""

from __future__ import annotations

import ipaddress
from pathlib import Path
from typing import Any, Literal

from pydantic import Field, ValidationError, model_validator

from runners import outside
from runners.errors import UserError
from runners.fields import (
    Certificate,
    CompiledSpec,
    Fraction,
    GsUri,
    HeadSpec,
    HostName,
    Id,
    Name,
    PlannedSeconds,
    PriceSpec,
    ProxyRange,
    Range,
    ReplicaSpec,
    SecondModelSpec,
    ServedName,
    SpeculationSpec,
    Strict,
    SubnetSpec,
    not_finite,
)
from runners.outside import digest

LINEAR_LAYERS = ("q_proj", "k_proj", "v_proj", "o_proj", "gate_proj", "up_proj", "down_proj")


class BucketSpec(Strict):
    """Two buckets: models (versions, soft delete, never destroyed) and scratch (checkpoints, specs, job states; expires).

    Bucket names are global, so the default is one that nobody can own (``.invalid`` is reserved): a spec without buckets reaches none.
    """

    models: GsUri = "gs://unset.invalid"
    scratch: GsUri = "gs://unset.invalid"


class BaseModelSpec(Strict):
    """The model that is fine-tuned. ``id`` is the digest of its manifest, filled in when the spec is resolved."""

    name: Name = "elson-finance-trading-14b-final"
    source: str | None = Field(None, description="where `elson up` publishes it from when it is not there: hf:OWNER/NAME@COMMIT, gs://… or a folder")
    id: Id | None = None


class DatasetSpec(Strict):
    """A published dataset, by name or id; ``id`` is filled in when the spec is resolved."""

    name: Name = "elson-corpus"
    id: Id | None = None


class ModelNames(Strict):
    """Names to publish under, for people; left out, a name is derived from the stage's id."""

    dora: Name | None = None
    merged: Name | None = None
    head: Name | None = None
    qdora: Name | None = None


class ChatSpec(Strict):
    """What surrounds a question, the same in training, calibration, evaluation and serving."""

    system_prompt: str = (
        "You are Elson, a careful assistant for personal finance and markets in the United States. Answer from general "
        "principles, show the steps of a calculation, name the year of any limit or rate, and say when a licensed "
        "professional is needed."
    )


class DataSpec(Strict):
    """How ``elson data build`` turns sources into a dataset."""

    sources: str = "data/sources.yaml"
    taxonomy: str = "data/taxonomy.yaml"
    dated_limits: str = "data/dated_limits.yaml"
    benchmark: str = Field("data/benchmark", description="file or folder; empty: leaks are not looked for, and the statistics say so")
    validation_fraction: Fraction = 0.08
    near_duplicate_jaccard: float = Field(0.8, gt=0, le=1)
    drop_near_duplicates: Literal["pairs", "questions", "none"] = Field("pairs", description="the notion by which a pair is dropped; both are reported")
    leak_jaccard: float = Field(0.7, gt=0, le=1)
    drop_leaks: bool = False
    refuse: tuple[str, ...] = Field(
        ("too_long", "encoding", "personal_data", "control_tokens"), description="findings that keep a pair out: names of runners/corpus/checks.py"
    )
    refuse_beyond: dict[str, Fraction] = Field({"truncated": 0.02, "citation": 0.02}, description="finding -> share of pairs beyond which a build is refused")
    short_answer_characters: int = Field(40, ge=0)
    long_answer_characters: int = Field(4000, ge=1)
    seed: int = 0


class TrainSpec(Strict):
    """DoRA fine-tuning: https://arxiv.org/abs/2402.09353."""

    adapter: Literal["dora", "lora"] = "dora"
    rank: int = Field(128, ge=1)
    alpha: int = Field(256, ge=1)
    dropout: Fraction = 0.0
    target_modules: tuple[str, ...] = LINEAR_LAYERS
    epochs: int = Field(5, ge=1)
    batch_examples: int = Field(64, ge=1, description="examples per optimizer step")
    learning_rate: float = Field(2e-4, gt=0)
    warmup_fraction: Fraction = 0.05
    weight_decay: float = Field(0.0, ge=0)
    max_grad_norm: float = Field(1.0, gt=0)
    precision: Literal["bf16", "fp32"] = "bf16"
    max_tokens: int = Field(2048, ge=16, description="longest example, in tokens; a longer one is refused, not cut")
    packing: bool = True
    micro_batch_tokens: int | None = Field(None, ge=1, description="left out, the memory plan chooses it")
    gradient_checkpointing: bool | None = Field(None, description="left out, the memory plan chooses it")
    checkpoints_per_epoch: int = Field(1, ge=1)
    early_stop_evaluations: int = Field(2, ge=1, description="evaluations without improvement before training stops")
    minimum_steps: int = Field(20, ge=1, description="a run with fewer optimizer steps is refused")
    max_train_examples: int | None = Field(None, ge=1, description="train on the first so many of the shuffled split (demo)")
    max_validation_examples: int | None = Field(None, ge=1)
    seed: int = 0


class MergeSpec(Strict):
    """Adapter into base, and the parity gate between the two."""

    publish: bool = Field(False, description="keep the merged model (29.5 GB of a 14B) in the bucket; a DoRA server merges by itself")
    probe_examples: int = Field(16, ge=1)
    max_mean_kl: float = Field(0.01, gt=0)
    min_top1_agreement: Fraction = 0.96
    rounding_factor: float = Field(4.0, gt=0, description="the KL may be so many times that of rounding once more, and the adapter must have changed as much")
    adapter_share: Fraction = Field(0.10, description="or this share of the KL between base and adapter, whichever is larger")
    max_general_nats_lost: float = Field(0.5, gt=0, description="log-likelihood a token that right answers outside finance may lose by training, in any area")
    max_general_share_lost: Fraction = Field(0.10, description="share of those questions that may be answered right no more")


class QuantizeSpec(Strict):
    """4-bit AWQ of the merged model, and the quality gate against it."""

    backend: Literal["autoawq", "llmcompressor"] = "autoawq"
    bits: Literal[4] = 4
    group_size: Literal[32, 64, 128] = 128
    calibration_tokens: int = Field(16_384, ge=256)
    calibration_sequence_tokens: int = Field(512, ge=32)
    validation_examples: int = Field(32, ge=1)
    max_mean_kl: float = Field(0.30, gt=0)
    max_perplexity_ratio: float = Field(1.15, gt=1)
    max_matrix_error: float = Field(1.5, gt=0, description="error of a packed matrix's outputs on real inputs, as a multiple of round-to-nearest's")
    must_beat_round_to_nearest: bool = True
    seed: int = 0


class ServeSpec(Strict):
    """vLLM behind a gateway."""

    model: Name = Field("production", description="a registry name, or 'production'")
    model_id: Id | None = Field(None, description="filled in when the spec is resolved")
    model_manifest: str | None = Field(None, description="digest of the model's files; filled in when the spec is resolved")
    served_model_name: ServedName = "elson"
    second: SecondModelSpec | None = Field(None, description="another model on the same card, behind the same address and key")
    port: int = Field(8000, ge=0, le=65535)
    max_model_tokens: int = Field(4096, ge=128)
    max_sequences: int = Field(32, ge=1)
    gpu_memory_fraction: Fraction = 0.92
    kv_cache_dtype: Literal["auto", "fp8"] = Field("auto", description="fp8 holds twice the tokens, and rounds them: answers change")
    prefix_caching: bool = Field(True, description="what requests have in common at their beginning is computed once; the answers stay the same")
    dtype: Literal["auto", "bfloat16", "float16", "float32"] = "auto"
    tensor_parallel: int = Field(1, ge=1)
    eager: bool | None = Field(None, description="no torch.compile and no CUDA graphs; left out: on a CPU only, where compiling takes longer than it saves")
    speculation: SpeculationSpec | None = None
    compiled: CompiledSpec | None = Field(None, description="vLLM's compiled code, where it is published; filled in when the spec is resolved")
    cpu_kv_cache_mib: int = Field(256, ge=16, description="KV cache when serving on a CPU")
    ready_timeout_s: int = Field(900, ge=10)
    idle_minutes: int = Field(15, ge=1, description="a VM that nobody asked for so long deletes itself; Cloud Run decides that by itself")
    allowed_cidrs: tuple[Range, ...] = ()
    open_to_the_internet: bool = False
    domain: HostName | None = None
    replicas: ReplicaSpec = Field(ReplicaSpec(), description="servers on VMs; max above 1: a group that scales by itself, behind a load balancer")
    certificate: Certificate | None = Field(None, description="of the load balancer; with open_to_the_internet it has an external address")

    @model_validator(mode="after")
    def _two_are_different(self) -> ServeSpec:
        if self.second and self.second.model == self.model:
            raise ValueError(f"model and second.model are both {self.model}: name another model, or remove second")
        if self.second and self.second.served_model_name == self.served_model_name:
            raise ValueError(f"served_model_name is {self.served_model_name} for both models: a request chooses by it, so name another one")
        return self

    def models(self) -> tuple[ServeSpec, ...]:
        """What each vLLM serves: one spec, or two without ``second``, each with its share of the card. Drafts and compiled code are the first one's."""
        second = self.second
        if second is None:
            return (self,)
        own = second.model_dump(include={"model", "model_id", "model_manifest", "served_model_name"})
        own |= {"max_model_tokens": second.max_model_tokens or self.max_model_tokens, "max_sequences": second.max_sequences or self.max_sequences}
        share = second.gpu_memory_fraction
        first = self.model_copy(update={"second": None, "gpu_memory_fraction": round(self.gpu_memory_fraction - share, 9)})
        return first, first.model_copy(update={**own, "gpu_memory_fraction": share, "speculation": None, "compiled": None})


class JudgeSpec(Strict):
    """A second model that reads answers by the case's rubric. It can take a pass away, never give one."""

    api_url: str
    model: str
    max_tokens: int = Field(400, ge=50)
    seed: int = 0


class EvaluateSpec(Strict):
    """The benchmark and its bars."""

    benchmark: str = "data/benchmark"
    concurrency: int = Field(4, ge=1)
    max_tokens: int = Field(512, ge=1)
    temperature: float = 0.0
    seed: int = 0
    request_timeout_s: float = Field(60.0, gt=0)
    deadline_s: float = Field(3600.0, gt=0)
    wake_timeout_s: float = Field(900.0, gt=0, description="how long the very first answer may take: a server on Cloud Run is started by being asked")
    max_retries: int = Field(3, ge=0, description="further tries after 429, 5xx and lost connections")
    warmup_requests: int = Field(2, ge=0, description="asked before the first case, not measured")
    overall_bar: Fraction = 0.80
    category_bar: Fraction = 0.70
    mean_latency_bar_ms: float = Field(2000.0, gt=0)
    max_cases: int | None = Field(None, description="the first so many cases of each category (demo); recorded as such")
    compared_cases: int | None = Field(
        None, ge=0, description="base and tuned are asked the first so many cases of each category, too; left out, all of them; 0, none"
    )
    judge: JudgeSpec | None = None


class PlaceSpec(Strict):
    """Another place where a training may run. What is left out is as the machine says it."""

    region: str | None = None
    zones: tuple[str, ...] = Field((), description="left out, the zones of the region that are known to have the machine")
    machine_type: str | None = None
    provisioning_model: Literal["SPOT", "STANDARD", "FLEX_START"] | None = None
    disk_gb: int | None = Field(None, ge=20)
    max_usd_per_hour: float | None = Field(None, gt=0)
    patience_minutes: int | None = Field(None, ge=5, le=1440)


class MachineSpec(Strict):
    """The group of one VM of a stack. Machine types are those of ``runners/planning/machines.py``."""

    role: Literal["train", "serve"] = "train"
    machine_type: str
    provisioning_model: Literal["SPOT", "STANDARD", "FLEX_START", "RUN"] = Field("SPOT", description="RUN: Cloud Run, a service or a job and no VM")
    region: str = "us-central1"
    zones: tuple[str, ...] = Field((), description="left out, every zone of the region that is known to have the machine")
    subnet: str = Field("train", description="a subnet of the foundation; two stacks that reach the internet through NAT need two")
    image: str = Field(
        "projects/ubuntu-os-accelerator-images/global/images/family/ubuntu-accelerator-2404-amd64-with-nvidia-580",
        description="boot image; `elson images bake` makes one that boots minutes sooner",
    )
    image_is_baked: bool = Field(False, description="the boot image holds docker, the toolkit and the containers")
    baked_model: str | None = Field(None, description="digest of the files of the model whose weights the boot image holds too (`elson images bake --weights`)")
    disk_gb: int = Field(200, ge=20)
    deadline_minutes: int = Field(120, ge=5, description="training: from the first start, over all attempts")
    max_run_minutes: int = Field(150, ge=10, le=10_080, description="a VM that lived, or a service that served, for so long is deleted")
    max_attempts: int = Field(5, ge=1)
    min_instances: int = Field(0, ge=0, le=10, description="RUN, serving: instances that are kept, and billed, while nobody asks")
    max_instances: int = Field(1, ge=1, le=10, description="RUN, serving: instances that requests may start")
    preemption_notice_s: Literal[0, 120] = Field(120, description="warning before a spot VM is taken")
    max_usd_per_hour: float | None = Field(None, gt=0, description="refused where the price table has a dearer price")
    patience_minutes: int = Field(15, ge=5, le=1440, description="with places: minutes without a VM before the next place is asked")
    places: tuple[PlaceSpec, ...] = Field((), max_length=7, description="training: where else the job may run, best first, while the machine cannot be had")
    price: PriceSpec | None = Field(None, description="what an hour of it costs, for the records; filled in when the spec is resolved")
    planned: dict[str, PlannedSeconds] = Field({}, description="seconds of each phase by the plan, for the records; filled in when the spec is resolved")


class FoundationSpec(Strict):
    """What every other stack uses; made once, kept by destroy."""

    region: str = "us-central1"
    other_regions: tuple[str, ...] = Field((), max_length=15, description="regions of machine.places: each gets the subnets, 65,536 addresses further on")
    buckets_location: str | None = Field(None, description="chosen once; left out, the region. US, EU or ASIA: outlives a region, and every read is billed")
    billing_account: str | None = Field(None, description="012345-6789AB-CDEF01; without it there is no budget, and the plan says so")
    budget_per_month: float = Field(50.0, gt=0, description="in the billing account's currency")
    budget_alert_fractions: tuple[Fraction, ...] = (0.5, 0.9, 1.0)
    stop_at_budget_fraction: Fraction = Field(1.0, description="the function resizes every group to 0 when the month's cost reaches this share")
    alert_emails: tuple[str, ...] = ()
    operators: tuple[str, ...] = Field((), description="members that may reach the server through IAP, e.g. user:me@x.org")
    subnets: tuple[SubnetSpec, ...] = (
        SubnetSpec(name="train", cidr="10.20.0.0/24"),
        SubnetSpec(name="serve", cidr="10.20.1.0/24"),
        SubnetSpec(name="serve-spot", cidr="10.20.2.0/24"),
    )
    gateway_port: int = Field(8000, ge=1024, le=65535, description="serve.port of the stacks that IAP and the health checks reach")
    proxies_cidr: ProxyRange | None = Field(None, description="range of the load balancer's proxies, /26 or larger; needed by serve.replicas.max above 1")
    keep_images: int = Field(5, ge=1, description="versions of each container image that the registry keeps")
    checkpoint_days: int = Field(14, ge=1, description="age at which scratch objects (checkpoints, uploads, job logs) expire")
    soft_delete_days: int = Field(30, ge=7, le=90, description="how long a deleted model can be brought back")


class CodeDigests(Strict):
    """The code of each stage that makes a model (``runners/identity.py``); filled in when the spec is resolved, and part of the ids."""

    train: str | None = None
    merge: str | None = None
    head: str | None = None
    quantize: str | None = None


class EnvironmentDigests(Strict):
    """The containers of the cloud, pinned by digest; no part of an id: an image is rebuilt for reasons that change no number."""

    train: str | None = None
    quantize: str | None = None
    serve: str | None = None
    gateway: str | None = None


class Spec(Strict):
    """The whole of it. A stack uses the parts it needs."""

    version: Literal[1] = 1
    profile: Name = "train-h100"
    buckets: BucketSpec = BucketSpec()
    base_model: BaseModelSpec = BaseModelSpec()
    dataset: DatasetSpec = DatasetSpec()
    names: ModelNames = ModelNames()
    chat: ChatSpec = ChatSpec()
    data: DataSpec = DataSpec()
    train: TrainSpec = TrainSpec()
    merge: MergeSpec = MergeSpec()
    head: HeadSpec | None = None
    quantize: QuantizeSpec = QuantizeSpec()
    serve: ServeSpec = ServeSpec()
    evaluate: EvaluateSpec = EvaluateSpec()
    machine: MachineSpec | None = None
    foundation: FoundationSpec | None = None
    environments: EnvironmentDigests = EnvironmentDigests()
    code: CodeDigests = CodeDigests()

    @model_validator(mode="after")
    def _fits_together(self) -> Spec:
        on_run = self.machine is not None and self.machine.provisioning_model == "RUN"
        if on_run and (self.serve.domain or self.serve.allowed_cidrs):
            raise ValueError("Cloud Run has its own certificate and no firewall: remove serve.domain and serve.allowed_cidrs; foundation.operators may call it")
        if self.machine is not None and self.machine.min_instances > self.machine.max_instances:
            raise ValueError("machine.min_instances is larger than machine.max_instances")
        if self.machine is not None and self.machine.places and (on_run or self.machine.role != "train"):
            raise ValueError("machine.places is for trainings on VMs: remove it")
        several = self.serve.replicas.several
        if several and (on_run or self.machine is None or self.serve.domain or self.serve.allowed_cidrs):
            raise ValueError("serve.replicas.max is for VMs (Cloud Run has machine.max_instances); serve.domain and allowed_cidrs are for one: use certificate")
        if self.serve.second and (several or self.machine is None or self.machine.role != "serve"):
            raise ValueError("serve.second is for one server that is a stack: remove it, or set serve.replicas.max to 1; several servers have one model")
        if self.serve.certificate and not several:
            raise ValueError("serve.certificate is the load balancer's: set serve.replicas.max above 1, or use serve.domain")
        if self.serve.open_to_the_internet and not (self.serve.certificate if several else self.serve.domain) and not on_run:
            needed = "serve.certificate" if several else "serve.domain"
            raise ValueError(f"serve.open_to_the_internet needs {needed}, so that traffic is encrypted")
        said = [name for name in self.names.model_dump().values() if name]
        if twice := {name for name in said if said.count(name) > 1}:
            raise ValueError(f"names has {min(twice)} more than once: each stage publishes under a name of its own")
        wide = [text for text in self.serve.allowed_cidrs if ipaddress.ip_network(text).prefixlen < 8]
        if wide and not self.serve.open_to_the_internet:
            raise ValueError(f"serve.allowed_cidrs has {wide[0]}: set serve.open_to_the_internet: true and serve.domain as well")
        return self


def parse(values: dict[str, Any], source: str = "spec") -> Spec:
    """Validate values from a stack file, a profile or the bucket. Raises UserError naming each bad key; a bound of infinity would bound nothing."""
    try:
        found = Spec.model_validate(values)
    except ValidationError as error:
        problems = "; ".join(f"{'.'.join(map(str, e['loc'])) or 'spec'}: {e['msg']} (found {e.get('input')!r})"[:300] for e in error.errors())
        raise UserError(f"{source} is not a valid spec: {problems}", "the keys of runners/spec.py", f"edit {source}") from None
    if endless := not_finite(found.model_dump()):
        raise UserError(f"{source} is not a valid spec: {endless[0]}: Input should be a finite number", "a finite number", f"edit {source}")
    return found


def load(file: Path) -> Spec:
    """Read a spec from a YAML or JSON file."""
    return parse(outside.read_yaml(file), str(file))


def spec_digest(spec: Spec) -> str:
    """Name of a resolved spec in the bucket."""
    return digest(spec.model_dump(mode="json"))
