"""A frozen base model with an adapter on it, and the loss of a micro-batch of examples through it.

Precision: in bf16 the frozen weights are bf16 and products run in bf16 (autocast), while the adapter, its gradient and
Adam's moments stay in fp32: an update of 2e-4 would vanish in bf16's eight bits.
"""

from __future__ import annotations

import contextlib
import ctypes
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any, Literal

import torch

from runners.errors import UserError
from runners.spec import TrainSpec
from runners.training import attention, dora
from runners.training.examples import Example
from runners.training.loss import summed_cross_entropy
from runners.training.precision import compute_dtype

#: Outputs that are not `hidden @ weight.T`: the chunked loss would be of another model.
_BENT_OUTPUTS = ("final_logit_softcapping", "logits_scaling", "logit_scale")


def load_base(base: Path, precision: Literal["bf16", "fp32"], device: str, implementation: str = "sdpa") -> Any:
    """The frozen base model. Raises UserError when the folder is not a model this loop can train."""
    from transformers import AutoModelForCausalLM

    with _read_as_a_model(base):
        model = AutoModelForCausalLM.from_pretrained(str(base), **_how(device, precision, implementation), local_files_only=True, device_map={"": device})
    _refuse_bent(base, model.config)
    check_loss(base, model.requires_grad_(False), implementation)
    return model


def read_config(base: Path) -> Any:
    """The configuration of a base model. Raises UserError when the folder has none that can be read."""
    from transformers import AutoConfig

    with _read_as_a_model(base):
        return AutoConfig.from_pretrained(str(base), local_files_only=True)


def without_memory(base: Path, precision: Literal["bf16", "fp32"], device: str, implementation: str = "sdpa") -> Any:
    """The frozen base model with weights on ``meta``: shapes, and no values. Raises UserError as ``load_base``."""
    from accelerate import init_empty_weights
    from transformers import AutoModelForCausalLM

    config = read_config(base)
    _refuse_bent(base, config)
    # Buffers are computed, not read: they get their values here.
    with _read_as_a_model(base), init_empty_weights(include_buffers=False):
        return AutoModelForCausalLM.from_config(config, **_how(device, precision, implementation)).requires_grad_(False)


def _how(device: str, precision: Literal["bf16", "fp32"], implementation: str) -> dict[str, Any]:
    return {"dtype": compute_dtype(device, precision), "attn_implementation": implementation}


@contextlib.contextmanager
def _read_as_a_model(base: Path) -> Iterator[None]:
    from transformers.utils import logging

    logging.disable_progress_bar()
    try:
        yield
    except (OSError, ValueError) as error:
        raise UserError(
            f"{base} cannot be loaded as a model: {str(error)[:300]}",
            "config.json and *.safetensors of a causal language model",
            "elson base make smollm2 --out DIR",
        ) from None


def _refuse_bent(base: Path, config: Any) -> None:
    if bent := [name for name in _BENT_OUTPUTS if getattr(config, name, None) not in (None, 1, 1.0)]:
        raise _refused(base, f"changes its logits after the output layer ({', '.join(bent)})")


def _refused(base: Path, found: str) -> UserError:
    expected = "a model whose logits are a plain product of its last hidden states (Qwen2, Qwen3, Llama, Mistral, Phi, SmolLM2)"
    return UserError(f"{base} {found}", expected, "choose another base model")


def check_loss(base: Path, model: Any, implementation: str) -> None:
    """Compute one loss as this loop does and as transformers does, with its own attention. Raises UserError when they differ.

    Whatever a new architecture does to its attention or its logits that is not known here would train another model without a word.
    """
    generator = torch.Generator().manual_seed(0)
    sizes = [24, 17]
    rows = [Example(str(size), tuple(torch.randint(model.config.vocab_size, (size,), generator=generator).tolist()), 1) for size in sizes]
    with torch.no_grad():
        ours = float(summed_loss(model, rows, packed=implementation != "sdpa"))
        model.set_attn_implementation("eager")
        device, theirs = model.get_output_embeddings().weight.device, 0.0
        for row in rows:
            ids = torch.tensor([row.token_ids], device=device)
            theirs += float(torch.nn.functional.cross_entropy(model(input_ids=ids, use_cache=False).logits[0, :-1].float(), ids[0, 1:], reduction="sum"))
        model.set_attn_implementation(implementation)
    if not abs(ours - theirs) <= (1e-4 if model.dtype == torch.float32 else 0.02) * abs(theirs):
        raise _refused(base, f"is computed differently by this loop: a loss of {ours:.6g}, and by transformers of {theirs:.6g}")


def load(base: Path, settings: TrainSpec, name: str, device: str, implementation: str) -> Any:
    """The base model with a fresh adapter. Raises UserError when the folder is not a model this loop can train."""
    return with_new_adapter(load_base(base, settings.precision, device, implementation), settings, name)


