"""Parameters of a request in the OpenAI dialect, by the flags of the vendors' rows."""

from __future__ import annotations

from typing import Any

from server.dialects.base import Vendor
from server.dialects.dropped import Dropped
from server.dialects.usage import TIERS
from server.dialects.users import opaque_user


def adapt_parameters(out: dict[str, Any], vendor: Vendor, dropped: Dropped, *, stream: bool) -> None:
    """Change the parameters of the body `out` to what the vendor takes, in place."""
    _set_token_limit(out, vendor, dropped)
    for name in sorted(vendor.refused_in_requests & out.keys()):
        del out[name]
        dropped.add(name)
    if not vendor.stream_usage:
        out.pop("stream_options", None)
    for name, value in vendor.defaults.items():
        out.setdefault(name, value)
    if "temperature" in out:
        low, high = vendor.temperatures
        out["temperature"] = min(max(out["temperature"], low), high)
    if "user" in out:
        out["user"] = opaque_user(out["user"], vendor.max_user_length, vendor.min_user_length)
    if not vendor.effort_with_tools and out.get("tools") and out.get("reasoning_effort", "none") != "none":
        del out["reasoning_effort"]
        dropped.add("reasoning_effort")
    if out.get("reasoning_effort") in vendor.efforts:
        _set_effort(out, vendor, dropped)
    if vendor.service_tiers is not None and out.get("service_tier") in TIERS:
        _set_service_tier(out, vendor.service_tiers.get(out["service_tier"]), dropped)
    for name, other in vendor.renames.items():
        if name in out:
            out.setdefault(other, out.pop(name))
    if not stream:
        for name, value in vendor.unary_body.items():
            out.setdefault(name, value)


def must_stream(out: dict[str, Any], vendor: Vendor) -> bool:
    """Whether the vendor answers the body `out` in a stream only."""
    return vendor.streams_only or any(out.get(name) == value for name, value in vendor.streams_only_with.items())


def _set_token_limit(out: dict[str, Any], vendor: Vendor, dropped: Dropped) -> None:
    if vendor.token_limit:
        if "max_completion_tokens" in out and "max_tokens" in out:
            dropped.add("max_tokens")
        limits = [out.pop(name, None) for name in ("max_completion_tokens", "max_tokens")]
        limit = next((limit for limit in limits if limit is not None), None)
        if limit is not None:
            out[vendor.token_limit] = limit


def _set_effort(out: dict[str, Any], vendor: Vendor, dropped: Dropped) -> None:
    """Send the vendor's fields for the effort; what the caller says in those fields stays."""
    fields = vendor.efforts[out.pop("reasoning_effort")]
    if not fields or any(out.get(name, value) != value for name, value in fields.items()):
        dropped.add("reasoning_effort")
    for name, value in fields.items():
        out.setdefault(name, value)


def _set_service_tier(out: dict[str, Any], tier: str | None, dropped: Dropped) -> None:
    """Send `tier`; an empty one is served without being asked for, None is not served."""
    if tier:
        out["service_tier"] = tier
        return
    del out["service_tier"]
    if tier is None:
        dropped.add("service_tier")
