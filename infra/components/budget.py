"""The month's budget: mails at its fractions, and a message to the function that stops everything.

Google's figures lag by hours, so it is the last of five stops, not the first. The amount is in the billing account's own currency: the API refuses another.
"""

from __future__ import annotations

import pulumi
import pulumi_gcp as gcp

from infra.components.services import Services
from runners.spec import FoundationSpec


class Budget(pulumi.ComponentResource):
    """A budget on this project alone."""

    def __init__(
        self,
        project: str,
        spec: FoundationSpec,
        account: str,
        number: pulumi.Output[str],
        topic: pulumi.Output[str],
        channels: list[pulumi.Output[str]],
        after: Services,
    ) -> None:
        super().__init__("elson:infra:Budget", "budget")
        amount = spec.budget_per_month
        mine = pulumi.ResourceOptions(parent=self)
        # A budget belongs to a billing account, so a user's own login has no project to count the call on: without these two the API answers 403.
        billing = gcp.Provider("billing", project=project, billing_project=project, user_project_override=True, opts=mine)
        gcp.billing.Budget(
            "budget",
            billing_account=account,
            display_name="elson",
            budget_filter={
                "projects": [pulumi.Output.format("projects/{0}", number)],
                "calendar_period": "MONTH",
                "credit_types_treatment": "EXCLUDE_ALL_CREDITS",
            },
            amount={"specified_amount": {"units": str(int(amount)), "nanos": round(amount % 1 * 1e9)}},
            threshold_rules=[{"threshold_percent": fraction, "spend_basis": "CURRENT_SPEND"} for fraction in spec.budget_alert_fractions],
            all_updates_rule={
                "pubsub_topic": topic,
                "schema_version": "1.0",
                "monitoring_notification_channels": channels,
                "disable_default_iam_recipients": False,
            },
            opts=after.first(self, provider=billing),
        )
        self.register_outputs({})
