"""A model's answers with one decoder layer in memory: what a gate asks of a model that no card, or no main memory, holds whole.

Every call goes through the first layer, then every call through the second: a folder is read once, however many calls there are. transformers' own
forward is what runs, in three pieces. First with layers that only note what they are given (masks, positions), then each layer by itself on the hidden
states, then again with layers that hand on the last of these, for what follows them. The numbers are those of the whole model to the bit
(``tests/torch/test_layers.py``, thirteen architectures). Beside the layer at work, embedding, output layer and norms stay in memory, and an adapter.

What it needs: that layers follow each other, and pass nothing on but hidden states.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch

from runners.compression.parity import Tensors
from runners.errors import UserError

#: What peft puts around the names of the base model's files.
_PREFIX, _INNER = "base_model.model.", ".base_layer"

Call = dict[str, Any]
#: Modules of a part of the model, a layer or what is outside the layers, with their names in the files. An adapted layer and what it wraps have one name.
Part = list[tuple[str, torch.nn.Module]]


@dataclass(frozen=True)
class Round:
    """Calls of the model's forward, and what is done to the weights of each part before them. They are as the round before left them."""

    calls: Sequence[Call]
    change: Callable[[Part], None] = lambda part: None


class Layers:
    """The model of a folder, with an adapter as stock peft puts it there where one is given.

    Raises UserError when the folder lacks tensors of its own config.
    """

    def __init__(self, folder: Path, device: str, dtype: torch.dtype, adapter: Path | None = None) -> None:
        from accelerate import init_empty_weights
        from transformers import AutoConfig, AutoModelForCausalLM

        self.device, self.dtype = device, dtype
        self._files = [Tensors(one) for one in (folder, adapter) if one is not None]
        # Buffers are computed, not read: they get their values here.
        with init_empty_weights(include_buffers=False):
            causal = AutoModelForCausalLM.from_config(AutoConfig.from_pretrained(str(folder), local_files_only=True), dtype=dtype)
        self.model = causal
        if adapter is not None:
            from peft import PeftConfig, get_peft_model

            config = PeftConfig.from_pretrained(str(adapter))
            config.base_model_name_or_path = causal.name_or_path
            self.model = get_peft_model(causal, config, low_cpu_mem_usage=True)
        self.model.eval().requires_grad_(False)
        self._causal, kinds = causal, set(causal._no_split_modules)
        self._layers = [module for module in self.model.modules() if type(module).__name__ in kinds]
        names = {module: path.removeprefix(_PREFIX).replace(_INNER, "") for path, module in self.model.named_modules()}
        self._parts: list[Part] = [[(names[module], module) for module in layer.modules()] for layer in self._layers]
        inside = {module for layer in self._layers for module in layer.modules()}
        self._rest: Part = [(name, module) for module, name in names.items() if module not in inside]
        for module in self.model.modules():
            for name, buffer in module.named_buffers(recurse=False):
                setattr(module, name, buffer.to(device))

    def read(self, *rounds: Round) -> list[Iterator[torch.Tensor]]:
        """The logits of each call of each round, [tokens that are kept, vocabulary] on the device: computed when they are asked for."""
        noted = []
        with torch.no_grad():
            for round in rounds:
                self._open(round)
                noted.append([self._noted(call) for call in round.calls])
            for place, (layer, part) in enumerate(zip(self._layers, self._parts, strict=True)):
                self._fill(part)
                for round, states in zip(rounds, noted, strict=True):
                    round.change(part)
                    for state in states:
                        state.go_through(layer, place)
                self._empty(part)
        return [self._answers(round, states) for round, states in zip(rounds, noted, strict=True)]

    def _answers(self, round: Round, states: Sequence[_State]) -> Iterator[torch.Tensor]:
        for call, state in zip(round.calls, states, strict=True):
            with torch.no_grad():
                if self._opened is not round:
                    self._open(round)
                for layer in self._layers:
                    layer.forward = lambda *_, state=state, **__: state.hidden
                yield self._forward(call)

    def _open(self, round: Round) -> None:
        """Have what is outside the layers as a round wants it."""
        self._fill(self._rest)
        round.change(self._rest)
        self._opened = round

    def _noted(self, call: Call) -> _State:
        state = _State()
        for layer in self._layers:
            layer.forward = state.note
        self._forward(call)
        return state

    def _forward(self, call: Call) -> torch.Tensor:
        try:
            there = {name: value.to(self.device) if isinstance(value, torch.Tensor) else value for name, value in call.items()}
            logits: torch.Tensor = self.model(**there, use_cache=False).logits[0]
            return logits
        finally:
            for layer in self._layers:
                del layer.forward

    def _fill(self, part: Part) -> None:
        """Give a part its weights from the files. An adapter's stay in fp32, as peft has them."""
        for path, module in part:
            for own in [own for own, _ in module.named_parameters(recurse=False)]:
                name = f"{path}.{own}"
                dtype = torch.float32 if ".lora_" in name else self.dtype
                found = next((files[stored] for files in self._files for stored in _stored(name) if stored in files.file_of), None)
                if found is not None:
                    setattr(module, own, torch.nn.Parameter(found.to(self.device, dtype), requires_grad=False))
        if part is self._rest:
            self._causal.tie_weights()
        if lacking := [name for name, parameter in _parameters(part) if parameter.is_meta]:
            raise UserError(f"the model's files lack {', '.join(lacking[:3])}", "every tensor of its config.json", "bring the folder again")

    def _empty(self, part: Part) -> None:
        for _, module in part:
            for own, parameter in list(module.named_parameters(recurse=False)):
                setattr(module, own, torch.nn.Parameter(parameter.to("meta"), requires_grad=False))


class _State:
    """A call on its way: its hidden states, and what each layer is given beside them."""

    def __init__(self) -> None:
        self.hidden: Any = None
        self._beside: list[tuple[tuple[Any, ...], dict[str, Any]]] = []

    def note(self, *given: Any, **named: Any) -> Any:
        """In a layer's place: keep what it is given, and hand its first input on."""
        first = given[0] if given else named.pop("hidden_states")
        self.hidden = first if self.hidden is None else self.hidden
        self._beside.append((given[1:], named))
        return first

    def go_through(self, layer: Any, place: int) -> None:
        """The hidden states after the next layer."""
        given, named = self._beside[place]
        self.hidden = layer(self.hidden, *given, **named)


def _stored(name: str) -> tuple[str, ...]:
    """What a parameter may be called in the files: its name; an adapter's without peft's word for the adapter; GPT-NeoX's output layer."""
    if ".lora_" in name:
        bare = name.replace(".default", "")
        return f"{_PREFIX}{bare}", f"{_PREFIX}{bare.removesuffix('.weight')}"
    return (name, "embed_out.weight") if name == "lm_head.weight" else (name,)


def _parameters(part: Part) -> Iterator[tuple[str, torch.nn.Parameter]]:
    for path, module in part:
        for name, parameter in module.named_parameters(recurse=False):
            yield f"{path}.{name}", parameter


def put(part: Part, weight: Callable[[str], torch.Tensor]) -> None:
    """Write weights into a part, each by its name in the files; one that two modules share is written once."""
    seen: set[int] = set()
    with torch.no_grad():
        for name, parameter in _parameters(part):
            if id(parameter) not in seen:
                seen.add(id(parameter))
                parameter.copy_(weight(name))
