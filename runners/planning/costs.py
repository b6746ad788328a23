"""What a stage's time on its machine cost, for its record."""

from __future__ import annotations

from runners.artifacts.record import Cost
from runners.planning.machines import load_prices, machine
from runners.spec import Spec


def of_stage(spec: Spec, seconds: float) -> Cost | None:
    """Dollars of ``seconds`` on the spec's machine with its disk, by the dated table; None at home, where there is no machine to pay.

    Raises UserError when the table has no price for the machine.
    """
    wanted = spec.machine
    if wanted is None:
        return None
    prices, host = load_prices(wanted.region), machine(wanted.machine_type)
    hourly = prices.of(host, wanted.provisioning_model).usd_per_hour + prices.disk_usd_per_hour(host.disk_type, wanted.disk_gb)
    return Cost(
        usd=round(hourly * seconds / 3600, 4), usd_per_hour=round(hourly, 4), machine_type=f"{host.name} {wanted.provisioning_model}", priced_at=prices.as_of
    )
