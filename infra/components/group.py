"""A regional group of one VM, or of several with an autoscaler: spec object, template, health check, group.

A standalone spot VM never comes back; a group of one makes it again when there is capacity, in another zone if need be. The group's name carries the
stage's id, so another spec replaces it (the finished one has size 0 in the cloud and 1 in the state).
Left out on purpose: stateful addresses and disks, which would tie the VM to one zone.
"""

from __future__ import annotations

import pulumi
import pulumi_gcp as gcp

from infra.components.balancer import PORT_NAME
from infra.components.foundation_reference import FoundationReference
from infra.plan import GroupPlan, Scaling, Scheduling
from runners.planning.machines import Machine
from runners.vm import payload


class Group(pulumi.ComponentResource):
    """Spec, template, health check and group."""

    group_name: pulumi.Output[str]
    spec_uri: pulumi.Output[str]

    def __init__(self, stack: str, plan: GroupPlan, foundation: FoundationReference, address: pulumi.Output[str] | None) -> None:
        super().__init__("elson:infra:Group", stack)
        # Children of components of one type share a namespace.
        self._suffix = "" if plan.place == 1 else f"-{plan.place}"
        spec, self.spec_uri = foundation.spec_object(f"spec{self._suffix}", plan.spec, self)
        template = self._template(plan, foundation, address, spec)
        self.group = self._group(plan, template)
        self.group_name = self.group.name
        self.register_outputs({"group_name": self.group_name, "spec_uri": self.spec_uri})

    def _template(
        self, plan: GroupPlan, foundation: FoundationReference, address: pulumi.Output[str] | None, spec: gcp.storage.BucketObject
    ) -> gcp.compute.RegionInstanceTemplate:
        metadata = pulumi.Output.all(foundation["apiKeySecret"], foundation["scratchBucket"]).apply(
            lambda values: payload.metadata() | plan.metadata(values[0], values[1])
        )
        subnet, account = foundation.subnet(plan.subnet, plan.region), foundation.account(plan.role)
        return gcp.compute.RegionInstanceTemplate(
            f"template{self._suffix}",
            # The new template is made before the old one goes, so whatever replaces it must be in its name.
            name=pulumi.Output.all(subnet, account, address, foundation["apiKeySecret"]).apply(lambda values: plan.template_name(*values)),
            region=plan.region,
            machine_type=plan.machine.gce_type,
            can_ip_forward=False,
            labels=dict(plan.labels),
            metadata=metadata,
            disks=[
                {
                    "source_image": plan.image,
                    "boot": True,
                    "auto_delete": True,
                    "disk_type": plan.machine.disk_type,
                    "disk_size_gb": plan.disk_gb,
                    "labels": dict(plan.labels),
                }
            ],
            guest_accelerators=_accelerators(plan.machine),
            # Flex-start capacity is never a reservation's, and the API wants to hear so.
            reservation_affinity={"type": "NO_RESERVATION"} if plan.scheduling.provisioning_model == "FLEX_START" else None,
            network_interfaces=[
                {
                    "subnetwork": subnet,
                    "nic_type": "GVNIC",  # what accelerator machines need for their full bandwidth
                    "access_configs": [{"nat_ip": address, "network_tier": "PREMIUM"}] if address else [],
                }
            ],
            scheduling=_scheduling(plan.scheduling),
            service_account={
                "email": account,
                "scopes": ["https://www.googleapis.com/auth/cloud-platform"],  # what it may do is decided by its roles alone
            },
            # Secure boot stays off: a driver module that is not signed for it would not load, and the VM would cost money without its GPU.
            shielded_instance_config={"enable_vtpm": True, "enable_integrity_monitoring": True, "enable_secure_boot": False},
            opts=pulumi.ResourceOptions(parent=self, depends_on=[spec]),
        )

    def _group(self, plan: GroupPlan, template: gcp.compute.RegionInstanceTemplate) -> gcp.compute.RegionInstanceGroupManager:
        repair, scaling = plan.repair, plan.scaling if plan.size else None
        check = self._health_check(plan)
        # A group cannot be deleted while a load balancer sends it requests, and that learns of the new group after it was made. So a group of several is made
        # before the old one goes, under another name (its job's id has all that replaces it), and is no successor of a group of one.
        made = gcp.compute.RegionInstanceGroupManager(
            "servers" if plan.scaling else f"group{self._suffix}",
            name=plan.name,
            region=plan.region,
            base_instance_name=plan.name,
            # With an autoscaler the size is its own to say.
            target_size=None if scaling else plan.size,
            named_ports=[{"name": PORT_NAME, "port": plan.access.port}] if plan.balancing and plan.access else None,
            distribution_policy_zones=list(plan.zones),
            distribution_policy_target_shape=repair.target_shape,
            target_size_policies=[{"mode": repair.size_mode}],
            versions=[{"instance_template": template.self_link}],
            auto_healing_policies={"health_check": check.self_link, "initial_delay_sec": repair.initial_delay_s or 0} if check else None,
            instance_lifecycle_policy={
                "default_action_on_failure": repair.on_failure,
                "force_update_on_repair": "YES",
                "on_repair": {"allow_changing_zone": repair.change_zone},
            },
            update_policy={
                "type": repair.update_type,
                "minimal_action": "REPLACE",
                "replacement_method": repair.replacement_method,
                "instance_redistribution_type": repair.redistribution,
                "max_surge_fixed": repair.max_surge,
                "max_unavailable_fixed": repair.max_unavailable,
            },
            # A stockout is waited for by the group, not by this command.
            wait_for_instances=False,
            # With several places the watchdog says which of them has size 1: `pulumi up --refresh` must not ask for a second VM.
            opts=pulumi.ResourceOptions(parent=self, delete_before_replace=not plan.scaling, ignore_changes=["targetSize"] if plan.places else None),
        )
        if scaling:
            self._autoscaler(plan, scaling, made)
        return made

    def _autoscaler(self, plan: GroupPlan, scaling: Scaling, group: gcp.compute.RegionInstanceGroupManager) -> None:
        # Named as its group: what stops the group takes it away first, since the size of an autoscaled group cannot be set.
        gcp.compute.RegionAutoscaler(
            "autoscaler",
            name=plan.name,
            region=plan.region,
            target=group.id,
            autoscaling_policy={
                "mode": "ON",
                "min_replicas": scaling.least,
                "max_replicas": scaling.most,
                "cooldown_period": scaling.cooldown_s,
                "metrics": [{"name": name, "target": target, "type": "GAUGE"} for name, target in scaling.targets],
                "scale_in_control": {"max_scaled_in_replicas": {"fixed": 1}, "time_window_sec": scaling.scale_in_window_s},
            },
            opts=pulumi.ResourceOptions(parent=self, delete_before_replace=True),
        )

    def _health_check(self, plan: GroupPlan) -> gcp.compute.HealthCheck | None:
        repair = plan.repair
        if repair.health_port is None:
            return None
        return gcp.compute.HealthCheck(
            "health",
            name=f"{plan.name}-health",
            description="the gateway says 200 only while completions come back",
            check_interval_sec=20,
            timeout_sec=10,
            # In an update an old server goes once the new one is healthy here. The load balancer looks every 10 s with one answer, so it has seen it by then.
            healthy_threshold=2,
            unhealthy_threshold=6,
            http_health_check={"port": repair.health_port, "request_path": "/health"},
            log_config={"enable": True},
            opts=pulumi.ResourceOptions(parent=self),  # the group uses the old one until it is replaced itself, so that one goes last
        )


def _accelerators(machine: Machine) -> list[gcp.compute.RegionInstanceTemplateGuestAcceleratorArgsDict]:
    """Cards of a general machine type; accelerator-optimized types bring theirs."""
    if not machine.attached:
        return []
    return [{"type": machine.accelerator.type, "count": machine.count}]


def _scheduling(plan: Scheduling) -> gcp.compute.RegionInstanceTemplateSchedulingArgsDict:
    found: gcp.compute.RegionInstanceTemplateSchedulingArgsDict = {
        "provisioning_model": plan.provisioning_model,
        "preemptible": plan.preemptible,
        "automatic_restart": plan.automatic_restart,
        "on_host_maintenance": plan.on_host_maintenance,
        "instance_termination_action": plan.termination_action,
        "max_run_duration": {"seconds": plan.max_run_s},
    }
    return {**found, "preemption_notice_duration": {"seconds": plan.notice_s}} if plan.notice_s else found
