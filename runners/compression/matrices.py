"""Whether each packed matrix is the merged one, rounded to 4 bits: every number is checked, and the outputs on real inputs.

A mean over answers forgives a matrix whose zero points are off by one among 300 others. Rounding is bounded: a number that is neither the first nor the
last of its group's 16 values is at most half a step of that group away from the number it was made from. The first and the last are also
where AWQ clips, so there the bound is one-sided, up to what the widest clipping leaves.

AWQ moves a scale from a matrix's columns into what comes before it. Into a norm: the scale is the merged norm over the written one. Into the rows
of another matrix (v for o, up for down): each number of a row gives an interval that the row's scale must be in, each number of the column that it
feeds another, and all of them must have a scale in common. One channel leaves that open by a percent; all channels together do not, since roundings go
up as often as down: the two scales must agree in the median. Everything that is not packed must be the merged model's number, rounded to 16 bits.

A rounded matrix can still be a bad one (clipped too much). So its outputs on the inputs it has in the merged model are compared too:
the norm of their error, over that of round-to-nearest with groups of the same size.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path

import torch

from runners.compression import gates, packed
from runners.compression.layers import Layers, Round
from runners.compression.parity import Tensors
from runners.training.examples import Example

#: Tokens that go through each matrix.
PROBE_TOKENS = 512
#: Matrices whose columns AWQ may scale, with the one whose rows then carry the inverse.
ROWS_OF = {"o_proj": "v_proj", "down_proj": "up_proj"}
#: Norms that AWQ may scale, with the matrices whose columns then carry the inverse.
FED_BY = {"input_layernorm": ("q_proj", "k_proj", "v_proj"), "post_attention_layernorm": ("gate_proj", "up_proj")}
#: On a card, the norm, the scaled columns and the scaled rows are each rounded to bf16 before the 4 bits: three times 2**-9, and a little.
SLACK = 2**-7
#: How far the scales of rows and columns may be apart in the median of the channels. Sound models: 0.07 % (tiny), 0.01 % (of 135M parameters).
APART = 2**-8
#: The median is taken of channels whose own scales are known to 2**-5, and of no fewer than this.
FEWEST = 32
#: The smallest clipping threshold that is tried, as a share of the largest number of a group (autoawq: 0.55).
CLIP = 0.5


@dataclass(frozen=True)
class Matrix:
    """One packed matrix: the error of its outputs on real inputs, over that of round-to-nearest."""

    name: str
    error: float


@dataclass
class PackedComparison:
    """What was found: problems as sentences; ``readable`` is False when the folder cannot be put into a model at all."""

    matrices: list[Matrix] = field(default_factory=list)
    problems: list[str] = field(default_factory=list)
    readable: bool = True


def compare(merged: Path, quantized: Path, group_size: int, inputs: dict[str, list[torch.Tensor]], device: str = "cpu") -> PackedComparison:
    """Hold every tensor of a quantized folder against the merged model's.

    Args:
        merged: folder of the merged model (bf16).
        quantized: folder with 4-bit matrices.
        group_size: numbers that share a scale.
        inputs: ``real_inputs`` of the merged model, [tokens, in] by the name of the matrix.
        device: where the comparison runs.
    """
    source, result, found = Tensors(merged), Tensors(quantized), PackedComparison()
    stems = packed.stems(result)
    names = {name for name in result.file_of if name not in {part for stem in stems for part in packed.parts(result, stem)}}
    names |= {f"{stem}.weight" for stem in stems}
    wrong = [f"{name} is missing" for name in sorted(source.file_of.keys() - names)]
    wrong += [f"{name} is not in the merged model" for name in sorted(names - source.file_of.keys())]
    wrong += [f"{name} is not packed" for name in sorted(names & inputs.keys()) if name.removesuffix(".weight") not in stems]
    if wrong:
        return PackedComparison(problems=wrong, readable=False)
    layers: dict[str, dict[str, str]] = {}
    for stem in stems:
        place, _, own = stem.rpartition(".")
        layers.setdefault(place.rpartition(".")[0], {})[own] = stem
    scaled = {f"{layer}.{norm}.weight" for layer in layers for norm in FED_BY}
    row_biases = {f"{stem}.bias" for stem in stems if stem.endswith(tuple(ROWS_OF.values()))}
    for name in sorted(names - {f"{stem}.weight" for stem in stems} - scaled - row_biases):
        found.problems += _unlike(name, result[name], source[name])
    for layer, members in layers.items():
        try:
            for matrix, problems in _Layer(source, result, layer, members, group_size, device).compared(inputs):
                found.matrices.append(matrix)
                found.problems += problems
        except NotComparable as error:
            found.problems.append(f"{layer}: {error}")
        except (KeyError, ValueError, RuntimeError) as error:
            found.problems.append(f"{layer} cannot be read: {error}")
            found.readable = False
    return found


def _unlike(name: str, found: torch.Tensor, expected: torch.Tensor) -> list[str]:
    """A number that is not the merged model's, rounded to the 16 bits it was written in."""
    if found.shape != expected.shape or found.dtype not in (torch.float16, torch.bfloat16):
        return [f"{name} is {list(found.shape)} of {found.dtype} and not {list(expected.shape)} of 16 bits"]
    wrong = int((found != expected.to(found.dtype)).sum())
    return [f"{name}: {wrong} of {found.numel()} numbers are not the merged model's"] if wrong else []


