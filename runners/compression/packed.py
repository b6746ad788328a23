"""4-bit matrices as they are in a quantized folder: AWQ's GEMM layout, or compressed-tensors' packed one.

What is measured is what was written: the files are read back, not the model in memory. ``awq_autoawq`` writes the first layout.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import torch

from runners.compression.parity import Tensors

#: Where the i-th 4-bit value of a 32-bit word is in AWQ's GEMM layout.
GEMM_ORDER = (0, 2, 4, 6, 1, 3, 5, 7)
LARGEST_CODE = 15
#: The tensors of one packed matrix: values, zero points, scales, and the shape where it is written.
GEMM, COMPRESSED = ("qweight", "qzeros", "scales"), ("weight_packed", "weight_zero_point", "weight_scale", "weight_shape")


@dataclass(frozen=True)
class Packed:
    """``scales * (codes - zeros)``: codes [out, in] of 0..15; zeros and scales [out, groups]. All are fp32.

    ``room`` is what the writer's own arithmetic may add to half a step: llm-compressor rounds a sum of up to 15 that it took in bf16.
    """

    codes: torch.Tensor
    zeros: torch.Tensor
    scales: torch.Tensor
    room: float = 0.0

    @property
    def group_size(self) -> int:
        """Numbers that share a scale."""
        return int(self.codes.shape[1] // self.scales.shape[1])

    def each(self, by_group: torch.Tensor) -> torch.Tensor:
        """[out, groups] -> [out, in]."""
        return by_group.repeat_interleave(self.group_size, 1)

    def plain(self) -> torch.Tensor:
        """The weight, [out, in]."""
        return (self.codes - self.each(self.zeros)) * self.each(self.scales)


def stems(tensors: Tensors) -> list[str]:
    """Names of the packed matrices, without what follows the layer's name."""
    return sorted(stem for stem, _, kind in (name.rpartition(".") for name in tensors.file_of) if kind in (GEMM[0], COMPRESSED[0]))


def parts(tensors: Tensors, stem: str) -> list[str]:
    """Names of the tensors that a packed matrix is made of."""
    kinds = GEMM if f"{stem}.{GEMM[0]}" in tensors.file_of else COMPRESSED
    return [f"{stem}.{kind}" for kind in kinds]


def read(tensors: Tensors, stem: str, device: str = "cpu") -> Packed:
    """One packed matrix. Raises KeyError when a part is missing, ValueError when they do not fit."""
    found = [tensors[name].to(device) for name in parts(tensors, stem)]
    matrix = from_gemm(*found) if len(found) == len(GEMM) else _from_compressed(*found)
    rows, width = matrix.codes.shape
    if matrix.zeros.shape != matrix.scales.shape or len(matrix.scales) != rows or width % matrix.scales.shape[1]:
        raise ValueError(f"values of {list(matrix.codes.shape)}, zero points of {list(matrix.zeros.shape)}, scales of {list(matrix.scales.shape)}")
    return matrix


class Plain:
    """The tensors of a quantized folder by the names of plain weights, in fp32, read when asked for."""

    def __init__(self, folder: Path, device: str) -> None:
        self._tensors, self._device = Tensors(folder), device
        self._stems = set(stems(self._tensors))

    def weight(self, name: str) -> torch.Tensor:
        """One of them. Raises KeyError for a name that is not there."""
        stem = name.removesuffix(".weight")
        return read(self._tensors, stem, self._device).plain() if stem in self._stems else self._tensors[name].float()


def from_gemm(words: torch.Tensor, zeros: torch.Tensor, scales: torch.Tensor) -> Packed:
    """The tensors of a GEMM layer are [in, out]."""
    return Packed(unpack(words, GEMM_ORDER).T.float().contiguous(), unpack(zeros, GEMM_ORDER).T.float(), scales.T.float())


def _from_compressed(words: torch.Tensor, zeros: torch.Tensor, scales: torch.Tensor, shape: torch.Tensor) -> Packed:
    rows, width = (int(size) for size in shape)
    straight = tuple(range(8))
    offsets = unpack(zeros.T.contiguous(), straight)[:, :rows].T.float()
    return Packed(unpack(words, straight)[:, :width].float(), offsets, scales.float(), room=2**-4)


def unpack(words: torch.Tensor, order: Sequence[int]) -> torch.Tensor:
    """[a, b] int32 words -> [a, 8 b] values of 0..15."""
    values = torch.stack([(words >> (4 * place)) & LARGEST_CODE for place in range(8)], -1)
    straight = torch.empty_like(values)
    straight[..., list(order)] = values
    return straight.reshape(len(words), -1)
