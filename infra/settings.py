"""The stack's configuration as a spec: its tracked file, and over it what Pulumi holds for the user."""

from __future__ import annotations

from typing import Any

import pulumi
import pulumi_gcp as gcp

from runners.errors import UserError
from runners.planning import stacks
from runners.planning.stacks import Stack


def load() -> Stack:
    """The selected stack. Raises UserError naming the key that is missing."""
    name = pulumi.get_stack()
    project = gcp.config.project
    if not project:
        raise UserError("no Google Cloud project is set", "gcp:project", f"pulumi config set gcp:project PROJECT_ID -s {name}")
    own: Any = pulumi.Config("elson").get_object("spec")
    base = stacks.tracked(name)
    if own is None and base is None:
        raise UserError(f"the stack {name} has no elson:spec", f"infra/stacks/Pulumi.{name}.yaml", "copy the stack file that is nearest to what you want")
    return stacks.from_config(name, project, stacks.layered(base or {}, own or {}), f"infra/stacks/Pulumi.{name}.yaml")
