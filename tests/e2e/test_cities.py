"""Both cities' procedures end to end: a real terminal presses, real responders hear, operators work by API."""

import asyncio
from collections.abc import AsyncIterator, Callable
from contextlib import AsyncExitStack, asynccontextmanager
from pathlib import Path
from random import Random
from typing import Any
from uuid import UUID

import aiohttp

from firmware_sim.fleet import Broker, Fleet, running
from firmware_sim.responders import Answers, Arrival, Responders
from firmware_sim.seat import Seat
from firmware_sim.sites import SiteFile, example
from firmware_sim.stack import Stack
from firmware_sim.stack import running as stack_running
from firmware_sim.terminal import Heard, Output
from schemas.commands import Command, Progress


class City:
    """A running city: one terminal in somebody's hand, everybody who is told, and two seats."""

    def __init__(self, fleet: Fleet, terminal: str, responders: Responders, a: Seat, b: Seat) -> None:
        self.fleet = fleet
        self.terminal = terminal
        self.responders = responders
        self.a, self.b = a, b
        self.heard: list[Progress | Command] = []

    def output(self, terminal: str, output: Output) -> None:
        """Note what the terminal shows and is asked to do."""
        if terminal == self.terminal and isinstance(output, Heard):
            self.heard.append(output.message)

    async def press(self, *kinds: str) -> UUID:
        record = self.fleet.press(self.terminal, kinds or ("sos",))
        async with asyncio.timeout(20):
            await self.fleet.wait_received(record)
        assert record.case is not None
        return record.case

    async def told(self, role: str, kind: str = "case.alert") -> Arrival:
        """Wait until a party of `role` has heard."""
        found: list[Arrival] = []

        def there(arrivals: list[Arrival]) -> bool:
            found[:] = [one for one in arrivals if one.role == role and one.notice and one.notice.type == kind]
            return bool(found)

        async with asyncio.timeout(20):
            await self.responders.wait(there)
        assert found[0].verified
        return found[0]

    def never_told(self, role: str) -> bool:
        return not any(arrival.role == role for arrival in self.responders.arrivals)

    async def until(self, what: Callable[[], bool], within_s: float = 20) -> None:
        async with asyncio.timeout(within_s):
            while not what():
                await asyncio.sleep(0.05)

    def progress(self) -> list[str]:
        seen = {one.n: one.state for one in self.heard if isinstance(one, Progress)}
        return [seen[number] for number in sorted(seen)]

    def commands(self) -> list[str]:
        return [one.name for one in self.heard if isinstance(one, Command)]


@asynccontextmanager
async def city(directory: Path, name: str, terminal: str, *, agreed: bool = False) -> AsyncIterator[City]:
    site = SiteFile.load(example(f"{name}.yaml"))
    for household in site._document["households"]:
        for person in household["persons"]:
            person["agreements"] = ["dial_on_behalf"] if agreed else []
    async with AsyncExitStack() as cleanup:
        responders = Responders(site.responders())
        await cleanup.enter_async_context(responders.serving())
        site.point_webhooks(responders.url)
        site.save(directory / "site.yaml")
        stack = Stack(directory / "data", log=directory / "run.log")
        info = await cleanup.enter_async_context(stack_running(stack))
        await stack.apply_site(directory / "site.yaml")
        key = await stack.create_key(role="operator", name="desk")
        client = await cleanup.enter_async_context(aiohttp.ClientSession())
        a, b = (Seat(client, info.http, key, name) for name in ("seat-a", "seat-b"))
        members = [entry.member() for entry in site.terminals() if entry.id == terminal]
        place: list[City] = []
        fleet = Fleet(
            Broker.from_url(info.mqtt),
            members,
            rng=Random(1),
            on_output=lambda who, output: place[0].output(who, output),
        )
        place.append(City(fleet, terminal, responders, a, b))
        await cleanup.enter_async_context(running(fleet))
        async with asyncio.timeout(20):
            await fleet.wait_online()
        yield place[0]


BEIJING, NANJING = "860000000000101", "860000000000001"


async def _state(seat: Seat, case: UUID, task: str) -> Any:
    whole = await seat.case(case)
    return next((one["state"], one["result"]) for one in whole["tasks"] if one["name"] == task)


