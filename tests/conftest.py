"""Set-up of every test."""

import os

from hypothesis import settings

# A busy machine is no reason to fail: nothing in this suite asserts a time.
settings.register_profile("stepconf", deadline=None)
settings.load_profile("stepconf")

# No test may reach out for a model or a data set.
os.environ.setdefault("HF_HUB_OFFLINE", "1")