class NotComparable(Exception):
    """A layer can be read, and its scales cannot be those of a quantizer."""


class _Layer:
    """The matrices of one decoder layer."""

    def __init__(self, source: Tensors, result: Tensors, name: str, members: dict[str, str], group_size: int, device: str) -> None:
        self._source, self._result, self._name, self._members = source, result, name, members
        self._group_size, self._device = group_size, device

    def compared(self, inputs: dict[str, list[torch.Tensor]]) -> Iterator[tuple[Matrix, list[str]]]:
        """Each matrix with what is wrong with it."""
        givers = {giver: taker for taker, giver in ROWS_OF.items() if giver in self._members and taker in self._members}
        for own in sorted(self._members):
            if own in givers:
                yield from self._pair(own, givers[own], inputs)
            elif own not in givers.values():
                yield self._alone(own, inputs)

    def _alone(self, own: str, inputs: dict[str, list[torch.Tensor]]) -> tuple[Matrix, list[str]]:
        stem, (matrix, weight, slack) = self._members[own], self._loaded(own)
        low, high = _bounds(matrix)
        room = weight.abs() * slack
        odd = _count(~((weight + room >= low) & (weight - room <= high)))
        problems = [f"{stem}: {odd} of {weight.numel()} numbers are more than half a step from the merged model's"] if odd else []
        if own in ROWS_OF.values():
            problems += self._row_bias(own, torch.ones_like(weight[:, 0]), torch.ones_like(weight[:, 0]))
        return Matrix(stem, self._error(own, matrix.plain(), inputs)), problems

    def _pair(self, giver: str, taker: str, inputs: dict[str, list[torch.Tensor]]) -> Iterator[tuple[Matrix, list[str]]]:
        """v and o, or up and down: one scale for each channel between them must explain both."""
        (given, before, slack), (taken, after, even) = self._loaded(giver), self._loaded(taker)
        if len(given.codes) != taken.codes.shape[1]:
            # Fewer heads for keys and values than for queries: AWQ moves nothing between them.
            yield self._alone(giver, inputs)
            yield self._alone(taker, inputs)
            return
        of_rows, of_columns = _interval(given, before, slack, 1), _interval(taken, after, even, 0)
        names, channels = (self._members[giver], self._members[taker]), len(given.codes)
        low = torch.maximum(of_rows[0].clamp_min(0), 1 / of_columns[1].clamp_min(1e-30))
        high = torch.minimum(of_rows[1], 1 / of_columns[0].clamp_min(1e-30))
        wrong = {
            f"{names[0]}: {{}} of {channels} rows have no scale that explains their numbers": of_rows[0] > of_rows[1],
            f"{names[1]}: {{}} of {channels} columns have no scale that explains their numbers": of_columns[0] > of_columns[1],
            f"{names[1]}: {{}} of {channels} columns do not have the scale of the rows of {giver}": ~(low <= high),
        }
        problems = [text.format(_count(odd)) for text, odd in wrong.items() if bool(odd.any())][:2]
        apart = _apart(_interval(given, before, _known(slack), 1), _interval(taken, after, _known(even), 0))
        if not problems and abs(apart) > APART:
            problems = [f"{names[1]}: its columns are {apart:+.2%} off the scale of the rows of {giver}".replace("%", " %")]
        # Where nothing explains both, that has been said: the bias is then held against the scale of its own row.
        known = low <= high
        problems += self._row_bias(giver, torch.where(known, low, of_rows[0]), torch.where(known, high, of_rows[1]))
        rows = torch.where(high < 1e9, (low + high) / 2, torch.ones_like(low)).clamp(1e-9, 1e9)
        yield Matrix(names[0], self._error(giver, given.plain() / rows[:, None], inputs)), problems
        yield Matrix(names[1], self._error(taker, taken.plain() * rows, inputs)), []

    def _error(self, own: str, found: torch.Tensor, inputs: dict[str, list[torch.Tensor]]) -> float:
        """Of the outputs on real inputs, over that of round-to-nearest. ``found`` has the scale of its rows and columns taken out, but for the norm's."""
        name = f"{self._members[own]}.weight"
        exact = self._source[name].to(self._device).float()
        parts = found / self._factors(own)[0] - exact, gates.round_to_nearest(exact, self._group_size) - exact
        squares = [sum(float((x.to(self._device).float() @ part.T).square().sum()) for x in inputs.get(name, [])) for part in parts]
        return math.sqrt(squares[0] / max(squares[1], 1e-30))

    def _loaded(self, own: str) -> tuple[packed.Packed, torch.Tensor, torch.Tensor]:
        """The packed matrix, the merged one with its columns scaled as the norm before it says, and how exactly that is known."""
        stem = self._members[own]
        matrix = packed.read(self._result, stem, self._device)
        if matrix.group_size != self._group_size:
            raise ValueError(f"{stem} has groups of {matrix.group_size} and not of {self._group_size}")
        if not bool(torch.isfinite(matrix.scales).all()) or bool((matrix.scales <= 0).any()):
            raise NotComparable(f"{stem} has scales that are not positive numbers")
        weight = self._source[f"{stem}.weight"].to(self._device).float()
        if weight.shape != matrix.codes.shape:
            raise ValueError(f"{stem} is {list(matrix.codes.shape)} and not {list(weight.shape)}")
        factors, slack = self._factors(own)
        return matrix, weight * factors, slack

    def _factors(self, own: str) -> tuple[torch.Tensor, torch.Tensor]:
        """What AWQ multiplied each column by for the norm before it, and the relative error of that: the norm is written in 16 bits."""
        device = self._device
        for norm in (norm for norm, fed in FED_BY.items() if own in fed and f"{self._name}.{norm}.weight" in self._source.file_of):
            ours, theirs = (tensors[f"{self._name}.{norm}.weight"].to(device).float() for tensors in (self._source, self._result))
            if ours.shape != theirs.shape:
                raise ValueError(f"{norm} is {list(theirs.shape)} and not {list(ours.shape)}")
            if bool(((ours * theirs <= 0) & ((ours != 0) | (theirs != 0))).any()) or not bool(torch.isfinite(theirs).all()):
                raise NotComparable(f"{norm} changed its sign or its zeros")
            # What a norm of zero is multiplied with reaches nothing.
            known = torch.where(ours == 0, 1.0, ours / theirs.where(theirs != 0, torch.ones_like(theirs)))
            return known, torch.where(ours == 0, 1e9, SLACK + 2**-24 / theirs.abs().clamp_min(1e-9))
        width = self._source[f"{self._members[own]}.weight"].shape[1]
        return torch.ones(width, device=device), torch.full((width,), SLACK, device=device)

    def _row_bias(self, own: str, low: torch.Tensor, high: torch.Tensor) -> list[str]:
        """A bias is scaled as its row is."""
        name = f"{self._members[own]}.bias"
        if name not in self._source.file_of:
            return []
        ours, theirs = (tensors[name].to(self._device).float() for tensors in (self._source, self._result))
        if theirs.shape != ours.shape:
            return [f"{name} is {list(theirs.shape)} and not {list(ours.shape)}"]
        ends = ours * low, ours * high.clamp_max(1e9)
        room = ends[1].abs() * SLACK + 1e-7
        odd = _count(~((theirs >= torch.minimum(*ends) - room) & (theirs <= torch.maximum(*ends) + room)))
        return [f"{name}: {odd} of {len(ours)} numbers are not the merged model's times the scale of their row"] if odd else []


