"""Who may do what: one service account a role, each with the least it needs, none with a key file.

A training VM may add to the models bucket and change its registry, but delete or overwrite no model, and not say which one is in production.
What IAM cannot narrow down: the right to end one's own
group holds for every group of the project, since conditions on names are not known to work for group methods.
"""

from __future__ import annotations

import pulumi
import pulumi_gcp as gcp

from infra.components.buckets import Buckets
from infra.components.images import Images
from infra.components.pause import Pause
from infra.components.secrets import Secrets
from infra.components.services import Services
from runners.pipeline import QUANTIZED

#: Seconds until a grant is known everywhere: usually two minutes (cloud.google.com/iam/docs/access-change-propagation).
_GRANTED_AFTER_S = 180
#: deleteInstances and resize of a group, whose autoscaler has to go first; the group's own agent does the rest.
STOP_PERMISSIONS = (
    "compute.instanceGroupManagers.get",
    "compute.instanceGroupManagers.list",
    "compute.instanceGroupManagers.update",
    "compute.instances.get",
    "compute.instances.delete",
    "compute.instanceTemplates.get",
    "compute.autoscalers.delete",
)

#: What runs on Cloud Run, and what a bake has left, is ended from outside alone: no VM has these. A service is deleted and not changed: who may change one
#: may put another image into it.
CANCEL_PERMISSIONS = (
    "compute.instances.list",
    "monitoring.timeSeries.list",
    *(f"run.executions.{verb}" for verb in ("cancel", "get", "list")),
    *(f"run.services.{verb}" for verb in ("delete", "get", "list")),
)


