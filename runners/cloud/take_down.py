"""``elson down``: which stacks are there, in the order in which they can go, and what stays billed."""

from __future__ import annotations

import time

from runners import log
from runners.cloud import deploy, jobs
from runners.errors import UserError
from runners.planning import stacks

#: Seconds that a cancelled execution may take to end: ten of grace, and the platform's own.
_PATIENCE_S, _EVERY_S = 180.0, 3.0
#: What no destroy of ours deletes.
LEFT = (
    "the models bucket, about 2 cents a GB and month: infra/README.md says how to delete it too",
    "boot images of `elson images bake`, about $1 a month each: gcloud compute images list --filter=family:elson-",
    "the buckets that Cloud Build and Cloud Functions made, and Pulumi's state: cents",
)


def there(name: str | None) -> dict[str, int]:
    """Stack -> how many resources it has; all of them, foundation last, when no name is given. Raises UserError."""
    deploy.login()
    known = stacks.names()
    if name is not None and name not in known:
        raise UserError(f"there is no stack {name}", f"one of {', '.join(known)}", "elson down --all")
    machines = [one for one in known if stacks.load(one).role != "foundation"]
    wanted = [name] if name else [*machines, *(one for one in known if one not in machines)]
    found = {one: deploy.resources(one) for one in wanted}
    if name and name not in machines and (others := [one for one in machines if deploy.resources(one)]):
        raise UserError(f"{', '.join(others)} stand on {name}", "no stack that needs it", "elson down --all, or these first")
    return found


def shown(found: dict[str, int]) -> list[str]:
    """One line a stack."""
    return [f"{name:16} {f'{count} resources' if count else 'not there'}" for name, count in found.items()]


def destroy(names: list[str]) -> None:
    """End what works, then destroy stacks in this order; what is protected stays. Raises UserError."""
    for name in names:
        _end_executions(name)
        deploy.destroy(name, keep_protected=stacks.load(name).role == "foundation")


def _end_executions(name: str) -> None:
    """Cancel the executions of a training on Cloud Run, and wait until they have ended: whether deleting a job ends them is not known."""
    outputs, stack = deploy.outputs(name), stacks.load(name)
    if not outputs.get("jobs"):
        return
    where = {"project": stack.project, "region": outputs["region"], "run_jobs": " ".join(outputs["jobs"])}
    until = time.monotonic() + _PATIENCE_S
    try:
        for execution in jobs.cancel(where):
            log.say(f"cancelled {execution}; it ends within a minute or two", err=True)
        while (left := jobs.executions_left(where)) and time.monotonic() < until:
            time.sleep(_EVERY_S)
    except OSError as error:
        raise UserError(
            f"the executions of {name} could not be cancelled: {error}", "roles/run.developer, and Cloud Run to answer", f"then again: elson down {name}"
        ) from None
    if left:
        raise UserError(f"{', '.join(left)} has been cancelled and has not ended", f"an end within {_PATIENCE_S:.0f} s", f"wait a minute; elson down {name}")
