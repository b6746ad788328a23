"""Attention over packed sequences: each token sees only its own example, and no T x T mask is made.

``prepare()`` names the implementation a device gets:

* CPU: scaled dot-product attention once per sequence (``elson_segments``). The work grows with the sum of squares of
  the lengths, not with the square of the sum, so a long micro-batch costs no more than a short one per token.
* CUDA: torch's own variable-length flash attention (``elson_varlen``), once a small trial on the very card has given
  the masked attention's numbers; otherwise
* ``sdpa``: transformers builds a block mask out of ``position_ids``. Correct everywhere, T x T memory.

Sliding windows are kept: each mask that transformers asks for says how wide its layers see. Refused, and not left out: attention
sinks (GPT-OSS), soft-capped scores (Gemma-2), chunks (Llama-4), dropout. ``tests/torch/test_architectures.py`` has the list.
"""

from __future__ import annotations

import functools
import inspect
import itertools
from typing import Any

from runners import log
from runners.errors import UserError

SEGMENTS, VARLEN, MASKED = "elson_segments", "elson_varlen", "sdpa"


def prepare(device: str) -> str:
    """Register the implementations with transformers and name the one for ``device``."""
    from transformers import AttentionInterface
    from transformers.masking_utils import AttentionMaskInterface

    for name, function in ((SEGMENTS, _segments), (VARLEN, _varlen)):
        AttentionInterface.register(name, function)
        AttentionMaskInterface.register(name, _no_mask)
    if device == "cpu":
        return SEGMENTS
    return VARLEN if device == "cuda" and _varlen_works() else MASKED


def sequence_arguments(lengths: list[int], device: Any) -> dict[str, Any]:
    """What a packed micro-batch passes to the model beside ``input_ids``: positions, and where each sequence begins.

    ``position_ids`` is [1, T] and starts at 0 for each sequence: it turns the rotary embedding back to the beginning, and
    is what transformers reads the borders from when the implementation is ``sdpa``.
    """
    positions = put([[position for length in lengths for position in range(length)]], device)
    borders = put([0, *itertools.accumulate(lengths)], device).int()
    return {"position_ids": positions, "cu_seq_lens_q": borders, "cu_seq_lens_k": borders, "max_length_q": max(lengths), "max_length_k": max(lengths)}


def put(values: Any, device: Any) -> Any:
    """Numbers as a tensor on ``device``. A card gets them from pinned memory: an ordinary copy would wait for everything the card still has to do."""
    import torch

    tensor = torch.tensor(values, device="cpu")
    return tensor.pin_memory().to(device, non_blocking=True) if torch.device(device).type == "cuda" else tensor.to(device)


class Window(int):
    """Passed through the model in place of a mask: a token sees itself and so many tokens less one before it."""


def _no_mask(*_args: Any, local_size: int | None = None, config: Any = None, **_more: Any) -> Window | None:
    """No mask is needed: the kernel gets the sequences' boundaries, and the window of a layer that has one."""
    if local_size is not None and local_size == getattr(config, "attention_chunk_size", None):
        raise _refused("attention in chunks")
    return None if local_size is None else Window(local_size)


def _refused(what: str) -> UserError:
    return UserError(f"this model has {what}", "plain causal attention, or sliding windows", "choose another base model, or set train.packing: false")


def _window(mask: Any, more: dict[str, Any]) -> int | None:
    """The width a layer sees, None for all. Raises UserError where leaving something out would make another model."""
    if more.get("s_aux") is not None:
        raise _refused("attention sinks")
    if more.get("softcap") is not None:
        raise _refused("soft-capped attention scores")
    if more.get("dropout"):
        raise _refused("attention dropout")
    if more.get("is_causal") is False or not (mask is None or isinstance(mask, Window)):
        raise _refused("a mask of its own")
    return mask


def _segments(module: Any, query: Any, key: Any, value: Any, attention_mask: Any, scaling: float | None = None, **more: Any) -> tuple[Any, None]:
    """[1, heads, T, d] queries and [1, kv_heads, T, d] keys and values -> [1, T, heads, d]."""
    import torch
    from torch.nn.functional import scaled_dot_product_attention

    borders, window = more.get("cu_seq_lens_q"), _window(attention_mask, more)
    groups = getattr(module, "num_key_value_groups", 1)
    key, value = (tensor.repeat_interleave(groups, 1) if groups > 1 else tensor for tensor in (key, value))
    sizes = [query.shape[2]] if borders is None else borders.diff().tolist()
    parts = zip(*(tensor.split(sizes, dim=2) for tensor in (query, key, value)), strict=True)
    done = [scaled_dot_product_attention(q, k, v, scale=scaling, **_causal(q, window)) for q, k, v in parts]
    return torch.cat(done, dim=2).transpose(1, 2), None


def _causal(query: Any, window: int | None) -> dict[str, Any]:
    tokens = query.shape[2]
    if window is None or tokens <= window:
        return {"is_causal": True}
    return {"attn_mask": query.new_ones(tokens, tokens, dtype=bool).tril().triu(1 - window)}


def _varlen(module: Any, query: Any, key: Any, value: Any, attention_mask: Any, scaling: float | None = None, **more: Any) -> tuple[Any, None]:
    """The same, in one kernel."""
    from torch.nn.attention.varlen import varlen_attn

    borders = more.get("cu_seq_lens_q")
    if borders is None or query.dtype.itemsize > 2:  # flash attention has no fp32
        return _segments(module, query, key, value, attention_mask, scaling, **more)
    window = _window(attention_mask, more)
    flat = [tensor[0].transpose(0, 1).contiguous() for tensor in (query, key, value)]
    longest = more["max_length_q"]
    # torch 2.11 takes fewer heads of keys than of queries without being told; later versions must be told.
    grouped = {"enable_gqa": flat[0].shape[1] != flat[1].shape[1]} if "enable_gqa" in _parameters(varlen_attn) else {}
    found = varlen_attn(*flat, borders, borders, longest, longest, scale=scaling, window_size=(-1 if window is None else window - 1, 0), **grouped)
    return found[None], None


@functools.cache
def _parameters(function: Any) -> frozenset[str]:
    return frozenset(inspect.signature(function).parameters)


def _varlen_works() -> bool:
    """Try the kernel, forward and backward, on 3 sequences on this card against the masked form in fp32."""
    import torch

    class Layer:
        num_key_value_groups = 4

    try:
        torch.manual_seed(0)
        sizes = [(8, 96), (2, 96), (2, 96)]
        tensors = [torch.randn(1, heads, tokens, 128, device="cuda", dtype=torch.bfloat16, requires_grad=True) for heads, tokens in sizes]
        wide = [tensor.detach().float().requires_grad_() for tensor in tensors]
        arguments = sequence_arguments([17, 50, 29], "cuda")
        (q, k, v), (q32, k32, v32) = tensors, wide
        ours, theirs = _varlen(Layer(), q, k, v, None, **arguments)[0], _segments(Layer(), q32, k32, v32, None, **arguments)[0]
        ours.float().square().sum().backward()
        theirs.square().sum().backward()
        pairs = [(ours, theirs), *((one.grad, two.grad) for one, two in zip(tensors, wide, strict=True))]
        worst = max(float((one.float() - two).abs().max() / two.abs().max()) for one, two in pairs)
    except (RuntimeError, ImportError, AttributeError, NotImplementedError, TypeError) as error:
        log.warning("variable-length flash attention does not run here: attention falls back to a mask", error=str(error)[:200])
        return False
    if worst > 0.03:
        log.warning("variable-length flash attention is wrong on this card: attention falls back to a mask", relative_error=worst)
    return worst <= 0.03
