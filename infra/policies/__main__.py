"""The rules as a Pulumi policy pack.

pulumi up -s train-h100 --policy-pack infra/policies
"""

import sys
from collections.abc import Callable
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[2]))


def main() -> None:
    """Serve the pack to the engine."""
    from pulumi_policy import EnforcementLevel, PolicyPack, ResourceValidationArgs, ResourceValidationPolicy

    from infra.policies.rules import RULES, Rule

    def validation(rule: Rule) -> Callable[[ResourceValidationArgs, Callable[[str, str | None], None]], None]:
        def validate(args: ResourceValidationArgs, report: Callable[[str, str | None], None]) -> None:
            for problem in rule.problems(args.resource_type, dict(args.props), protect=bool(args.opts.protect)):
                report(problem, None)

        return validate

    policies = [ResourceValidationPolicy(name=rule.name, description=f"{rule.text} ({', '.join(rule.mirrors)})", validate=validation(rule)) for rule in RULES]
    PolicyPack("elson", list(policies), EnforcementLevel.MANDATORY)


if __name__ == "__main__":
    main()
