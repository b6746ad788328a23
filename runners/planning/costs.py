"""What a machine costs an hour, for the records of what runs on it. The container that writes a record has no price table."""

from __future__ import annotations

from runners.fields import PriceSpec
from runners.planning.machines import load_prices, machine
from runners.spec import Spec


def with_price(spec: Spec) -> Spec:
    """The spec with its machine's price by the dated table, the disk included; unchanged at home, where there is no machine to pay.

    Raises UserError when the table has no price for the machine.
    """
    wanted = spec.machine
    if wanted is None:
        return spec
    prices, host = load_prices(wanted.region), machine(wanted.machine_type)
    if wanted.provisioning_model not in host.provisioning:
        return spec  # not sold so: the plan refuses it
    hourly = prices.of(host, wanted.provisioning_model).usd_per_hour + prices.disk_usd_per_hour(host.disk_type, wanted.disk_gb)
    price = PriceSpec(usd_per_hour=round(hourly, 4), priced_at=prices.as_of)
    return spec.model_copy(update={"machine": wanted.model_copy(update={"price": price})})
