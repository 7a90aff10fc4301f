"""Thousands of models are listed in steps, between which other calls have their turn."""

from __future__ import annotations

import asyncio
from collections import Counter
from pathlib import Path
from typing import Any

import pytest
from lmchat.v1 import model_service_pb2

from server.api import models
from tests.support.gateway import AUTH, run_gateway

COUNT = 4 * models._SLICE + 1
CONFIGURATION = f"""
providers: {{up: {{type: openai, base_url: "http://127.0.0.1:1/v1"}}}}
models: {{{", ".join(f"m{n}: {{endpoints: [{{provider: up, model: m}}]}}" for n in range(COUNT))}}}
"""


async def test_thousands_of_models(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    turn = 0
    listed: Counter[int] = Counter()
    add = models.Models._add_stats

    def counted(self: Any, *args: Any) -> None:
        listed[turn] += 1
        add(self, *args)

    async def others() -> None:
        nonlocal turn
        while True:
            turn += 1
            await asyncio.sleep(0)

    monkeypatch.setattr(models.Models, "_add_stats", counted)
    async with run_gateway(tmp_path, CONFIGURATION) as gateway:
        ticking = asyncio.create_task(others())
        found = await gateway.models.ListModels(model_service_pb2.ListModelsRequest(), metadata=AUTH)
        ticking.cancel()
    assert [model.id for model in found.data] == [f"m{n}" for n in range(COUNT)]
    assert found.object == "list"
    assert all(model.lmchat.endpoints[0].health.state == "closed" for model in found.data)
    assert listed.total() == COUNT
    assert max(listed.values()) <= models._SLICE
