"""A pause after something that Google makes known everywhere only later: an API that was switched on, a grant.

Without it the first `pulumi up` of a project fails half way: a function is built by an account whose rights nobody knows yet. The pause is made once;
the next `up` finds it in the state. The provider is Terraform's time_sleep (https://www.pulumi.com/registry/packages/time), which the engine fetches
by itself: no Python package is needed.
"""

from __future__ import annotations

from collections.abc import Sequence

import pulumi


class Pause(pulumi.CustomResource):
    """Seconds between what ``after`` names and whatever depends on this."""

    def __init__(self, name: str, seconds: int, after: Sequence[pulumi.Resource], parent: pulumi.Resource) -> None:
        options = pulumi.ResourceOptions(
            parent=parent, depends_on=list(after), version="0.1.1", plugin_download_url="github://api.github.com/pulumiverse/pulumi-time"
        )
        super().__init__("time:index/sleep:Sleep", name, {"createDuration": f"{seconds}s"}, options)