async def test_beijing_answered(tmp_path: Path) -> None:
    async with city(tmp_path, "beijing", BEIJING, agreed=True) as place:
        case = await place.press()
        await place.told("relative")
        await place.a.own(case)
        await place.a.call("POST", f"/v1/cases/{case}/seat-b", {"operator": "seat-b", "by": "seat-a"})
        await place.until(lambda: "call_back" in place.commands())
        await place.a.done(case, "call-back-1", "answered")
        await place.a.done(case, "assess", "help_needed")
        assert {"comfort", "dial-for-person", "contacts"} <= set(await place.a.open_tasks(case))
        await place.a.done(case, "dial-for-person", "dispatched")
        await place.a.fact(case, "on_scene", "ambulance_120")
        await place.a.task(case, "record")
        assert await _state(place.a, case, "comfort") == ("done", "arrived")
        await place.until(lambda: place.progress()[-1:] == ["arrived"])
        await place.a.close(case, "hospital", confirmed_by="ambulance_120")
        await place.told("relative", "case.closed")
        await place.a.task(case, "follow-up")
        assert place.never_told("police_110")
        await place.until(lambda: place.progress()[-1:] == ["closed"])


async def test_beijing_no_response_and_then_a_response(tmp_path: Path) -> None:
    async with city(tmp_path, "beijing", BEIJING, agreed=True) as place:
        case = await place.press()
        await place.a.own(case)
        await place.a.done(case, "call-back-1", "no_answer")
        assert "contacts" not in await place.a.open_tasks(case), "call back twice (R15)"
        await place.a.done(case, "call-back-2", "no_answer")
        assert {"keep-calling", "contacts"} <= set(await place.a.open_tasks(case))
        await place.a.done(case, "contacts", "unreachable")
        assert place.never_told("police_110")
        await place.a.done(case, "committee", "unreachable")
        asked = await place.told("police_110")
        assert asked.notice is not None
        assert asked.notice.data.address is not None
        assert asked.notice.data.address.approach, "with the way in (R13)"
        assert {"keep-calling", "call-110"} <= set(await place.a.open_tasks(case)), "110 asked and B still calling"
        # That the terminal picked up by itself is no word of the person (I7).
        assert (await place.a.case(case))["facts"] == []
        place.fleet.say(place.terminal, "key.ok")
        withdrawn = await place.told("police_110", "case.withdrawn")
        assert withdrawn.notice is not None
        assert withdrawn.notice.data.text.startswith("【撤销求助】")
        await place.b.task(case, "tell-110")
        assert await _state(place.b, case, "keep-calling") == ("done", "heard")


async def test_beijing_without_consent_the_terminal_dials_120(tmp_path: Path) -> None:
    async with city(tmp_path, "beijing", BEIJING) as place:
        case = await place.press()
        await place.told("relative")
        await place.a.own(case)
        await place.a.done(case, "call-back-1", "answered")
        await place.a.done(case, "assess", "help_needed")
        await place.until(lambda: "dial" in place.commands())
        assert await place.a.task(case, "no-agreement")
        assert place.never_told("ambulance_120")
        whole = await place.a.case(case)
        [leg] = [leg for leg in whole["legs"] if leg["role"] == "ambulance_120"]
        assert (leg["state"], "dial_on_behalf" in leg["problem"]) == ("skipped", True), "the hotline sees why"


async def test_nanjing_from_press_to_hospital(tmp_path: Path) -> None:
    async with city(tmp_path, "nanjing", NANJING) as place:
        for party in place.responders.parties.values():
            if party.role == "ambulance_120":
                place.responders.behave(party.party, Answers(answer="coming", minutes=9))
        case = await place.press("fall")
        for role in ("guardian", "hotline", "service_center", "community", "district", "ambulance_120"):
            await place.told(role)
        await place.a.own(case)
        await place.a.task(case, "to-hospital")
        assert await _state(place.a, case, "call-120") == ("done", "dispatched")
        assert await _state(place.a, case, "take") == ("done", "taken")
        await place.a.fact(case, "informed", "guardian")
        assert await _state(place.a, case, "family") == ("done", "reached")
        await place.a.done(case, "supervisor")
        await place.until(lambda: place.progress()[:1] == ["coming"])
        await place.a.close(case, "hospital", confirmed_by="ambulance_120")
        open_tasks = await place.a.open_tasks(case)
        async with asyncio.timeout(20):
            while set(open_tasks) != {"follow-up", "report"}:
                await asyncio.sleep(0.1)
                open_tasks = await place.a.open_tasks(case)
        await place.a.done(case, "follow-up")
        await place.a.done(case, "report")
        assert (await place.a.case(case))["journal"]["intact"]
