"""Removes from the environment the variables that the gateway or its libraries read.

Tests use loopback only, without a proxy, and set the variables that they test. Hypothesis makes the same examples
in every run, so that a failure is a change's; `--hypothesis-profile random` makes new ones.
"""

from __future__ import annotations

import os
import re

from hypothesis import settings

_ACTED_UPON = re.compile(r"(LMCHAT|AWS|AZURE|GOOGLE|OPENAI|GRPC)_.*|.*(_API_KEY|_TOKEN)|.*_PROXY", re.IGNORECASE)

settings.load_profile("ci")
settings.register_profile("random", settings.get_profile("ci"), derandomize=False)


def pytest_configure() -> None:
    """Before the first test module is imported, and so before libraries are."""
    for name in [name for name in os.environ if _ACTED_UPON.fullmatch(name)]:
        del os.environ[name]
