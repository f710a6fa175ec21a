"""Settings for every test."""

from hypothesis import settings

# Wall-clock deadlines fail on a busy machine, which says nothing about the code.
settings.register_profile("scaletune", deadline=None)
settings.load_profile("scaletune")
