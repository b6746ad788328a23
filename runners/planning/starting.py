"""A server's start, phase by phase: from "created" to the first completion, at best, to expect and at worst. Pure.

The names are those of the phases that a server records (``elson status``). Nothing here was measured on a card; what is published is far apart:
an 8B model on an L40S 82 s warm, on an L4 of Cloud Run four to five minutes.
"""

from __future__ import annotations

from dataclasses import replace

from runners.planning.machines import Machine
from runners.planning.parts import PlannedPhase
from runners.planning.session import DOWNLOAD_SHARE, LOAD_GB_S, Estimate, boot, transfer
from runners.serving.graphs import graph_sizes
from runners.spec import MachineSpec, ServeSpec

#: Container, Python, vLLM's imports, configuration, the engine's process; bound by the processor (arXiv 2606.07362).
PROGRAM_S = Estimate(12, 18, 40, "assumed")
#: torch.compile of the 14B's decoder; the same read from a cache that came with the model.
COMPILE_S, COMPILED_S = Estimate(15, 35, 90, "assumed"), Estimate(2, 4, 10, "assumed")
#: One size of CUDA graphs, with its memory.
GRAPH_S = Estimate(0.2, 0.5, 1.2, "assumed")
WARM_UP_S, FIRST_S = Estimate(3, 6, 15, "assumed"), Estimate(0.3, 1, 3, "assumed")
#: Seconds from "created" to the first completion that a start should keep.
GOAL_RUN_S, GOAL_BAKED_S = 60.0, 75.0


def phases(spec: ServeSpec, wanted: MachineSpec, host: Machine, weights_gb: float, *, compiled: bool, merges: bool = False) -> tuple[PlannedPhase, ...]:
    """Every phase of a start.

    Args:
        compiled: the compile cache of this model, image and card is published.
        merges: an adapter is merged first, so nothing is loaded while it arrives.
    """
    arrives, loads = transfer(weights_gb, host, DOWNLOAD_SHARE), LOAD_GB_S.takes(weights_gb)
    # The weights arrive while the program starts; what is left is waited for, then they go onto the card.
    starts = PROGRAM_S.times(0) if merges else PROGRAM_S
    best, expected, worst = (max(0.0, a - s) + load for a, s, load in zip(arrives.values, starts.values, loads.values, strict=True))
    sizes = len(graph_sizes(spec))
    graphs = replace(GRAPH_S.times(sizes), source=f"assumed, {sizes} sizes")
    after = () if spec.eager else ((COMPILED_S if compiled else COMPILE_S).phase("compile"), graphs.phase("graphs"))
    return (
        *boot(wanted),
        PROGRAM_S.phase("program"),
        PlannedPhase("weights", best, expected, worst, "loading measured; the network's share assumed"),
        *after,
        WARM_UP_S.phase("warm up"),
        FIRST_S.phase("first completion"),
    )


def compiled_saves_s(spec: ServeSpec) -> float:
    """Seconds that compiled code would save, where none is published."""
    return 0.0 if spec.eager or spec.compiled else COMPILE_S.expected - COMPILED_S.expected


def goal_s(wanted: MachineSpec) -> float | None:
    """The goal of a start; None for a VM that installs docker and pulls its images first."""
    return GOAL_RUN_S if wanted.provisioning_model == "RUN" else GOAL_BAKED_S if wanted.image_is_baked else None
