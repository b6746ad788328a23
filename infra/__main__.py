"""The Pulumi program of every stack: load, plan, build, export.

pulumi up -s foundation        kept
pulumi up -s train-h100        trains, quantizes, publishes, and deletes its own machine
pulumi up -s serve-l4          serves what is in production, until nobody asks
"""

import sys
import warnings
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))
warnings.filterwarnings("ignore", category=FutureWarning, module="google")


def main() -> None:
    """Declare the resources of the selected stack."""
    import pulumi

    from infra import foundation, machine_stack, settings
    from runners.errors import UserError

    try:
        stack = settings.load()
        outputs = foundation.build(stack) if stack.role == "foundation" else machine_stack.build(stack)
    except UserError as error:
        raise pulumi.RunError(str(error)) from None
    for name, value in outputs.items():
        pulumi.export(name, value)


main()
