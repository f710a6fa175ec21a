"""Settings for every test."""

from hypothesis import settings

# Wall-clock deadlines fail on a busy machine, which says nothing about the code. Examples follow
# from the test's own code, so that a commit passes or fails for all; `make test-slow` explores.
settings.register_profile("scaletune", deadline=None, derandomize=True)
settings.register_profile("explore", deadline=None)
settings.load_profile("scaletune")
