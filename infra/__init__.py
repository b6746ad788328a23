"""The cloud, as a Pulumi program. Nothing imports this package; what decides stands in ``plan.py`` and in ``runners/planning``."""