class Identities(pulumi.ComponentResource):
    """Accounts for training, serving, building and stopping, and their roles."""

    def __init__(self, project: str, region: str, buckets: Buckets, images: Images, secrets: Secrets, after: Services) -> None:
        super().__init__("elson:infra:Identities", "identities")
        self._project, self._mine = project, pulumi.ResourceOptions(parent=self)
        self._grants: list[pulumi.Resource] = []
        first = after.first(self)
        self.trainer, self.server, self.builder, self.stopper = (
            gcp.serviceaccount.Account(role, account_id=f"elson-{role}", display_name=text, opts=first)
            for role, text in (
                ("train", "elson: trains and publishes"),
                ("serve", "elson: serves"),
                ("build", "elson: builds images"),
                ("stop", "elson: stops groups from outside their VMs"),
            )
        )
        stop_role = gcp.projects.IAMCustomRole(
            "stop-role",
            role_id="elsonStop",
            title="elson: end a group",
            description="take instances out of a managed group, or resize it to 0",
            permissions=list(STOP_PERMISSIONS),
            stage="GA",
            opts=first,
        )
        cancel_role = gcp.projects.IAMCustomRole(
            "cancel-role",
            role_id="elsonCancel",
            title="elson: end what is in no group",
            description="list and cancel executions of Cloud Run, list and delete services, count their instances, list VMs",
            permissions=list(CANCEL_PERMISSIONS),
            stage="GA",
            opts=first,
        )
        # An object that is not there (the state of a first boot) is a 404 only to who may list; to others it is a 403, as if the account had no right at all.
        list_role = gcp.projects.IAMCustomRole(
            "list-role",
            role_id="elsonList",
            title="elson: list a bucket",
            description="see the names of a bucket's objects, which conditions on names cannot grant",
            permissions=["storage.objects.list"],
            stage="GA",
            opts=first,
        )
        for name, account in (("train", self.trainer), ("serve", self.server)):
            self._vm(name, account, images, stop_role.name)
            self._on_bucket(f"{name}-lists-scratch", account, buckets.scratch, list_role.name)
        self._on_project("stop-stop", self.stopper, stop_role.name)
        self._on_project("stop-cancels", self.stopper, cancel_role.name)
        self._on_bucket("stop-lists-scratch", self.stopper, buckets.scratch, list_role.name)
        self._on_bucket("stop-reads-jobs", self.stopper, buckets.scratch, "roles/storage.objectViewer", prefixes=("jobs/",))
        self._on_bucket("stop-remembers", self.stopper, buckets.scratch, "roles/storage.objectUser", prefixes=("watchdog/",))
        self._on_project("build-logs", self.builder, "roles/logging.logWriter")
        self._training(buckets)
        self._serving(buckets, secrets)
        self._building(buckets, images, region)
        self.stop_member = _member(self.stopper)
        #: What acts as one of these accounts in this very `pulumi up` depends on it: grants take effect later than they are made.
        self.granted = Pause("grants-known", _GRANTED_AFTER_S, self._grants, self)
        self.emails = pulumi.Output.all(train=self.trainer.email, serve=self.server.email, build=self.builder.email)
        self.register_outputs({"emails": self.emails})

    def _vm(self, name: str, account: gcp.serviceaccount.Account, images: Images, stop_role: pulumi.Output[str]) -> None:
        self._on_project(f"{name}-logs", account, "roles/logging.logWriter")
        self._on_project(f"{name}-metrics", account, "roles/monitoring.metricWriter")
        self._on_project(f"{name}-stop", account, stop_role)
        self._on_images(f"{name}-images", account, images, "roles/artifactregistry.reader")

    def _training(self, buckets: Buckets) -> None:
        self._on_bucket("train-reads-models", self.trainer, buckets.models, "roles/storage.objectViewer")
        # What is served is promoted by a person; datasets and a server's compiled code are published by one: a training VM may write none of them,
        # not even the first.
        persons = ("production.json", "datasets/", "compiled/")
        self._on_bucket("train-adds-models", self.trainer, buckets.models, "roles/storage.objectCreator", but=persons)
        # Overwriting needs the right to delete: granted for the registry and for reports alone.
        self._on_bucket("train-changes-registry", self.trainer, buckets.models, "roles/storage.objectUser", prefixes=("registry/", "runs/"))
        self._on_bucket("train-reads-specs", self.trainer, buckets.scratch, "roles/storage.objectViewer", prefixes=("specs/",))
        mine = ("checkpoints/", "staging/", *(f"jobs/{kind}-" for kind in QUANTIZED))
        self._on_bucket("train-uses-scratch", self.trainer, buckets.scratch, "roles/storage.objectUser", prefixes=mine)

    def _serving(self, buckets: Buckets, secrets: Secrets) -> None:
        self._on_bucket("serve-reads-models", self.server, buckets.models, "roles/storage.objectViewer")
        self._on_bucket("serve-reads-specs", self.server, buckets.scratch, "roles/storage.objectViewer", prefixes=("specs/",))
        self._on_bucket("serve-keeps-its-job", self.server, buckets.scratch, "roles/storage.objectUser", prefixes=("jobs/serve-",))
        gcp.secretmanager.SecretIamMember(
            "serve-reads-key", secret_id=secrets.secret.id, role="roles/secretmanager.secretAccessor", member=_member(self.server), opts=self._mine
        )

    def _building(self, buckets: Buckets, images: Images, region: str) -> None:
        self._on_images("build-images", self.builder, images, "roles/artifactregistry.writer")
        # Where Cloud Functions keep their sources and images; both places are made by the service itself.
        for name, role, place in (
            ("build-reads-functions", "roles/storage.objectViewer", "projects/_/buckets/gcf-v2-"),
            ("build-writes-functions", "roles/artifactregistry.writer", f"projects/{self._project}/locations/{region}/repositories/gcf-artifacts"),
        ):
            only: gcp.projects.IAMMemberConditionArgsDict = {"title": "only Cloud Functions", "expression": f'resource.name.startsWith("{place}")'}
            granted = gcp.projects.IAMMember(name, project=self._project, role=role, member=_member(self.builder), condition=only, opts=self._mine)
            self._grants.append(granted)
        self._on_bucket("build-uses-scratch", self.builder, buckets.scratch, "roles/storage.objectUser", prefixes=("builds/", "functions/"))

    def _on_project(self, name: str, account: gcp.serviceaccount.Account, role: pulumi.Input[str]) -> None:
        self._grants.append(gcp.projects.IAMMember(name, project=self._project, role=role, member=_member(account), opts=self._mine))

    def _on_images(self, name: str, account: gcp.serviceaccount.Account, images: Images, role: str) -> None:
        there = images.repository
        granted = gcp.artifactregistry.RepositoryIamMember(
            name, project=self._project, location=there.location, repository=there.name, role=role, member=_member(account), opts=self._mine
        )
        self._grants.append(granted)

    def _on_bucket(
        self,
        name: str,
        account: gcp.serviceaccount.Account,
        bucket: gcp.storage.Bucket,
        role: pulumi.Input[str],
        prefixes: tuple[str, ...] = (),
        but: tuple[str, ...] = (),
    ) -> None:
        condition: gcp.storage.BucketIAMMemberConditionArgsDict | None = None
        tested = prefixes or but
        if tested:
            sign, join, word = ("", " || ", "only") if prefixes else ("!", " && ", "all but")
            tests = bucket.name.apply(
                lambda there: join.join(f'{sign}resource.name.startsWith("projects/_/buckets/{there}/objects/{prefix}")' for prefix in tested)
            )
            condition = {"title": f"{word} {', '.join(tested)}"[:100], "expression": tests}
        self._grants.append(gcp.storage.BucketIAMMember(name, bucket=bucket.name, role=role, member=_member(account), condition=condition, opts=self._mine))


def _member(account: gcp.serviceaccount.Account) -> pulumi.Output[str]:
    return pulumi.Output.format("serviceAccount:{0}", account.email)
