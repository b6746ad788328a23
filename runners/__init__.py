"""The stages of elson, one file each, and the command line over them."""
