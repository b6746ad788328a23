"""``elson run``: the whole job on this machine, and its report."""
