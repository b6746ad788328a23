"""An EAGLE-3 head: one decoder layer that drafts a model's next tokens out of the model's own hidden states (https://arxiv.org/abs/2503.01840).

At position j the head sees the embedding of token j + 1 beside three hidden states of the model at j (a low, a middle and a high layer, projected to one),
and predicts token j + 2. For the tokens after that it reads its own last state in place of the model's, which is what a server does between two checks; the
training does the same (``later steps`` below), so the head learns to go on from its own mistakes.

The folder it is written to is what vLLM loads (``LlamaForCausalLMEagle3``): the embedding is the model's and is not written, and the output layer has a
vocabulary of its own, ``d2t`` words of the model's. Training and gate are ``runners/compression/head.py``, its form in 4 bits ``packed_head.py``.
"""

from __future__ import annotations

import json
import shutil
from collections import Counter
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import torch
from torch.nn import functional as F

from runners.errors import UserError
from runners.training.examples import Example

ARCHITECTURE = "LlamaForCausalLMEagle3"
WEIGHTS = "model.safetensors"


def layers_of(count: int) -> tuple[int, int, int]:
    """Which hidden states the head sees: 0 is the embedding, i what layer i - 1 gives. vLLM's own choice; all there are of a model of few layers."""
    return (2, count // 2, count - 3) if count >= 8 else (0, count // 2, count)


def draft_vocabulary(examples: Sequence[Example], words: int, size: int) -> list[int]:
    """The ``size`` ids that the head can draft, ascending: the most frequent of the answers, then of the questions, then the lowest (a BPE's most frequent)."""
    answers = Counter(token for example in examples for token in example.token_ids[example.answer_start :])
    questions = Counter(token for example in examples for token in example.token_ids[: example.answer_start])
    order = sorted(range(words), key=lambda word: (-answers[word], -questions[word], word))
    return sorted(order[: min(size, words)])


def config_of(model: dict[str, Any], draft_words: int) -> dict[str, Any]:
    """config.json of a head for a model with this config.json, as vLLM reads it. Raises UserError for a model without three layers to look at."""
    layers = layers_of(model["num_hidden_layers"])
    if len(set(layers)) < 3:
        raise UserError(f"the model has {model['num_hidden_layers']} layer", "at least two: an EAGLE-3 head reads three hidden states", "leave head out")
    heads = model["num_attention_heads"]
    rope = model.get("rope_parameters") or {"rope_theta": model.get("rope_theta", 10_000.0), "rope_type": "default"}
    return {
        "architectures": [ARCHITECTURE],
        "model_type": "llama",
        "hidden_size": model["hidden_size"],
        "intermediate_size": model["intermediate_size"],
        "num_hidden_layers": 1,
        "num_attention_heads": heads,
        "num_key_value_heads": model.get("num_key_value_heads") or heads,
        "head_dim": model.get("head_dim") or model["hidden_size"] // heads,
        "vocab_size": model["vocab_size"],
        "draft_vocab_size": draft_words,
        "max_position_embeddings": model["max_position_embeddings"],
        "rms_norm_eps": model["rms_norm_eps"],
        "rope_parameters": rope,
        "hidden_act": "silu",
        "attention_bias": False,
        "mlp_bias": False,
        "tie_word_embeddings": False,
        "dtype": "bfloat16",
        "eagle_aux_hidden_state_layer_ids": list(layers),
    }


class Head(torch.nn.Module):  # type: ignore[misc]  # torch is in its own environment
    """The head's weights, named as vLLM names them. Everything is fp32 while it is trained."""

    def __init__(self, config: dict[str, Any]) -> None:
        super().__init__()
        from transformers import LlamaConfig
        from transformers.models.llama.modeling_llama import LlamaRotaryEmbedding

        self.config = config
        hidden, inner, eps = config["hidden_size"], config["intermediate_size"], config["rms_norm_eps"]
        self.heads, self.kv_heads, self.size = config["num_attention_heads"], config["num_key_value_heads"], config["head_dim"]

        def linear(inputs: int, outputs: int) -> torch.nn.Linear:
            made = torch.nn.Linear(inputs, outputs, bias=False)
            torch.nn.init.normal_(made.weight, std=inputs**-0.5)
            return made

        norm = torch.nn.RMSNorm
        self.fc = linear(3 * hidden, hidden)
        self.midlayer = torch.nn.ModuleDict(
            {
                "hidden_norm": norm(hidden, eps),
                "input_layernorm": norm(hidden, eps),
                "post_attention_layernorm": norm(hidden, eps),
                "self_attn": torch.nn.ModuleDict(
                    {
                        "q_proj": linear(2 * hidden, self.heads * self.size),
                        "k_proj": linear(2 * hidden, self.kv_heads * self.size),
                        "v_proj": linear(2 * hidden, self.kv_heads * self.size),
                        "o_proj": linear(self.heads * self.size, hidden),
                    }
                ),
                "mlp": torch.nn.ModuleDict({"gate_proj": linear(hidden, inner), "up_proj": linear(hidden, inner), "down_proj": linear(inner, hidden)}),
            }
        )
        self.norm = norm(hidden, eps)
        self.lm_head = linear(hidden, config["draft_vocab_size"])
        self.register_buffer("words", torch.arange(config["draft_vocab_size"]))  # the model's id of each word of the head
        self.rotary = LlamaRotaryEmbedding(LlamaConfig(**config))

    def forward(self, embeddings: torch.Tensor, states: torch.Tensor, start: int, steps: int) -> Iterator[torch.Tensor]:
        """Logits over the head's words: for each step [N, words], of positions j = ``start`` .. ``start`` + N - 1, which predict token j + 2 + step.

        Args:
            embeddings: [T, hidden], of one example's tokens, by the model.
            states: [T, 3 hidden], the model's hidden states (``watched``).
            start: the first position that drafts; those before it are read only.
            steps: tokens drafted one after the other. N = T - 1 - ``start``; what a step predicts beyond the example's end means nothing.
        """
        total = len(embeddings)
        count = total - 1 - start
        drafting = torch.arange(start, start + count, device=embeddings.device)
        projected = self.fc(states[: total - 1])
        inputs = self._inputs(embeddings[1:], projected)
        keys, values = self._keys(inputs, torch.arange(total - 1, device=embeddings.device))
        seen = torch.arange(total - 1, device=embeddings.device) <= drafting[:, None]
        inputs, residual, own = inputs[start:], projected[start:], []
        for step in range(steps):
            if step:
                tokens = (drafting + 1 + step).clamp(max=total - 1)
                inputs = self._inputs(embeddings[tokens], residual)
                own.append(self._keys(inputs, drafting + step))
            residual = residual + self._attended(inputs, drafting + step, keys, values, seen, own)
            mlp, normed = self.midlayer["mlp"], self.midlayer["post_attention_layernorm"](residual)
            residual = residual + mlp["down_proj"](F.silu(mlp["gate_proj"](normed)) * mlp["up_proj"](normed))
            yield self.lm_head(self.norm(residual))

    def _inputs(self, embeddings: torch.Tensor, states: torch.Tensor) -> torch.Tensor:
        return torch.cat([self.midlayer["input_layernorm"](embeddings), self.midlayer["hidden_norm"](states)], -1)

    def _keys(self, inputs: torch.Tensor, positions: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        attention, groups = self.midlayer["self_attn"], self.heads // self.kv_heads
        keys, values = (self._split(attention[name](inputs), self.kv_heads) for name in ("k_proj", "v_proj"))
        return self._turned(keys, positions).repeat_interleave(groups, 0), values.repeat_interleave(groups, 0)

    def _attended(self, inputs: torch.Tensor, positions: torch.Tensor, keys: torch.Tensor, values: torch.Tensor, seen: torch.Tensor, own: Any) -> torch.Tensor:
        """Attention over what the model has checked, up to j, and over what this very draft has said since: one key of each later step."""
        attention = self.midlayer["self_attn"]
        queries = self._turned(self._split(attention["q_proj"](inputs), self.heads), positions) * self.size**-0.5
        checked = (queries @ keys.transpose(1, 2)).masked_fill(~seen, float("-inf"))
        since = [(queries * key).sum(-1, keepdim=True) for key, _ in own]
        weights = torch.cat([checked, *since], -1).float().softmax(-1).to(values.dtype)
        found = weights[..., : keys.shape[1]] @ values
        for place, (_, value) in enumerate(own, start=keys.shape[1]):
            found = found + weights[..., place, None] * value
        return attention["o_proj"](found.transpose(0, 1).flatten(1))

    def _split(self, flat: torch.Tensor, heads: int) -> torch.Tensor:
        return flat.unflatten(-1, (heads, self.size)).transpose(0, 1)

    def _turned(self, vectors: torch.Tensor, positions: torch.Tensor) -> torch.Tensor:
        cos, sin = self.rotary(vectors, positions[None])
        half = self.size // 2
        return vectors * cos[0] + torch.cat([-vectors[..., half:], vectors[..., :half]], -1) * sin[0]


def new(model: Any, words: Sequence[int]) -> Head:
    """A head that was not trained: final norm and output layer are the model's, for the head's words; the rest is random."""
    head = Head(config_of(model.config.to_dict(), len(words)))
    head.words = torch.tensor(words)
    with torch.no_grad():
        head.lm_head.weight.copy_(model.get_output_embeddings().weight[list(words)].float())
        head.norm.weight.copy_(model.base_model.norm.weight.float())
    moved: Head = head.to(model.device)
    return moved


@contextmanager
def watched(model: Any, layers: Sequence[int]) -> Iterator[list[torch.Tensor]]:
    """A list that each forward of the model fills: [1, T, hidden] of the embedding (first), then of each of ``layers``."""
    seen: list[torch.Tensor] = []

    def keep(_module: Any, _inputs: Any, output: Any) -> None:
        seen.append(output[0] if isinstance(output, tuple) else output)

    def begin(*_: Any) -> None:
        seen.clear()

    decoder = model.base_model
    hooks = [model.register_forward_pre_hook(begin), decoder.embed_tokens.register_forward_hook(keep)]
    if layers[0] == 0:
        hooks.append(decoder.embed_tokens.register_forward_hook(keep))
    hooks += [decoder.layers[number - 1].register_forward_hook(keep) for number in layers if number]
    try:
        yield seen
    finally:
        for hook in hooks:
            hook.remove()


def write(head: Head, dest: Path) -> Path:
    """Write a head in bf16, complete or not at all."""
    from safetensors.torch import save_file

    partial = dest.parent / f".{dest.name}.partial"
    shutil.rmtree(partial, ignore_errors=True)
    partial.mkdir(parents=True)
    tensors = {name: tensor.detach().to("cpu", torch.bfloat16).contiguous() for name, tensor in head.named_parameters()}
    words, all_words = head.words.cpu(), head.config["vocab_size"]
    if len(words) < all_words:  # vLLM has no place for the two where the head has every word
        tensors |= {"d2t": words - torch.arange(len(words)), "t2d": torch.zeros(all_words, dtype=torch.bool).index_fill(0, words, True)}
    save_file(tensors, partial / WEIGHTS, metadata={"format": "pt"})
    (partial / "config.json").write_text(json.dumps(head.config, indent=2))
    for file in partial.iterdir():
        file.chmod(0o644)
    shutil.rmtree(dest, ignore_errors=True)
    partial.rename(dest)
    return dest


def assembled(config: dict[str, Any], tensors: dict[str, torch.Tensor], model: Any) -> tuple[Head | None, list[str]]:
    """A head of what a folder holds, on the model's device, and what is wrong with it. There is none where it cannot be put together for this model."""
    expected = config_of(model.config.to_dict(), config.get("draft_vocab_size", 0))
    problems = [f"config.json: {key} is {config.get(key)!r}, and {value!r} for this model" for key, value in expected.items() if config.get(key) != value]
    if problems:
        return None, problems
    count, all_words, tensors = config["draft_vocab_size"], config["vocab_size"], dict(tensors)
    words = torch.arange(count) + tensors.pop("d2t", torch.zeros(count, dtype=torch.long))
    allowed = tensors.pop("t2d", torch.ones(all_words, dtype=torch.bool))
    inside = bool((words >= 0).all() and (words < all_words).all() and (words.diff() > 0).all())
    if not inside or allowed.nonzero().flatten().tolist() != words.tolist():
        problems.append("d2t and t2d do not name the same words, each once and in order")
    head = Head(config)
    shapes = {name: tuple(parameter.shape) for name, parameter in head.named_parameters()}
    found = {name: tuple(tensor.shape) for name, tensor in tensors.items()}
    problems += [f"{name} is {found.get(name)}, not {shapes.get(name)}" for name in sorted(shapes.keys() | found.keys()) if found.get(name) != shapes.get(name)]
    if found != shapes or not inside:
        return None, problems
    problems += [f"{name} has numbers that are not finite" for name, tensor in tensors.items() if not tensor.isfinite().all()]
    head.words = words
    head.load_state_dict({**tensors, "words": words})
    return head.to(model.device), problems