def with_new_adapter(model: Any, settings: TrainSpec, name: str) -> Any:
    """Put a fresh adapter on a base model (its name is what the adapter's files say they belong to)."""
    from peft import LoraConfig, get_peft_model

    linear = {path.rpartition(".")[2] for path, module in model.named_modules() if isinstance(module, torch.nn.Linear)} - {"lm_head"}
    if unknown := set(settings.target_modules) - linear:
        raise UserError(f"train.target_modules names {sorted(unknown)}", f"some of this model's linear layers: {sorted(linear)}", "edit train.target_modules")
    config = LoraConfig(
        r=settings.rank,
        lora_alpha=settings.alpha,
        lora_dropout=settings.dropout,
        use_dora=settings.adapter == "dora",
        target_modules=list(settings.target_modules),
        task_type="CAUSAL_LM",
    )
    adapted = get_peft_model(model, config)
    adapted.peft_config["default"].base_model_name_or_path = name
    return _prepared(adapted)


def _prepared(adapted: Any) -> Any:
    for module in adapted.modules():
        # peft widens each layer's input to the adapter's fp32 and autocast narrows it again: two copies for nothing.
        if hasattr(module, "lora_A"):
            module.cast_input_dtype_enabled = False
    dora.install(adapted)
    # peft takes each layer's first norm from the whole product B @ A; glibc keeps what that freed (0.4 GiB of a model of 0.5).
    with contextlib.suppress(OSError, AttributeError):
        ctypes.CDLL("libc.so.6").malloc_trim(0)
    return adapted


def checkpoint_activations(adapted: Any, *, on: bool = True) -> None:
    """Keep only the input of each decoder layer, and repeat the layer's forward in the backward; or no longer."""
    causal = adapted.get_base_model()
    # transformers 5.17 has only the older name.
    word = "activation" if hasattr(causal, "activation_checkpointing_enable") else "gradient"
    if on:
        getattr(causal, f"{word}_checkpointing_enable")({"use_reentrant": False})
    else:
        getattr(causal, f"{word}_checkpointing_disable")()


def autocast(model: Any) -> Any:
    """bf16 products for a bf16 base; nothing for an fp32 one."""
    first = next(model.parameters())
    base_dtype = model.get_input_embeddings().weight.dtype
    return torch.autocast(first.device.type, torch.bfloat16) if base_dtype == torch.bfloat16 else contextlib.nullcontext()


def summed_loss(model: Any, examples: Sequence[Example], *, packed: bool, full_sequence: bool = False, divisor: float = 1.0) -> torch.Tensor:
    """Sum of the cross-entropy over the answer tokens of a micro-batch, over ``divisor`` (the answer tokens of the step).

    Args:
        model: a transformers or peft causal language model.
        examples: what goes through together.
        packed: one row without padding, else a padded rectangle.
        divisor: what the sum is divided by; not by the caller, see ``summed_cross_entropy``.
        full_sequence: take the loss on the question as well (measured in TRAINING.md, not offered in the spec).

    Returns:
        a scalar in fp32.
    """
    causal = model.get_base_model() if hasattr(model, "get_base_model") else model
    output = causal.get_output_embeddings()
    with autocast(causal):
        hidden = _hidden_packed(causal, examples) if packed else _hidden_padded(causal, examples)
        starts = [1 if full_sequence else example.answer_start for example in examples]
        # Position t predicts token t + 1.
        states = torch.cat([one[start - 1 : len(example) - 1] for one, example, start in zip(hidden, examples, starts, strict=True)])
        targets = attention.put([token for example, start in zip(examples, starts, strict=True) for token in example.token_ids[start:]], output.weight.device)
        return summed_cross_entropy(states, output.weight, targets, divisor=divisor, bias=getattr(output, "bias", None))


def _hidden_packed(causal: Any, examples: Sequence[Example]) -> Sequence[torch.Tensor]:
    device = causal.get_output_embeddings().weight.device
    lengths = [len(example) for example in examples]
    ids = attention.put([[token for example in examples for token in example.token_ids]], device)
    found = causal.base_model(input_ids=ids, use_cache=False, **attention.sequence_arguments(lengths, device))
    return list(torch.split(found.last_hidden_state[0], lengths))


def _hidden_padded(causal: Any, examples: Sequence[Example]) -> Sequence[torch.Tensor]:
    device = causal.get_output_embeddings().weight.device
    longest = max(len(example) for example in examples)
    ids = torch.tensor([[*example.token_ids, *[0] * (longest - len(example))] for example in examples], device=device)
    mask = torch.tensor([[1] * len(example) + [0] * (longest - len(example)) for example in examples], device=device)
    found = causal.base_model(input_ids=ids, attention_mask=mask, use_cache=False)
    return list(found.last_hidden_state)
