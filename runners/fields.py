"""What a value of a spec, or of any file that elson reads, may be: names, addresses, shares; and the class that refuses keys nobody declared."""

from __future__ import annotations

import ipaddress
import math
from pathlib import Path
from typing import Annotated, Any, ClassVar, Literal, Self

from pydantic import AfterValidator, BaseModel, ConfigDict, Field, StringConstraints, ValidationError, model_validator

from runners import outside
from runners.errors import UserError

Fraction = Annotated[float, Field(ge=0, le=1)]
NAME = r"^[a-z0-9][a-z0-9.-]{1,80}$"
Name = Annotated[str, StringConstraints(pattern=NAME)]
#: What a request calls a model.
SERVED_NAME = r"^[A-Za-z0-9][A-Za-z0-9._/-]{0,120}$"
ServedName = Annotated[str, StringConstraints(pattern=SERVED_NAME)]
#: Ids of artifacts: they become parts of paths.
Id = Annotated[str, StringConstraints(pattern=r"^[a-z0-9][A-Za-z0-9._-]{0,120}$")]
GsUri = Annotated[str, StringConstraints(pattern=r"^gs://[a-z0-9][a-z0-9._-]+(/[^/].*)?$")]


def _range(text: str) -> str:
    ipaddress.ip_network(text)
    return text


def _proxy_range(text: str) -> str:
    found = ipaddress.ip_network(text)
    if found.version != 4 or found.prefixlen > 26:
        raise ValueError("a range of IPv4 of /26 or larger")
    return text


def _host_name(text: str) -> str:
    if not outside.is_host_name(text):
        raise ValueError("a host name like api.example.org")
    return text


Range = Annotated[str, AfterValidator(_range)]
#: Of the proxies of load balancers: 64 addresses at least (cloud.google.com/load-balancing/docs/proxy-only-subnets).
ProxyRange = Annotated[Range, AfterValidator(_proxy_range)]
HostName = Annotated[str, AfterValidator(_host_name)]
#: A certificate of Certificate Manager in one region.
Certificate = Annotated[str, StringConstraints(pattern=r"^projects/[a-z0-9.:-]+/locations/[a-z0-9-]+/certificates/[a-z][a-z0-9-]{0,62}$")]


class Strict(BaseModel):
    """Frozen, and a key nobody declared is an error."""

    model_config = ConfigDict(frozen=True, extra="forbid", protected_namespaces=())

    @classmethod
    def from_yaml(cls, file: Path, expected: str, *, text_keys: bool = True) -> Self:
        """What a YAML file holds. Raises UserError naming each bad key."""
        try:
            return cls.model_validate(outside.read_yaml(file, text_keys=text_keys))
        except ValidationError as error:
            raise UserError(f"{file}: {wrong(error)}", expected, f"edit {file}") from None


class ReplicaSpec(Strict):
    """How many servers a stack has. More than one: a group that an autoscaler sizes, behind a load balancer."""

    min: int = Field(1, ge=1, le=10)
    max: int = Field(1, ge=1, le=10)

    @model_validator(mode="after")
    def _in_order(self) -> Self:
        if self.min > self.max:
            raise ValueError(f"min {self.min} is larger than max {self.max}")
        return self

    @property
    def several(self) -> bool:
        """Whether there may be more than one server."""
        return self.max > 1


def not_finite(value: Any, place: str = "") -> list[str]:
    """The keys whose value is NaN or infinite."""
    if isinstance(value, dict):
        return [one for key, inner in value.items() for one in not_finite(inner, f"{place}.{key}" if place else str(key))]
    if isinstance(value, list | tuple):
        return [one for inner in value for one in not_finite(inner, place)]
    return [place] if isinstance(value, float) and not math.isfinite(value) else []


def wrong(error: ValidationError) -> str:
    """Each bad key with what is wrong with it."""
    found = [(".".join(map(str, one["loc"])), one["msg"].removeprefix("Value error, ")) for one in error.errors()]
    return "; ".join(f"{key}: {why}" if key else why for key, why in found)


