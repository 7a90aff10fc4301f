"""The option --update-goldens."""

from __future__ import annotations

import os

import pytest

_OPTION = "--update-goldens"


def pytest_addoption(parser: pytest.Parser) -> None:
    parser.addoption(_OPTION, action="store_true", help="write tests/golden anew, for review")


def pytest_configure(config: pytest.Config) -> None:
    if config.getoption(_OPTION, default=False) and os.environ.get("CI") == "true":
        raise pytest.UsageError(f"{_OPTION} is for review by people, not for CI")


@pytest.fixture(scope="session")
def update_goldens(pytestconfig: pytest.Config) -> bool:
    """Whether goldens are written instead of compared."""
    return bool(pytestconfig.getoption(_OPTION, default=False))
