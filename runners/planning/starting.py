"""A server's start, phase by phase: from "created" to the first completion, at best, to expect and at worst. Pure.

The names are those of the phases that a server records (``elson status``). Nothing here was measured on a card: what was measured is vLLM's own program on two
cores, quoted is what a maker or another user says of his, the rest is assumed. What others published is far apart: an 8B model on an L40S 82 s warm,
on an L4 of Cloud Run four to five minutes.
"""

from __future__ import annotations

from dataclasses import replace

from runners.planning.machines import Machine
from runners.planning.parts import PlannedPhase
from runners.planning.session import DOWNLOAD_SHARE, LOAD_GB_S, RUN_INSTANCE_S, Estimate, boot, transfer
from runners.serving.graphs import graph_sizes
from runners.spec import MachineSpec, ServeSpec

#: GB of the image that a start reads, and the GB/s at which Cloud Run streams it. Of the CPU build's 1.0 GB of libraries 0.2 GB are touched, and at most
#: 0.1 GB of bytecode is read (measured, at best); CUDA's libraries are several GB more, of which a start loads the kernels that it uses.
READ_GB, STREAMED_GB_S = Estimate(0.3, 2.0, 4.0, "assumed"), Estimate(1.0, 0.25, 0.06, "streaming assumed")
#: Our own beginning, vLLM and torch imported by the server and once more by its engine (17 s on two cores of this project's CI), the card's context.
PROGRAM_S = Estimate(14, 22, 45, "17 s of it measured, two cores")
#: A third import, by the process that looks at the model's class: what it finds out is published with the compiled code.
INSPECT_S = Estimate(6, 9.5, 20, "measured, two cores")
#: torch.compile of the 14B's decoder; the same read from a cache that came with the model.
COMPILE_S, COMPILED_S = Estimate(15, 35, 90, "assumed"), Estimate(2, 4, 10, "assumed")
#: One size of CUDA graphs, two kinds of each; 67 sizes are said to take more than 10 s (vllm #20098).
GRAPH_S = Estimate(0.2, 0.5, 1.2, "assumed")
#: KV cache, warm-up, sampler; and the memory measured by capturing graphs for a trial, which a published plan of the memory saves.
WARM_UP_S, PROFILE_S, FIRST_S = Estimate(2, 4, 10, "assumed"), Estimate(1, 2, 5, "assumed"), Estimate(0.3, 1, 3, "assumed")
#: Seconds from "created" to the first completion that a start should keep.
GOAL_RUN_S, GOAL_BAKED_S = 60.0, 75.0
#: For how long a group may ignore the health check of a new VM, by the API.
HEALED_AFTER_AT_MOST_S = 3600


def phases(spec: ServeSpec, wanted: MachineSpec, host: Machine, weights_gb: float, *, compiled: bool, merges: bool = False) -> tuple[PlannedPhase, ...]:
    """Every phase of a start.

    Args:
        compiled: compiled code of this model, image and card is published, and what else a start finds out.
        merges: an adapter is merged first, so nothing is loaded while it arrives.
    """
    program = PROGRAM_S if compiled else PROGRAM_S.plus(INSPECT_S)
    arrives, loads = _arrives(spec, wanted, host, weights_gb), LOAD_GB_S.takes(weights_gb)
    # The weights arrive while the program starts; what is left is waited for, then they go onto the card.
    meanwhile = PROGRAM_S.times(0) if merges else program
    best, expected, worst = (max(0.0, a - s) + load for a, s, load in zip(arrives.values, meanwhile.values, loads.values, strict=True))
    sizes = len(graph_sizes(spec))
    graphs = replace(GRAPH_S.times(sizes), source=f"assumed, {sizes} sizes")
    after = () if spec.eager else ((COMPILED_S if compiled else COMPILE_S).phase("compile"), graphs.phase("graphs"))
    return (
        *_image_here(wanted, host),
        program.phase("program"),
        PlannedPhase("weights", best, expected, worst, f"loading measured; {arrives.source}"),
        *after,
        (WARM_UP_S if compiled or spec.eager else WARM_UP_S.plus(PROFILE_S)).phase("warm up"),
        FIRST_S.phase("first completion"),
    )


