"""Every language's client runs every scenario on one gateway; the summary at the end is the matrix."""

from __future__ import annotations

import asyncio

import pytest
from lmchat_dev import polyglot

from tests.polyglot.conftest import Clients, Provider
from tests.polyglot.rows import Json, Scenario
from tests.polyglot.scenarios import SCENARIOS
from tests.support.faults import Behaviour, Call


def held(release: asyncio.Event, scenario: Scenario) -> Behaviour:
    """The scenario's tokens; all but the first are sent after `release`."""

    async def behave(call: Call) -> None:
        first, *rest = [line["token"] for line in scenario.printed if "token" in line]
        await call.head()
        await call.delta(content=first)
        await release.wait()
        for token in rest:
            await call.delta(content=token)
        await call.delta("stop")
        await call.event(b"[DONE]")
        await call.end()

    return behave


@pytest.mark.parametrize("scenario", SCENARIOS, ids=lambda scenario: scenario.name)
@pytest.mark.parametrize("language", polyglot.LANGUAGES)
def test_scenario(language: str, scenario: Scenario, clients: Clients, provider: Provider) -> None:
    release = asyncio.Event()
    provider.script(scenario.name, [held(release, scenario)] if scenario.held else scenario.provider)
    printed: list[Json] = []
    for line in clients.run(language, scenario.name):
        printed.append(line)
        if scenario.held:
            provider.call(release.set)
    assert printed == list(scenario.printed)
    calls = provider.faults.of(scenario.name)
    assert len(calls) == scenario.calls
    assert {name: calls[-1].body.get(name) for name in scenario.body} == dict(scenario.body)
    if scenario.closed:
        provider.closed(calls[-1])
