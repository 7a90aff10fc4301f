"""The model catalogue: model id -> endpoints, in order. Built once from the configuration, then immutable.

Does no I/O and has no health state. endpoints.py builds the endpoints.
"""

from __future__ import annotations

import bisect
import difflib
import re
from collections.abc import Mapping
from functools import lru_cache
from itertools import islice

import msgspec

from server.config.model import Config, ModelSettings
from server.config.problems import ConfigError
from server.dialects.base import Dialect, Endpoint, Vendor
from server.dialects.registry import DIALECTS
from server.errors import LmchatError, Reason
from server.routing.endpoints import EndpointBuilder
from server.vendors.registry import PLAIN, VENDORS

#: Size of the cache of resolved wildcard ids; callers choose these ids, so the cache is bounded.
MAX_CACHED_WILDCARDS = 1024
#: What a wildcard's star matches. It becomes part of URLs that are called with the gateway's credentials.
_STAR = re.compile(r"(?!.*\.\.)[A-Za-z0-9~][A-Za-z0-9._:@/+~-]{0,511}", re.ASCII)


class Model(msgspec.Struct, frozen=True, kw_only=True):
    """A model id, alias target or wildcard of the catalogue. Lengths in tokens, 0 where not configured."""

    id: str
    endpoints: tuple[Endpoint, ...]
    context_length: int = 0
    max_output_tokens: int = 0
    aliases: tuple[str, ...] = ()


class Catalog:
    """Every model of one configuration.

    `environ` gives the settings that the file leaves out and `Vendor.required` names, such as the embedded
    model's address. The configuration may name `dialects`, `vendors` and `plain` (each
    dialect's plain row). Raises ConfigError with every problem.
    """

    def __init__(
        self,
        config: Config,
        environ: Mapping[str, str],
        dialects: Mapping[str, Dialect] = DIALECTS,
        vendors: Mapping[str, Vendor] = VENDORS,
        plain: Mapping[str, Vendor] = PLAIN,
    ) -> None:
        self._settings = config.models
        self._aliases = dict(config.aliases)
        self._aliases_of: dict[str, tuple[str, ...]] = {}
        for alias, target in config.aliases.items():
            self._aliases_of[target] = (*self._aliases_of.get(target, ()), alias)
        self._builder = EndpointBuilder(config, environ, dialects, vendors, plain)
        self._models = tuple(
            self._model(settings, settings.id, self._builder.listed(settings))
            for settings in config.models.values()
        )
        if self._builder.problems:
            raise ConfigError(self._builder.problems)
        self._exact = {model.id: model for model in self._models if not model.id.endswith("*")}
        self._prefixes = dict.fromkeys(model.id[:-1] for model in self._models if model.id.endswith("*"))
        self._lengths = sorted(set(map(len, self._prefixes)), reverse=True)
        self._cached = lru_cache(MAX_CACHED_WILDCARDS)(self._resolve)
        self._names = frozenset(endpoint.name for model in self._models for endpoint in model.endpoints)
        ids = [*self._exact, *self._aliases]
        self._by_id = sorted(ids)
        self._by_tail = sorted((_tail(id_), id_) for id_ in ids)

    @property
    def default_model(self) -> str:
        """The first model that is not a wildcard; empty where there is none."""
        return next(iter(self._exact), "")

    def models(self) -> tuple[Model, ...]:
        """All models in the configured order, wildcards included."""
        return self._models

    def endpoint_names(self) -> frozenset[str]:
        """The names of all endpoints, which are those that routing directives may use."""
        return self._names

    def resolve(self, model: str) -> Model:
        """The model that `model` names: its id, else an alias, else the longest wildcard's prefix.

        Raises LmchatError (MODEL_NOT_FOUND) with the nearest ids.
        """
        return self._cached(model)

    def _resolve(self, model: str) -> Model:
        id_ = model if model in self._exact else self._aliases.get(model, model)
        if id_ in self._exact:
            return self._exact[id_]
        for length in self._lengths:
            prefix, star = id_[:length], id_[length:]
            if prefix in self._prefixes and _STAR.fullmatch(star):
                settings = self._settings[f"{prefix}*"]
                return self._model(settings, id_, self._builder.resolved(settings, id_, star))
        raise self._not_found(model)

    def _model(self, settings: ModelSettings, id_: str, endpoints: tuple[Endpoint, ...]) -> Model:
        return Model(
            id=id_,
            endpoints=endpoints,
            context_length=settings.context_length,
            max_output_tokens=settings.max_output_tokens,
            aliases=self._aliases_of.get(id_, ()),
        )

    def _not_found(self, model: str) -> LmchatError:
        shown = model if len(model) <= 80 else f"{model[:80]}..."
        near = difflib.get_close_matches(shown, self._neighbours(shown) - {model}, cutoff=0.5)
        hint = f"Did you mean {' or '.join(near)}?" if near else "GET /api/v1/models lists those there are."
        return LmchatError(Reason.MODEL_NOT_FOUND, f'There is no model "{shown}". {hint}', param="model")

    def _neighbours(self, model: str) -> set[str]:
        """Ids to compare: the neighbours in sorted order, since comparing thousands would be slow."""
        tail = _tail(model)
        i = bisect.bisect(self._by_id, model)
        j = bisect.bisect(self._by_tail, (tail, ""))
        near = {*self._by_id[max(0, i - 8) : i + 8]}
        near.update(id_ for _, id_ in self._by_tail[max(0, j - 8) : j + 8])
        near.update(prefix + tail for prefix in islice(self._prefixes, 64) if _STAR.fullmatch(tail))
        return near


def _tail(id_: str) -> str:
    """`gpt-5` of `openai/gpt-5`."""
    return id_.rpartition("/")[2]
