"""Files that the configuration names, and that must be there when a provider is called."""

from __future__ import annotations

import os
from collections.abc import Mapping
from pathlib import Path

from server.config.model import Config, ProviderSettings
from server.config.problems import Problem

#: https://cloud.google.com/docs/authentication/application-default-credentials
_GOOGLE = "GOOGLE_APPLICATION_CREDENTIALS"


def missing_files(config: Config, environ: Mapping[str, str]) -> list[Problem]:
    """A problem for each credential file that cannot be read: a provider's, or for `adc` the variable's."""
    problems = []
    for key, provider in config.providers.items():
        name, path, origin = _credential_file(provider, environ)
        if path and not os.access(path, os.R_OK):
            what = "cannot be read" if Path(path).exists() else "is not there"
            problems.append(
                config.problem(f"providers.{key}.credentials.{name}", f"the file {path}{origin} {what}")
            )
    return problems


def _credential_file(provider: ProviderSettings, environ: Mapping[str, str]) -> tuple[str, str, str]:
    """The setting, the path (empty for none), and where the path is from."""
    path = provider.credentials.get("service_account_file")
    if isinstance(path, str):
        return "service_account_file", path, ""
    if provider.credentials.get("adc"):
        return "adc", environ.get(_GOOGLE, ""), f" of {_GOOGLE}"
    return "", "", ""
