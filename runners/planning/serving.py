"""Serving on one machine: what fits, how many tokens of cache are left, how fast an answer can be at best, and what would meet a target."""

from __future__ import annotations

from dataclasses import dataclass

from runners.fields import HeadSpec
from runners.pipeline import Format
from runners.planning.machines import MACHINES, Machine
from runners.spec import ServeSpec
from runners.training.shape import GIB, QWEN2_14B, Shape, bytes_read_per_token, linear_bytes_per_parameter, resident_bytes

#: Activations, CUDA graphs and the runtime on each card; not measured here.
OVERHEAD_GIB = 1.6
#: A decoding step is (bytes / bandwidth) / REACHED + OVERHEAD: fitted to 29 tokens/s on an L4 and 1.5 s for 140 tokens on an A100-40, neither measured here.
BANDWIDTH_REACHED, STEP_OVERHEAD_MS = 0.945, 4.8
#: Two all-reduces a block over PCIe for each further card, 30 us each; not measured.
_ALL_REDUCE_MS = 0.03
#: Share of the data sheet's FLOP/s in prefill.
_PREFILL_UTILISATION = 0.4
#: Tokens a step where nobody measured them: published figures on questions and answers (ngram: on CPU here, 36 of 80 drafted tokens; EAGLE-3:
#: speculators #610), not measured on a card. A draft model is assumed to do as well as EAGLE-3.
ASSUMED_ACCEPTED = {"ngram": 1.5, "draft": 2.0, "eagle3": 2.0}
ASSUMED = "assumed"
#: A 0.5B draft model in bf16, where the plan knows no draft by its size; assumed. A head follows from the model's shape.
_DRAFT_GIB = 1.0
#: Its keys and values of a token: 24 layers of 2 heads of 64, as Qwen2.5-0.5B has.
_DRAFT_CACHE_BYTES = 2 * 24 * 2 * 64 * 2
#: What a step costs that checks what the prompt drafts, or what a model drafts whose weights are read once for each drafted token; assumed.
_PROMPT_COST, _CHECKING_COST = 1.25, 1.1


@dataclass(frozen=True)
class Answers:
    """What a request looks like: the mean answer of the corpus has 614 characters, 140 tokens."""

    prompt_tokens: int = 150
    answer_tokens: int = 140


ANSWERS = Answers()


@dataclass(frozen=True)
class TokensAStep:
    """What a step yields with speculative decoding: over all answers, in the categories with the fewest and the most, and who says so."""

    mean: float
    fewest: float
    most: float
    source: str


@dataclass(frozen=True)
class ModelToServe:
    """What is known of a model before it is served. ``copies`` is 2 where the server merges an adapter by itself."""

    shape: Shape = QWEN2_14B
    format: Format = "awq"
    copies: int = 1


@dataclass(frozen=True)
class ServingPlan:
    """What serving takes and gives on a machine. GiB are per card."""

    format: Format
    dtype: str
    cards: int
    weights_gib: float
    overhead_gib: float
    cache_gib: float
    usable_gib: float
    cache_tokens: int
    floor_ms: float
    expected_ms: float
    floor_step_ms: float
    expected_step_ms: float
    prefill_ms: float
    plain_step_ms: float
    speculation_cost: float
    tokens_a_step: TokensAStep | None
    fastest_ms: float
    slowest_ms: float

    @property
    def fits(self) -> bool:
        """Whether anything is left for the cache."""
        return self.cache_tokens > 0

    @property
    def floor_tokens_per_s(self) -> float:
        """Tokens a second of one stream at the very best."""
        return 1000 / self.floor_step_ms

    @property
    def expected_tokens_per_s(self) -> float:
        """Tokens a second of one stream to expect."""
        return 1000 / self.expected_step_ms


def cache_bytes_per_token(shape: Shape, spec: ServeSpec) -> float:
    """Keys and values of a token on each card: the model's, shared out, and those of what drafts, whole."""
    return (shape.kv_bytes_per_token / spec.tensor_parallel + _draft_cache_bytes(shape, spec)) / (2 if spec.kv_cache_dtype == "fp8" else 1)