def _bounds(matrix: packed.Packed) -> tuple[torch.Tensor, torch.Tensor]:
    """The least and the largest number that each packed one may have been made from, [out, in]."""
    plain, half = matrix.plain(), matrix.each(matrix.scales) * (0.5 + matrix.room)
    farthest = torch.maximum(matrix.zeros.abs(), (packed.LARGEST_CODE - matrix.zeros).abs())
    clipped = matrix.each((farthest + 1) * matrix.scales) / CLIP
    # A group that was clipped at both ends has its zero in the middle, at 7.5: rounded down, its last value is 14.
    groups = matrix.codes.unflatten(1, (-1, matrix.group_size))
    first, last = matrix.each(groups.amin(-1).clamp(0, 1)), matrix.each(groups.amax(-1).clamp(packed.LARGEST_CODE - 1, packed.LARGEST_CODE))
    return torch.where(matrix.codes > first, plain - half, -clipped), torch.where(matrix.codes < last, plain + half, clipped)


def _interval(matrix: packed.Packed, weight: torch.Tensor, slack: torch.Tensor, kept: int) -> tuple[torch.Tensor, torch.Tensor]:
    """The least and the largest factor of each row (``kept`` 1: over the columns) or column (0) that explains all its numbers."""
    low, high = _bounds(matrix)
    negative, never, free = weight < 0, torch.full_like(low, math.inf), (slack >= 1).expand_as(low)
    low, high = torch.where(negative, -high, low), torch.where(negative, -low, high)
    wide, narrow = weight.abs() * (1 + slack), weight.abs() * (1 - slack).clamp_min(0)
    # A weight of zero says nothing of the factor, unless what it became is not zero.
    least = torch.where(wide > 0, low / wide, torch.where(low > 0, never, -never))
    most = torch.where(narrow > 0, high / narrow, torch.where(high < 0, -never, never))
    return torch.where(free, -never, least).amax(kept), torch.where(free, never, most).amin(kept)