def all_phases(
    specs: tuple[ServeSpec, ...], wanted: MachineSpec, host: Machine, weights_gb: list[float], *, compiled: bool, merges: list[bool]
) -> tuple[PlannedPhase, ...]:
    """The same of one model or of two: the second one starts when the first is up, its weights come from the bucket, and nothing of it is compiled before."""
    first = phases(specs[0], wanted, host, weights_gb[0], compiled=compiled, merges=merges[0])
    if len(specs) == 1:
        return first
    without_first = wanted.model_copy(update={"baked_model": None})
    own = phases(specs[1], without_first, host, weights_gb[1], compiled=False, merges=merges[1])[len(_image_here(wanted, host)) : -1]
    best, expected, worst = (sum(values) for values in zip(*((one.optimistic_s, one.expected_s, one.pessimistic_s) for one in own), strict=True))
    return (*first[:-1], PlannedPhase("second model", best, expected, worst, "the same, with the image here and nothing compiled"), first[-1])


def weights_are_baked(spec: ServeSpec, wanted: MachineSpec) -> bool:
    """Whether the boot image holds the weights of the model that is served; those of another one are of no use."""
    return wanted.baked_model is not None and spec.model_manifest in (None, wanted.baked_model)


def baked_weights_s(wanted: MachineSpec, host: Machine, weights_gb: float) -> tuple[float, float]:
    """Seconds to expect of the same weights from the boot disk, and from the bucket."""
    return _from_disk(wanted, host).takes(weights_gb).expected, transfer(weights_gb, host, DOWNLOAD_SHARE).expected


def _arrives(spec: ServeSpec, wanted: MachineSpec, host: Machine, weights_gb: float) -> Estimate:
    """Seconds until the weights are here: from the bucket, or verified on the boot disk."""
    if weights_are_baked(spec, wanted):
        return _from_disk(wanted, host).takes(weights_gb)
    return replace(transfer(weights_gb, host, DOWNLOAD_SHARE), source="the network's share assumed")


def _image_here(wanted: MachineSpec, host: Machine) -> tuple[PlannedPhase, ...]:
    """Until the container runs, and what its program reads of its image for the first time. On a VM that pulled it a moment before it is in memory."""
    if host.is_run:
        return (RUN_INSTANCE_S.phase("instance with its GPU"), READ_GB.over(STREAMED_GB_S).phase("image streamed"))
    return (*boot(wanted), *((READ_GB.over(_from_disk(wanted, host)).phase("image read"),) if wanted.image_is_baked else ()))


def _from_disk(wanted: MachineSpec, host: Machine) -> Estimate:
    """GB/s of the boot disk; a disk that was made of an image a moment ago may be slower at first."""
    quoted = host.disk_gb_s(wanted.disk_gb)
    return Estimate(quoted, quoted, quoted / 3, f"{quoted * 1000:.0f} MB/s quoted for {wanted.disk_gb} GB of {host.disk_type}")


def healed_after_s(spec: ServeSpec, wanted: MachineSpec) -> int:
    """Seconds from "created" in which a group leaves an unhealthy VM alone: until the server has given up by itself, which counts an attempt.

    ``ready_timeout_s`` begins when the server's image is there.
    """
    return round(sum(phase.pessimistic_s for phase in boot(wanted))) + spec.ready_timeout_s


def compiled_saves_s(spec: ServeSpec) -> float:
    """Seconds that compiled code, and what is published with it, would save where there is none."""
    saved = INSPECT_S.expected + (0.0 if spec.eager else COMPILE_S.expected - COMPILED_S.expected + PROFILE_S.expected)
    return 0.0 if spec.compiled else saved


def goal_s(wanted: MachineSpec) -> float | None:
    """The goal of a start; None for a VM that installs docker and pulls its images first."""
    return GOAL_RUN_S if wanted.provisioning_model == "RUN" else GOAL_BAKED_S if wanted.image_is_baked else None
