"""Writes VENDORS.md, the table of the registry's rows: `python -m server.vendors.table`."""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path

from server.dialects.base import Vendor
from server.vendors.registry import VENDORS

PATH = Path(__file__).with_name("VENDORS.md")

_HEAD = """\
# Vendors

The values of `type` in the configuration. Written from the rows of the registry by
`python -m server.vendors.table`; what a row knows about its vendor stands in the code, with its reasons.
"Left out" are the request fields that are dropped and named in `lmchat.dropped_params`; `by model` says that this
depends on the model. `read` is the day on which the source, or a stored copy of it, was last read for the row;
`unverified` where it could not be read.

| type | dialect | base URL | variables | left out | formats | parts | read | source |
| --- | --- | --- | --- | --- | --- | --- | --- | --- |
"""

#: Services that speak the dialect but take credentials of a kind that the gateway has not.
_UNSUPPORTED = (
    (
        "IBM watsonx",
        "https://www.ibm.com/docs/en/watsonx/saas?topic=generation-inferencing-gateway-models",
        "IAM tokens of an hour, made from an API key, which this gateway cannot renew",
        "`.../ml/gateway/v1`",
    ),
    (
        "Amazon SageMaker",
        "https://docs.aws.amazon.com/sagemaker/latest/dg/realtime-endpoints-openai-compatible.html",
        "bearer tokens of 12 hours at most, signed by AWS credentials, which this gateway cannot make",
        "`.../endpoints/<name>/openai/v1`",
    ),
)


def table(vendors: Iterable[Vendor] = VENDORS.values()) -> str:
    """The page's text."""
    return _HEAD + "".join(map(_row, sorted(vendors, key=lambda vendor: vendor.type))) + _unsupported()


def _unsupported() -> str:
    lines = [
        f"- [{name}]({source}) takes {credentials}. Until a token ends, `type: openai` works with the base URL "
        f"{address} and the token as `api_key`.\n"
        for name, source, credentials, address in _UNSUPPORTED
    ]
    return f"\n## Not supported\n\n{''.join(lines)}"


def _row(vendor: Vendor) -> str:
    variables = [*vendor.env, *(names[0] for names in vendor.required.values())]
    drops = _words(vendor.drops)
    if any("drops" in fields for fields in vendor.by_model.values()):
        drops += ", by model"
    cells = (
        f"`{vendor.type}`",
        vendor.dialect,
        f"`{vendor.base_url}`" if vendor.base_url else "the account's",
        _words(variables, in_order=True),
        drops,
        _words(vendor.response_formats),
        _words(vendor.modalities),
        vendor.checked or "unverified",
        f"<{vendor.source}>",
    )
    return f"| {' | '.join(cells)} |\n"


def _words(words: Iterable[str], *, in_order: bool = False) -> str:
    return ", ".join(f"`{word}`" for word in (words if in_order else sorted(words))) or "-"


if __name__ == "__main__":
    PATH.write_text(table(), encoding="utf-8")
