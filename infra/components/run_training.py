"""Two jobs of Cloud Run, one task each: train and merge, then quantize. The first starts the second; both end by themselves.

A task that fails, is taken for maintenance or reaches its time-out is tried again by the platform, and goes on from what is in the bucket.
"""

from __future__ import annotations

import pulumi
import pulumi_gcp as gcp

from infra.components.foundation_reference import FoundationReference
from infra.run_plan import JobPlan, TrainingPlan


class RunTraining(pulumi.ComponentResource):
    """Spec, both jobs, and the right of the first to start the second."""

    spec_uri: pulumi.Output[str]

    def __init__(self, stack: str, plan: TrainingPlan, foundation: FoundationReference) -> None:
        super().__init__("elson:infra:RunTraining", stack)
        mine = pulumi.ResourceOptions(parent=self)
        spec, self.spec_uri = foundation.spec_object("spec", plan.spec, self)
        account = foundation.account("train")
        second = self._job(plan, plan.quantize, account, [spec])
        starts = gcp.cloudrunv2.JobIamMember(
            "starts-quantize",
            project=second.project,
            location=second.location,
            name=second.name,
            role="roles/run.invoker",
            member=pulumi.Output.format("serviceAccount:{0}", account),
            opts=mine,
        )
        self._job(plan, plan.train, account, [spec, starts])
        self.register_outputs({"spec_uri": self.spec_uri})

    def _job(self, plan: TrainingPlan, job: JobPlan, account: pulumi.Output[str], after: list[pulumi.Resource]) -> gcp.cloudrunv2.Job:
        container = job.container
        return gcp.cloudrunv2.Job(
            container.name,
            name=job.name,
            location=plan.region,
            launch_stage="BETA",  # cards other than the L4, and GPUs of jobs, are in preview
            deletion_protection=False,
            labels=dict(plan.labels),
            start_execution_token=job.start_token,
            template={
                "task_count": 1,
                "parallelism": 1,
                "labels": dict(plan.labels),
                "template": {
                    "service_account": account,
                    "execution_environment": "EXECUTION_ENVIRONMENT_GEN2",
                    "timeout": f"{job.timeout_s}s",
                    "max_retries": job.retries,
                    "gpu_zonal_redundancy_disabled": True,
                    "node_selector": {"accelerator": plan.accelerator},
                    "containers": [
                        {
                            "name": container.name,
                            "image": container.image,
                            "args": list(container.arguments),
                            "envs": [{"name": name, "value": value} for name, value in container.environment],
                            "resources": {"limits": dict(container.limits)},
                        }
                    ],
                },
            },
            opts=pulumi.ResourceOptions(parent=self, depends_on=after, delete_before_replace=True),
        )
