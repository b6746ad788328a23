"""The catalogue: cards, machine types, and what they cost according to a dated table (``prices.yaml``).

Figures of cards are the makers' data sheets; usable memory is what the driver reports free. Prices are data, never code:
``elson prices refresh`` writes the table again from Google's billing catalogue.
"""

from __future__ import annotations

import functools
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

from runners import outside
from runners.errors import UserError
from runners.planning import cloud_run

Provisioning = Literal["SPOT", "STANDARD", "FLEX_START", "RUN"]
PRICES_FILE = Path(__file__).with_name("prices.yaml")
HOURS_PER_MONTH = 730
#: The disk of an instance of Cloud Run: its own memory, paid for already.
MEMORY = "memory"


@dataclass(frozen=True)
class Accelerator:
    """One card. ``memory_gib`` is usable; ``bandwidth_gb_s`` and ``tflops`` (dense, 16 bit) are the data sheet's."""

    name: str
    type: str
    memory_gib: float
    bandwidth_gb_s: float
    tflops: float
    capability: tuple[int, int]
    quota: str

    @property
    def has_bf16(self) -> bool:
        """bf16 arithmetic came with capability 8.0."""
        return self.capability >= (8, 0)

    @property
    def has_marlin(self) -> bool:
        """vLLM's fast 4-bit kernels; below 8.0 the plain AWQ kernel runs."""
        return self.capability >= (8, 0)

    @property
    def has_fp8_cache(self) -> bool:
        """vLLM's fp8 KV cache needs 8.9 in hardware; below it is refused here."""
        return self.capability >= (8, 9)


# https://www.nvidia.com/en-us/data-center/{h100,a100,l4,tesla-t4}; memory from `nvidia-smi` on each card (L4: 22.05 GiB usable).
H100 = Accelerator("H100 80 GB", "nvidia-h100-80gb", 79.2, 3350, 989, (9, 0), "NVIDIA_H100_GPUS")
A100_80 = Accelerator("A100 80 GB", "nvidia-a100-80gb", 79.2, 2039, 312, (8, 0), "NVIDIA_A100_80GB_GPUS")
A100_40 = Accelerator("A100 40 GB", "nvidia-tesla-a100", 39.5, 1555, 312, (8, 0), "NVIDIA_A100_GPUS")
L4 = Accelerator("L4 24 GB", "nvidia-l4", 22.05, 300, 121, (8, 9), "NVIDIA_L4_GPUS")
T4 = Accelerator("T4 16 GB", "nvidia-tesla-t4", 14.6, 300, 65, (7, 5), "NVIDIA_T4_GPUS")
# 16 bit: an eighth of the data sheet's 4,000 TFLOP/s of sparse FP4; memory: 97,887 MiB less the driver's. Neither was measured here.
RTX_PRO_6000 = Accelerator("RTX PRO 6000 96 GB", "nvidia-rtx-pro-6000", 94.9, 1597, 500, (12, 0), "NVIDIA_RTX_PRO_6000_GPUS")


@dataclass(frozen=True)
class Machine:
    """A machine type with its cards. ``gce_type`` differs from ``name`` where cards are attached to a general machine type.

    Instances of Cloud Run are machines too: bought as RUN, in ``regions`` instead of zones, with memory (GiB) for a disk.
    """

    name: str
    gce_type: str
    accelerator: Accelerator
    count: int
    vcpus: int
    memory_gb: int
    network_gbps: float
    disk_type: str
    local_ssd_gib: int = 0
    provisioning: tuple[Provisioning, ...] = ("SPOT", "STANDARD")
    zones: tuple[tuple[str, tuple[str, ...]], ...] = ()
    regions: tuple[str, ...] = ()

    @property
    def is_run(self) -> bool:
        """Whether this is an instance of Cloud Run and not a VM."""
        return self.provisioning == ("RUN",)

    @property
    def attached(self) -> bool:
        """Whether the cards must be asked for apart from the machine type."""
        return self.gce_type != self.name

    @property
    def memory_gib(self) -> float:
        """Usable memory of all cards."""
        return self.count * self.accelerator.memory_gib

    def disk_gb_s(self, disk_gb: int) -> float:
        """GB/s of a boot disk. Quoted: 140 MiB/s, of pd-balanced 0.28 more a GiB, 1,200 at most (cloud.google.com/compute/docs/disks/performance)."""
        mib_s = 140 + 0.28 * disk_gb if self.disk_type == "pd-balanced" else 140
        return min(mib_s, 1200) * 2**20 / 1e9

    def zones_in(self, region: str) -> tuple[str, ...]:
        """Zones known to offer the machine, or none known."""
        return dict(self.zones).get(region, ())

    def quota(self, provisioning: Provisioning) -> str:
        """The regional quota a card of this machine counts against; spot and flex-start have their own."""
        return self.accelerator.quota if provisioning == "STANDARD" else f"PREEMPTIBLE_{self.accelerator.quota}"


