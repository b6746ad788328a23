"""Every ``elson`` command: one file a group, options and output only; the work is in the other rooms."""