def plan_serving(
    shape: Shape, format: Format, machine: Machine, spec: ServeSpec, answers: Answers, group_size: int = 128, measured: TokensAStep | None = None
) -> ServingPlan:
    """Divide the cards' memory and the step's bytes; every card holds 1/tensor_parallel of the weights.

    Args:
        measured: tokens a step of an evaluation; left out, the spec's figure or an assumption. Without speculation there are none.
    """
    cards = spec.tensor_parallel
    usable = machine.accelerator.memory_gib * spec.gpu_memory_fraction
    weights = resident_bytes(shape, format, group_size) / GIB / cards + _draft_gib(shape, spec)
    cache = usable - weights - OVERHEAD_GIB
    per_token = cache_bytes_per_token(shape, spec)
    floor_step = bytes_read_per_token(shape, format, group_size) / cards / (machine.accelerator.bandwidth_gb_s * 1e6)
    plain = expected_step_ms(floor_step, shape, cards)
    tokens = (measured or tokens_a_step(spec)) if spec.speculation else None
    cost = _speculation_cost(shape, spec, floor_step * machine.accelerator.bandwidth_gb_s * 1e6)
    # Each step checks several tokens for the bytes of one, and costs a little more.
    step, fastest, slowest = (plain * cost / each for each in (tokens.mean, tokens.most, tokens.fewest)) if tokens else (plain, plain, plain)
    floor_step /= tokens.mean if tokens else 1.0
    prefill = (
        2 * (shape.linear_parameters + shape.embedding_parameters) * answers.prompt_tokens / (machine.accelerator.tflops * cards * _PREFILL_UTILISATION * 1e9)
    )
    return ServingPlan(
        format=format,
        dtype=spec.dtype if spec.dtype != "auto" else ("bfloat16" if machine.accelerator.has_bf16 else "float16"),
        cards=cards,
        weights_gib=weights,
        overhead_gib=OVERHEAD_GIB,
        cache_gib=max(cache, 0.0),
        usable_gib=usable,
        cache_tokens=max(0, int(cache * GIB / per_token)),
        floor_ms=floor_step * answers.answer_tokens,
        expected_ms=step * answers.answer_tokens + prefill,
        floor_step_ms=floor_step,
        expected_step_ms=step,
        prefill_ms=prefill,
        plain_step_ms=plain,
        speculation_cost=cost,
        tokens_a_step=tokens,
        fastest_ms=fastest * answers.answer_tokens + prefill,
        slowest_ms=slowest * answers.answer_tokens + prefill,
    )


def with_share(spec: ServeSpec, models: tuple[ModelToServe, ...], machine: Machine, group_size: int = 128) -> ServeSpec:
    """The spec with the second model's part of ``gpu_memory_fraction``, where it has a second.

    What weights and overhead leave is divided so that both caches hold as many of their longest requests: two models that fit a card in any way fit so.
    """
    if spec.second is None:
        return spec
    specs, card_gib = spec.models(), machine.accelerator.memory_gib
    held = [
        resident_bytes(model.shape, model.format, group_size) / GIB / one.tensor_parallel + _draft_gib(model.shape, one) + OVERHEAD_GIB
        for model, one in zip(models, specs, strict=True)
    ]
    longest = [cache_bytes_per_token(model.shape, one) * one.max_model_tokens for model, one in zip(models, specs, strict=True)]
    second_gib = held[1] + max(0.0, card_gib * spec.gpu_memory_fraction - sum(held)) * longest[1] / sum(longest)
    # Too large a model is refused by its own figures, not by a share above the whole.
    share = min(round(second_gib / card_gib, 3), spec.gpu_memory_fraction)
    return spec.model_copy(update={"second": spec.second.model_copy(update={"gpu_memory_fraction": share})})


def tokens_a_step(spec: ServeSpec) -> TokensAStep | None:
    """What the spec says, else an assumption for its method, which may hold for no question at all; None without speculation."""
    if spec.speculation is None:
        return None
    if said := spec.speculation.accepted_tokens:
        return TokensAStep(said, said, said, "serve.speculation.accepted_tokens")
    assumed = ASSUMED_ACCEPTED[spec.speculation.method]
    return TokensAStep(assumed, 1.0, assumed, ASSUMED)


def tokens_a_step_needed(target_ms: float, plan: ServingPlan, answers: Answers) -> float | None:
    """Tokens that a step with speculation has to yield for a mean latency; None where reading the question takes that long already."""
    left = target_ms - plan.prefill_ms
    return plan.plain_step_ms * plan.speculation_cost * answers.answer_tokens / left if left > 0 else None