def _g2(size: int, count: int, memory_gb: int, network_gbps: float) -> Machine:
    zones = (("us-central1", ("us-central1-a", "us-central1-b", "us-central1-c")),)
    # g2 takes pd-balanced, not Hyperdisk Balanced: https://cloud.google.com/compute/docs/accelerator-optimized-machines
    return Machine(
        f"g2-standard-{size}", f"g2-standard-{size}", L4, count, size, memory_gb, network_gbps, "pd-balanced", provisioning=("SPOT", "STANDARD"), zones=zones
    )


def _t4(count: int) -> Machine:
    zones = (("us-central1", ("us-central1-a", "us-central1-b", "us-central1-c", "us-central1-f")),)
    return Machine(f"n1-standard-8-{count}xt4", "n1-standard-8", T4, count, 8, 30, 16, "pd-balanced", zones=zones)


def _run(name: str, card: Accelerator, vcpus: int, memory_gib: int) -> Machine:
    # Google publishes no line rate of these instances: 10 Gbit/s is assumed.
    return Machine(name, name, card, 1, vcpus, memory_gib, 10, MEMORY, provisioning=("RUN",), regions=cloud_run.REGIONS[card.type])


_US = (("us-central1", ("us-central1-a", "us-central1-b", "us-central1-c")),)
MACHINES = {
    machine.name: machine
    for machine in (
        # One to four H100 are sold as spot or flex-start only; the boot disk must be Hyperdisk Balanced.
        Machine("a3-highgpu-1g", "a3-highgpu-1g", H100, 1, 26, 234, 25, "hyperdisk-balanced", 750, ("SPOT", "FLEX_START"), _US),
        Machine("a3-highgpu-2g", "a3-highgpu-2g", H100, 2, 52, 468, 50, "hyperdisk-balanced", 1500, ("SPOT", "FLEX_START"), _US),
        Machine("a3-highgpu-4g", "a3-highgpu-4g", H100, 4, 104, 936, 100, "hyperdisk-balanced", 3000, ("SPOT", "FLEX_START"), _US),
        Machine("a3-highgpu-8g", "a3-highgpu-8g", H100, 8, 208, 1872, 100, "hyperdisk-balanced", 6000, ("SPOT", "STANDARD", "FLEX_START"), _US),
        Machine("a2-highgpu-1g", "a2-highgpu-1g", A100_40, 1, 12, 85, 24, "pd-balanced", 0, ("SPOT", "STANDARD"), _US),
        Machine("a2-ultragpu-1g", "a2-ultragpu-1g", A100_80, 1, 12, 170, 24, "pd-balanced", 375, ("SPOT", "STANDARD"), _US),
        _g2(4, 1, 16, 10),
        _g2(8, 1, 32, 16),
        _g2(12, 1, 48, 16),
        _g2(24, 2, 96, 32),
        _g2(48, 4, 192, 50),
        _t4(1),
        _t4(2),
        # g4 takes Hyperdisk Balanced only: https://cloud.google.com/compute/docs/accelerator-optimized-machines
        Machine("g4-standard-48", "g4-standard-48", RTX_PRO_6000, 1, 48, 180, 50, "hyperdisk-balanced", zones=(("us-central1", ("us-central1-b",)),)),
        _run("run-l4-4", L4, 4, 16),
        _run("run-l4-8", L4, 8, 32),
        _run("run-rtx6000-20", RTX_PRO_6000, 20, 80),
    )
}


