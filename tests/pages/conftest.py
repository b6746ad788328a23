"""Examples are timed by nobody: a busy machine is no defect of a drawing."""

from hypothesis import settings

settings.register_profile("untimed", deadline=None)
settings.load_profile("untimed")