def head_parameters(shape: Shape, words: int) -> int:
    """Parameters of an EAGLE-3 head (``training/eagle.py``) that can draft so many words: 434 M for the 14B and 8,192 of them. Its embedding is the model's."""
    hidden, attention, cache = shape.hidden, shape.heads * shape.head_size, shape.kv_heads * shape.head_size
    layer = 2 * hidden * (attention + 2 * cache) + attention * hidden + 3 * hidden * shape.intermediate
    return 3 * hidden * hidden + layer + min(words, shape.vocabulary) * hidden


def head_bytes(shape: Shape, head: HeadSpec) -> float:
    """Weights of a head as it is published: 0.29 GB for the 14B, 0.87 in bf16. In 4 bits its output layer stays in 16, as the model's does."""
    parameters, output = head_parameters(shape, head.draft_vocabulary), min(head.draft_vocabulary, shape.vocabulary) * shape.hidden
    return (parameters - output) * linear_bytes_per_parameter("awq" if head.bits == 4 else "bf16") + 2.0 * output


def head_training_gb(shape: Shape, head: HeadSpec) -> float:
    """GB of a card that training a head takes: the model in bf16, 16 bytes of each of the head's parameters, and 6 GB for one example; not measured."""
    return (2 * shape.parameters + 16 * head_parameters(shape, head.draft_vocabulary)) / 1e9 + 6.0


def _draft_gib(shape: Shape, spec: ServeSpec) -> float:
    """What drafts, whole on each card: the size of what is published; where that is not known, a 0.5B model or a head as it is made by default."""
    if spec.speculation is None or spec.speculation.method == "ngram":
        return 0.0
    if spec.speculation.model_bytes:
        return spec.speculation.model_bytes / GIB
    return _DRAFT_GIB if spec.speculation.method == "draft" else head_bytes(shape, HeadSpec()) / GIB


def _draft_cache_bytes(shape: Shape, spec: ServeSpec) -> float:
    """Keys and values of a token of what drafts; where its config.json is not known, those of a 0.5B model, or of a head, which is one layer of the model."""
    if spec.speculation is None or spec.speculation.method == "ngram":
        return 0.0
    if spec.speculation.token_cache_bytes:
        return spec.speculation.token_cache_bytes
    return _DRAFT_CACHE_BYTES if spec.speculation.method == "draft" else shape.kv_bytes_per_token / shape.layers


def _speculation_cost(shape: Shape, spec: ServeSpec, step_bytes: float) -> float:
    """What a step that drafts takes, as a multiple of one that does not and reads so many bytes on a card."""
    if spec.speculation is None or spec.speculation.method == "ngram":
        return _PROMPT_COST
    return _CHECKING_COST + spec.speculation.draft_tokens * _draft_gib(shape, spec) * GIB / step_bytes


def expected_step_ms(floor_step_ms: float, shape: Shape, cards: int) -> float:
    """A step to expect from a step's floor."""
    return floor_step_ms / BANDWIDTH_REACHED + STEP_OVERHEAD_MS + 2 * shape.layers * _ALL_REDUCE_MS * (cards - 1)


def what_would_meet(target_ms: float, shape: Shape, format: Format, plan: ServingPlan, machine: Machine, spec: ServeSpec, answers: Answers) -> tuple[str, ...]:
    """Ways to a mean latency of ``target_ms``, each with its number."""
    left, needed = target_ms - plan.prefill_ms, tokens_a_step_needed(target_ms, plan, answers)
    ways = []
    if needed:
        tokens = int(left / plan.expected_step_ms)
        ways.append(f"answers of about {tokens} tokens instead of {answers.answer_tokens}")
        floor = bytes_read_per_token(shape, format, head_bytes_per_parameter=0.52) / plan.cards / (machine.accelerator.bandwidth_gb_s * 1e6)
        accepted = expected_step_ms(floor, shape, plan.cards) * answers.answer_tokens / left * plan.speculation_cost
        ways.append(f"speculative decoding with about {needed:.1f} tokens a step, or {accepted:.1f} and an int4 output layer")
    faster = []
    for other in MACHINES.values():
        if other.count > 2 or other.accelerator.capability < machine.accelerator.capability[:1]:
            continue
        parallel = spec.model_copy(update={"tensor_parallel": other.count})
        there = plan_serving(shape, format, other, parallel, answers, measured=plan.tokens_a_step)
        if there.fits and there.expected_ms <= target_ms:
            faster.append(f"{other.name} ({other.accelerator.name}: about {there.expected_ms / 1000:.1f} s)")
    if faster:
        ways.append("a card with more bandwidth: " + ", ".join(faster))
    return tuple(ways)
