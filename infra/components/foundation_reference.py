"""What the foundation stack offers the others, and what to do when it is not there."""

from __future__ import annotations

import asyncio
import json
from typing import Any

import pulumi
import pulumi_gcp as gcp

from infra.plan import spec_name
from runners.spec import Spec

STACK = "foundation"


class FoundationReference:
    """Outputs of the foundation. A missing one ends the program with the command that makes it."""

    def __init__(self, spec: Spec) -> None:
        machine = spec.machine
        self._agreed: dict[str, Any] = {"modelsBucket": spec.buckets.models, "scratchBucket": spec.buckets.scratch}
        on_run = machine is not None and machine.provisioning_model == "RUN"
        # Cloud Run has its cards where it has them, reads the buckets from there, and needs no network of ours.
        if machine and not on_run:
            self._agreed["region"] = machine.region
        if machine and machine.role == "serve" and not spec.serve.domain and not on_run:
            # IAP reaches the port the foundation's firewall names.
            self._agreed["gatewayPort"] = spec.serve.port
        self._name = f"{pulumi.get_organization()}/{pulumi.get_project()}/{STACK}"
        self._reference = pulumi.StackReference(self._name)
        # Registered so that the program waits for it: the engine's own words for a missing stack name no command.
        there: Any = asyncio.ensure_future(self._there())
        pulumi.Output.from_input(there)

    async def _there(self) -> bool:
        try:
            # The urn's own future: it wakes this before the failed call ends the program; outputs are derived, and came too late on a busy machine.
            await self._reference.urn.future()
            outputs = await self._reference.outputs.future()
        except Exception:
            pulumi.log.error(self._missing("it has never been made"))
            raise
        if outputs is None:
            return False
        for key, ours in self._agreed.items():
            theirs = int(outputs[key]) if isinstance(outputs.get(key), float) else outputs.get(key)
            if theirs != ours:
                raise pulumi.RunError(self._missing(f"its {key} is {theirs!r}, and this stack's is {ours!r}"))
        return True

    def _missing(self, why: str) -> str:
        return f"the stack {self._name} is not usable: {why}\n  expected: a foundation of this project\n  fix:      pulumi up -s {STACK}"

    def __getitem__(self, key: str) -> pulumi.Output[Any]:
        """One output."""

        def pick(outputs: dict[str, Any]) -> Any:
            if key not in outputs:
                raise pulumi.RunError(self._missing(f"it has no output {key}"))
            return outputs[key]

        return self._reference.outputs.apply(pick)

    def account(self, role: str) -> pulumi.Output[str]:
        """The service account of a role's machines."""
        return self["serviceAccounts"].apply(lambda accounts: accounts[role])

    def spec_object(self, name: str, spec: Spec, parent: pulumi.Resource) -> tuple[gcp.storage.BucketObject, pulumi.Output[str]]:
        """A spec in the scratch bucket, where a machine reads what it has to do, and its address."""
        made = gcp.storage.BucketObject(
            name,
            bucket=self["scratchBucketName"],
            name=spec_name(spec),
            content=json.dumps(spec.model_dump(mode="json"), indent=1, sort_keys=True),
            content_type="application/json",
            opts=pulumi.ResourceOptions(parent=parent),
        )
        return made, pulumi.Output.format("{0}/{1}", self["scratchBucket"], made.name)

    def network_with_proxies(self) -> pulumi.Output[str]:
        """The network, when load balancers have a place in it."""

        def known(outputs: dict[str, Any]) -> str:
            if not outputs.get("proxies"):
                raise pulumi.RunError(self._missing("it has no subnet for load balancers; set foundation.proxies_cidr, e.g. 10.20.255.0/24"))
            return str(outputs["network"])

        return self._reference.outputs.apply(known)

    def subnet(self, name: str, region: str) -> pulumi.Output[str]:
        """Link of a subnet by its name in the spec; in another region than the foundation's it is one of ``foundation.other_regions``."""
        if region != self._agreed.get("region", region):
            name = f"{name}@{region}"

        fix = f"add {region} to foundation.other_regions" if "@" in name else "add it to foundation.subnets"

        def pick(subnets: dict[str, str]) -> str:
            if name not in subnets:
                raise pulumi.RunError(self._missing(f"it has no subnet {name} (it has {', '.join(sorted(subnets))}); {fix}"))
            return subnets[name]

        return self["subnets"].apply(pick)