def machine(name: str) -> Machine:
    """A machine of the catalogue. Raises UserError with the names there are."""
    try:
        return MACHINES[name]
    except KeyError:
        raise UserError(f"machine.machine_type is {name!r}", f"one of {', '.join(MACHINES)}", "edit the stack file") from None


@dataclass(frozen=True)
class Price:
    """Dollars per hour: what to expect, and the dearest seen."""

    usd_per_hour: float
    high_usd_per_hour: float


@dataclass(frozen=True)
class Prices:
    """A dated table of one region. ``gateway_usd_per_hour`` is the core and the half GiB beside a server on Cloud Run."""

    as_of: str
    source: str
    region: str
    machines: dict[str, dict[str, Price]]
    disk_usd_per_gb_month: dict[str, float]
    storage_usd_per_gb_month: float
    nat_usd_per_hour: float
    address_usd_per_hour: float
    transfer_usd_per_gb: float
    gateway_usd_per_hour: float = 0.0

    def of(self, machine: Machine, provisioning: Provisioning) -> Price:
        """Price of a machine. Raises UserError when the table has none."""
        found = self.machines.get(machine.name, {}).get(provisioning)
        if found is None:
            raise UserError(
                f"the price table of {self.as_of} has no {provisioning} price for {machine.name} in {self.region}", "a price", "elson prices refresh"
            )
        return found

    def disk_usd_per_hour(self, disk_type: str, gb: int) -> float:
        """Price of a boot disk while its VM lives."""
        return 0.0 if disk_type == MEMORY else self.disk_usd_per_gb_month[disk_type] * gb / HOURS_PER_MONTH


@functools.cache
def load_prices(region: str = "us-central1", file: Path = PRICES_FILE) -> Prices:
    """The price table of a region. Raises UserError when the region is not in it."""
    return outside.shaped(lambda: _prices(region, outside.read_yaml(file)), str(file), "a price table", "elson prices refresh writes it again")


def _prices(region: str, table: dict[str, Any]) -> Prices:
    found = table["regions"].get(region)
    if found is None:
        raise UserError(f"the price table has no region {region}", f"one of {', '.join(table['regions'])}", f"elson prices refresh --region {region}")
    machines = {
        name: {model: Price(entry["usd_per_hour"], entry.get("high_usd_per_hour", entry["usd_per_hour"])) for model, entry in models.items()}
        for name, models in found["machines"].items()
    }
    if rates := found.get("cloud_run"):
        machines |= {host.name: {"RUN": _run_price(host, rates)} for host in MACHINES.values() if host.is_run and host.accelerator.type in rates["cards"]}
    gateway = rates["vcpu_usd_per_hour"] + rates["gib_usd_per_hour"] / 2 if rates else 0.0
    rest = {key: found[key] for key in ("disk_usd_per_gb_month", "storage_usd_per_gb_month", "nat_usd_per_hour", "address_usd_per_hour", "transfer_usd_per_gb")}
    return Prices(str(found["as_of"]), found["source"], region, machines, gateway_usd_per_hour=gateway, **rest)


def _run_price(host: Machine, rates: dict[str, Any]) -> Price:
    """An hour of an instance: cores, memory and card are billed apart, by the second."""
    rest = host.vcpus * rates["vcpu_usd_per_hour"] + host.memory_gb * rates["gib_usd_per_hour"]
    card = rates["cards"][host.accelerator.type]
    low = rest + card["usd_per_hour"]
    return Price(round(low, 4), round(rest + card.get("high_usd_per_hour", card["usd_per_hour"]), 4))
