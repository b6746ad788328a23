"""The stages of the job: one table. A VM's agent reads this file with the standard library alone."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

Kind = Literal["base", "dora", "lora", "merged", "qdora", "qlora", "eagle3", "dataset"]
ADAPTERS: tuple[Kind, ...] = ("dora", "lora")
QUANTIZED: tuple[Kind, ...] = ("qdora", "qlora")
#: How a model's weights are stored; declared where a model is published, and what the planner sizes. Another format is added here and in training/shape.py.
Format = Literal["bf16", "awq"]


@dataclass(frozen=True)
class Stage:
    """One row of the table of stages.

    Args:
        name: the command, and the section of the spec.
        module: what does the work; its imports are the stage's code.
        image: the folder under ``images/`` with its lock, the container, and the local environment.
        role: the kind of machine that runs it.
        published_as: the field of ``ModelNames`` its result is published under; None for a server.
        format: how the weights of its result are stored; None for an adapter and a server.
        inside: the stage whose program does this one too, after its own work, where the spec asks for it; it has no container of its own.
    """

    name: str
    module: str
    image: str
    role: Literal["train", "serve"]
    published_as: Literal["dora", "merged", "head", "qdora"] | None = None
    format: Format | None = None
    inside: str | None = None


STAGES = (
    Stage("train", "runners.training.several", "train", "train", "dora"),
    Stage("merge", "runners.compression.merge", "train", "train", "merged", "bf16"),
    Stage("head", "runners.compression.head", "train", "train", "head", "bf16", inside="merge"),
    Stage("quantize", "runners.compression.quantize", "quantize", "train", "qdora", "awq"),
    Stage("serve", "runners.serving.serve", "serve", "serve"),
)
STAGE = {stage.name: stage for stage in STAGES}
MAKERS = tuple(stage for stage in STAGES if stage.published_as)
#: The frame that every container runs its stage in: the command line, the buckets, the records.
FRAME = ("runners.__main__", "runners.commands.cli", "runners.commands.stages", "runners.commands.serve", "runners.commands.job", "runners.stages")
#: Containers of a server beside the model's: not made from ``runners``.
GATEWAY = "gateway"
IMAGES = (*dict.fromkeys(stage.image for stage in STAGES), GATEWAY)


def stages_of(role: str) -> tuple[str, ...]:
    """The containers that a role's machine starts, in the order of the work; a server also has the gateway."""
    found = tuple(stage.name for stage in STAGES if stage.role == role and not stage.inside)
    return (*found, GATEWAY) if role == "serve" else found


def image_of(stage: str) -> str:
    """The image that a stage runs in."""
    return STAGE[stage].image if stage in STAGE else stage


def images_of(role: str) -> tuple[str, ...]:
    """The images a role's machine needs."""
    return tuple(dict.fromkeys(image_of(stage) for stage in stages_of(role)))
