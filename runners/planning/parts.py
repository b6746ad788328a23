"""What a plan is made of; pure data."""

from __future__ import annotations

from dataclasses import dataclass, field

from runners.errors import UserError
from runners.planning.machines import Machine
from runners.planning.serving import Answers, ServingPlan
from runners.planning.training import FREE_SHARE, CorpusSize, Saving, TrainingMemory, main_memory_gb
from runners.spec import MachineSpec, Spec


def machine_of(stack: str, spec: Spec) -> MachineSpec:
    """The machine of a stack that trains or serves. Raises UserError for one that has none: the foundation, a profile."""
    if spec.machine is None:
        raise UserError(f"{stack} has no machine", "a stack that trains or serves", "elson plan -s train-h100")
    return spec.machine


@dataclass(frozen=True)
class PlannedPhase:
    """Seconds of one phase: at best, to expect, at worst, and where the figures come from."""

    name: str
    optimistic_s: float
    expected_s: float
    pessimistic_s: float
    source: str


@dataclass(frozen=True)
class Notice:
    """A refusal or a warning: what was found, what is needed, what would fix it."""

    found: str
    expected: str
    fix: str

    def __str__(self) -> str:
        return f"{self.found}\n  expected: {self.expected}\n  fix:      {self.fix}"


@dataclass(frozen=True)
class Money:
    """Dollars, with the date of the table they come from."""

    usd_per_hour: float
    usd_expected: float
    usd_at_most: float
    storage_usd_per_month: float
    priced_at: str
    source: str
    #: Of several servers: an hour with all that the autoscaler may make; ``usd_per_hour`` is with the least.
    usd_per_hour_grown: float | None = None


@dataclass(frozen=True)
class PlannedPlace:
    """A place where a training may run, by rank; the first is the machine itself. ``left_out`` says why a place is not used."""

    rank: int
    spec: Spec
    usd_per_hour: float = 0.0
    usd_expected: float = 0.0
    usd_at_most: float = 0.0
    expected_s: float = 0.0
    left_out: str = ""

    @property
    def machine(self) -> MachineSpec:
        """The machine of this place."""
        return machine_of("a place", self.spec)

    def __str__(self) -> str:
        bought = self.machine.provisioning_model.lower().replace("_", "-")
        return f"{self.machine.machine_type}, {bought}, {self.machine.region}"


@dataclass(frozen=True)
class Plan:
    """The plan of a train or serve stack. ``start_usd`` is what one start costs beside its time: reading the model from another region."""

    stack: str
    role: str
    machine: Machine
    spec: Spec
    disk: tuple[tuple[str, float], ...]
    phases: tuple[PlannedPhase, ...]
    money: Money
    corpus: CorpusSize | None = None
    steps: int | None = None
    memory: TrainingMemory | None = None
    memory_limit_gb: float | None = None
    savings: tuple[Saving, ...] = ()
    serving: ServingPlan | None = None
    second: ServingPlan | None = None
    answers: Answers = field(default_factory=Answers)
    start_usd: float = 0.0
    places: tuple[PlannedPlace, ...] = ()
    refusals: tuple[Notice, ...] = ()
    warnings: tuple[Notice, ...] = ()

    @property
    def wanted(self) -> MachineSpec:
        """What the spec says of the machine."""
        return machine_of(self.stack, self.spec)

    @property
    def disk_needed_gb(self) -> float:
        """Sum of the disk's parts, and a tenth free."""
        return sum(gb for _, gb in self.disk) * (1 + FREE_SHARE)

    @property
    def disk_given_gb(self) -> float:
        """What there is: the disk, or the memory of an instance of Cloud Run, in decimal gigabytes like the parts."""
        return main_memory_gb(self.machine) if self.machine.is_run else self.wanted.disk_gb

    @property
    def expected_s(self) -> float:
        """Seconds from the VM's start to the end (training) or to the first answer (serving)."""
        return sum(phase.expected_s for phase in self.phases)

    @property
    def optimistic_s(self) -> float:
        """The same at best."""
        return sum(phase.optimistic_s for phase in self.phases)

    @property
    def pessimistic_s(self) -> float:
        """The same at worst; a preemption is not in it."""
        return sum(phase.pessimistic_s for phase in self.phases)

    def accept(self) -> Plan:
        """The plan itself, or a UserError with every refusal."""
        if self.refusals:
            first, *rest = self.refusals
            more = "".join(f"\n{notice}" for notice in rest)
            raise UserError(f"{self.stack} is refused: {first.found}", first.expected, first.fix + more)
        return self