class SpeculationSpec(Strict):
    """Several tokens a step: a draft proposes, the model checks. Greedy answers stay the same."""

    #: What the planner alone reads: it makes no other server and no other compiled code.
    FOR_THE_PLAN: ClassVar[set[str]] = {"accepted_tokens", "model_bytes", "token_cache_bytes"}

    method: Literal["ngram", "draft", "eagle3"] = Field(
        "ngram", description="ngram repeats the prompt; draft is a small model; eagle3 a head trained for the model"
    )
    draft_tokens: int = Field(4, ge=1, le=16, description="tokens proposed a step")
    model: Name | None = Field(None, description="registry name of the draft or the head; eagle3, left out: the head that was trained on the model")
    model_id: Id | None = Field(None, description="filled in when the spec is resolved")
    model_manifest: str | None = Field(None, description="digest of its files; filled in when the spec is resolved")
    model_bytes: int | None = Field(None, ge=1, description="size of its files; filled in when the spec is resolved")
    token_cache_bytes: int | None = Field(None, ge=1, description="its own keys and values of a token, in 16 bits; filled in when the spec is resolved")
    accepted_tokens: float | None = Field(None, ge=1, description="tokens a step, as measured on your questions; the planner's assumption when left out")

    @model_validator(mode="after")
    def _has_its_model(self) -> Self:
        if (self.method == "ngram" and self.model) or (self.method == "draft" and not self.model):
            raise ValueError(f"method {self.method} {'takes no model' if self.model else 'needs the registry name of its model'}")
        if self.accepted_tokens and self.accepted_tokens > self.draft_tokens + 1:
            raise ValueError(f"accepted_tokens is {self.accepted_tokens:g}: a step yields at most draft_tokens + 1, {self.draft_tokens + 1} tokens")
        return self


class CompiledSpec(Strict):
    """Compiled code of a server, published: its id, and the digest of its files."""

    id: Id
    manifest: str


class PriceSpec(Strict):
    """The dated price of a machine with its disk."""

    usd_per_hour: float = Field(ge=0)
    priced_at: str


class PlannedSeconds(Strict):
    """What the plan says of one phase, for the record to be held against."""

    optimistic_s: float
    expected_s: float
    pessimistic_s: float


class SecondModelSpec(Strict):
    """A second model on the card of the first. What is not here is as for the first one; drafts and compiled code are that one's alone."""

    model: Name = Field(description="a registry name, or 'production'")
    model_id: Id | None = Field(None, description="filled in when the spec is resolved")
    model_manifest: str | None = Field(None, description="digest of the model's files; filled in when the spec is resolved")
    served_model_name: ServedName = Field(description="what a request calls it")
    max_model_tokens: int | None = Field(None, ge=128, description="left out, as for the first model")
    max_sequences: int | None = Field(None, ge=1, description="left out, as for the first model")
    gpu_memory_fraction: Fraction = Field(0.0, description="its part of serve.gpu_memory_fraction; filled in when the spec is resolved")


class HeadSpec(Strict):
    """An EAGLE-3 head of the merged model, trained in the same session: https://arxiv.org/abs/2503.01840. ``head: {}`` in a spec trains one."""

    epochs: int = Field(8, ge=1)
    batch_examples: int = Field(4, ge=1, description="examples per optimizer step")
    learning_rate: float = Field(5e-4, gt=0)
    steps: int = Field(4, ge=1, le=16, description="tokens drafted one after the other, in training and in the gate")
    draft_vocabulary: int = Field(8192, ge=64, description="words the head can draft, the most frequent of the answers")
    probe_examples: int = Field(16, ge=1, description="held-out questions that the gate drafts answers to")
    probe_tokens: int = Field(96, ge=8, description="tokens of each such answer, at most")
    min_tokens_a_step: float = Field(1.3, ge=1, description="drafting costs about a quarter of a step: below 1.25 a head makes answers slower")
    min_tokens_gained: float = Field(0.1, ge=0, description="tokens a step that the training must have added to those of an untrained head")
    bits: Literal[4, 16] = Field(4, description="4: its matrices are rounded as the model's are, where the gate finds that little is lost; else it stays in 16")
    seed: int = 0

    @model_validator(mode="after")
    def _can_pass(self) -> Self:
        if self.min_tokens_a_step > self.steps + 1:
            raise ValueError(f"min_tokens_a_step is {self.min_tokens_a_step:g}: a step yields at most steps + 1, {self.steps + 1} tokens")
        return self


class SubnetSpec(Strict):
    """A private range of the foundation's network."""

    name: Name
    cidr: Range