def _known(slack: torch.Tensor) -> torch.Tensor:
    """The slack of what rounds up as often as down: none. What says nothing still says nothing."""
    return torch.where(slack >= 1, slack, 0.0)


def _apart(rows: tuple[torch.Tensor, torch.Tensor], columns: tuple[torch.Tensor, torch.Tensor]) -> float:
    """How much larger the columns are than the rows say, in the median of the channels; 0 where too few say something."""
    middles = [(low + high) / 2 for low, high in (rows, columns)]
    narrow = [(high - low).abs() < 2**-5 * middle for (low, high), middle in zip((rows, columns), middles, strict=True)]
    known = narrow[0] & narrow[1]
    return float((middles[0] * middles[1])[known].median()) - 1 if _count(known) >= FEWEST else 0.0


def _count(wrong: torch.Tensor) -> int:
    return int(wrong.sum())


def real_inputs(layers: Layers, examples: Sequence[Example]) -> dict[str, list[torch.Tensor]]:
    """What each linear layer of the decoder gets, [tokens, in] by the name of its weight, for the first examples of ``PROBE_TOKENS`` tokens."""
    found: dict[str, list[torch.Tensor]] = {}

    def keep(name: str) -> Callable[..., None]:
        return lambda _module, given: found.setdefault(f"{name}.weight", []).append(given[0].detach().flatten(0, -2))

    output = layers.model.get_output_embeddings()
    linears = {name: module for name, module in layers.model.named_modules() if isinstance(module, torch.nn.Linear) and module is not output}
    hooks = [module.register_forward_pre_hook(keep(name)) for name, module in linears.items()]
    calls, seen = [], 0
    for example in examples:
        if seen >= PROBE_TOKENS:
            break
        calls.append({"input_ids": torch.tensor([example.token_ids[:PROBE_TOKENS]]), "logits_to_keep": 1})
        seen += len(example)
    layers.read(Round(calls))
    for hook in hooks:
        hook.remove()
    return found
