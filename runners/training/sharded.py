"""A base model that does not fit one card, in parts: FSDP2 over its decoder layers, read from its files part by part.

Each process holds a share of every decoder layer's rows, of the frozen weights and of the adapter alike, with the adapter's gradients and Adam's moments.
A layer is gathered when its forward or backward comes, and freed after it. Embedding, output layer and norms are whole everywhere: the chunked loss
multiplies by the output layer's weight directly, and a 70B's two take 4 of its 141 GB.

The model is made without memory (``meta``), and ``torch.distributed.checkpoint`` reads from the safetensors files the rows that a process keeps: no process
ever holds the whole, not even while loading. What the files of a checkpoint are: ``checkpoint.py``.
"""

from __future__ import annotations

import math
import warnings
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from torch.distributed.checkpoint.api import CheckpointException
from torch.distributed.checkpoint.hf_storage import HuggingFaceStorageReader, HuggingFaceStorageWriter
from torch.distributed.checkpoint.state_dict_loader import load as dcp_load
from torch.distributed.checkpoint.state_dict_saver import save as dcp_save
from torch.distributed.fsdp import FSDPModule, fully_shard
from torch.distributed.tensor import DTensor, distribute_tensor

from runners.errors import UserError
from runners.spec import TrainSpec
from runners.training import adapted_model

#: What peft puts around the names of the base model's files.
_PREFIX, _INNER = "base_model.model.", ".base_layer."


def load(base: Path, settings: TrainSpec, name: str, device: str, implementation: str) -> Any:
    """The base model with a fresh adapter, of both a share in each process. The adapter is the one that a single process would start from.

    Raises UserError when the folder is not a model this loop can train. Every process must call it.
    """
    before = torch.get_rng_state()
    model = adapted_model.with_new_adapter(adapted_model.without_memory(base, settings.precision, device, implementation), settings, name)
    causal = model.get_base_model()
    kinds = set(causal._no_split_modules)
    layers = [module for module in causal.modules() if type(module).__name__ in kinds]
    shared = set(causal.parameters()) - {parameter for layer in layers for parameter in layer.parameters()}
    for layer in layers:
        fully_shard(layer)
    # What calls the layers is the root of their streams: it gathers the next layer while one computes.
    fully_shard(causal.base_model, ignored_params=shared)
    for module in causal.modules():
        if isinstance(module, FSDPModule):
            # The loss is divided by the answer tokens of the whole step: gradients are summed, and not averaged.
            module.set_gradient_divide_factor(1.0)
            module.set_force_sum_reduction_for_comms(True)
    model._apply(lambda tensor: torch.empty_like(tensor, device=device) if tensor.is_meta else tensor.to(device))
    causal.tie_weights()
    frozen = {path: parameter for path, parameter in model.named_parameters() if not parameter.requires_grad}
    read(base, {path.removeprefix(_PREFIX).replace(_INNER, "."): parameter.detach() for path, parameter in frozen.items()})
    _start(model, before)
    with model.disable_adapter():
        adapted_model.check_loss(base, causal, implementation)
    return model


def _start(model: Any, random_state: torch.Tensor) -> None:
    """Give the adapter the values that peft drew for it, in peft's order, and threw away since the weights had no memory."""
    with torch.no_grad(), torch.random.fork_rng(devices=[]):
        torch.set_rng_state(random_state)
        for module in model.modules():
            if not hasattr(module, "lora_A"):
                continue
            a, b, weight = module.lora_A["default"].weight, module.lora_B["default"].weight, module.get_base_layer().weight
            drawn = torch.nn.Linear(module.in_features, a.shape[0], bias=False).weight
            torch.nn.Linear(a.shape[0], module.out_features, bias=False)
            torch.nn.init.kaiming_uniform_(drawn, a=math.sqrt(5))
            a.copy_(distribute_tensor(drawn.to(a.device), a.device_mesh, a.placements, src_data_rank=None))
            b.zero_()
            for magnitude in module.lora_magnitude_vector.values():
                # The rows of W that this process has are those of m.
                magnitude.weight.to_local().copy_(torch.linalg.norm(weight.to_local(), dim=1))


def is_share(tensor: torch.Tensor) -> bool:
    """Whether this is one process's rows of a tensor."""
    return isinstance(tensor, DTensor)


def read(folder: Path, wanted: Mapping[str, torch.Tensor]) -> None:
    """Fill tensors, whole ones or shares, from the safetensors files of a folder: each process reads its own rows only.

    Raises UserError when the files do not hold them.
    """
    try:
        with warnings.catch_warnings(category=UserWarning, action="ignore"):  # that no other process is asked, which is meant
            dcp_load(dict(wanted), storage_reader=HuggingFaceStorageReader(str(folder)), no_dist=True)
    except (CheckpointException, OSError) as error:
        # The library's own text is a traceback.
        cause = next(iter(error.failures.values()))[0] if isinstance(error, CheckpointException) else error
        raise UserError(f"{folder} cannot be read: {str(cause)[:300]}", f"safetensors files with {len(wanted)} tensors", "bring the folder again") from None


def write(folder: Path, tensors: Mapping[str, torch.Tensor], group: Any) -> None:
    """Write the shares of all processes of ``group`` to one folder: a safetensors file each, without pickle. Every process must call it."""
    dcp_save(dict(tensors), storage_writer=HuggingFaceStorageWriter(str(folder), save_distributed=True), process_group=group)


def whole(model: Any, *, keep: bool) -> dict[str, torch.Tensor]:
    """The trained parameters, gathered one after the other, on the CPU of the processes that ``keep`` them. Every process must call it."""
    found = {}
    for name, parameter in model.named_parameters():
        if parameter.requires_grad:
            gathered = parameter.full_tensor() if isinstance(parameter, DTensor) else parameter
            if keep:
                found[name] = gathered.detach().cpu()
    return found
