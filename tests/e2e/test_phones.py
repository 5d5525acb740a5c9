"""When there is no data network: presses by SMS, people told by SMS and by a call, kills, modems that fail."""

import asyncio
import os
import subprocess
import time
from collections.abc import Awaitable
from pathlib import Path

import pytest

from firmware_sim.modem.device import Modem
from firmware_sim.modem.network import Phone
from firmware_sim.modem.personas import A7670, EC25, SIM800, Persona
from firmware_sim.sites import SiteFile
from gateway.service.run_procedures import store_procedure
from gateway.site.procedure_file import procedure_from
from gateway.store.pool import open_pool
from protocols.gsm.coding import Alphabet
from protocols.gsm.userdata import UserData
from protocols.oks import Place, SmsReport, binary, text
from tests.e2e.plant import Plant, fleet_running, plant
from tests.e2e.rack import FAST, GATEWAY_NUMBER, rack

TERMINAL, SIM = "sim-00001", "+8614700000001"
GUARDIAN, NEIGHBOUR = "+8613812345678", "13711112222"


def by_sms(site: SiteFile) -> None:
    site.give_sim(TERMINAL, SIM)
    site.reach_by_phone("sim-guardian", GUARDIAN, [{"kind": "sms"}])
    site.reach_by_phone("sim-community", NEIGHBOUR, [{"kind": "sms", "within_s": 20}])


async def has_read(phone: Phone, count: int) -> None:
    """Wait until a phone has got so many different texts: what the network accepted is on its way for a while."""
    async with asyncio.timeout(10):
        while len({said.text for said in phone.received}) < count:
            await asyncio.sleep(0.05)


async def emptied(modem: Modem) -> None:
    """Wait until nothing lies in the stores of a modem."""
    async with asyncio.timeout(10):
        while modem.stored("SM") + modem.stored("ME"):
            await asyncio.sleep(0.1)


async def modem_ready(site: Plant, count: int = 1) -> None:
    await site.eventually("SELECT count(*) FROM modem WHERE state = 'ready'", [(count,)], timeout_s=30)


async def test_a_press_by_sms_is_told_to_six_and_is_one_case_with_the_same_by_mqtt(tmp_path: Path) -> None:
    async with (
        rack(tmp_path) as modems,
        plant(tmp_path, households=1, alter=by_sms, ONEKEY_MODEMS=modems.settings, PACE=FAST) as site,
    ):
        guardian = modems.network.phone(GUARDIAN, answer=lambda said: "1" if "回1" in said.text else None)
        community = modems.network.phone(NEIGHBOUR)
        site.start_gateway()
        await site.ready()
        await modem_ready(site)
        fleet = site.fleet()
        async with fleet_running(fleet):
            await fleet.wait_online()
            site.nats.stop()  # no data network
            press = fleet.press(TERMINAL)
            await asyncio.sleep(0.3)
            report = SmsReport(
                kinds=("sos",),
                terminal=TERMINAL,
                boot=press.key[0],
                seq=press.key[1],
                at=press.pressed_at,
                place=Place(32.0611, 118.7921),
                battery_pct=88,
            )
            octets = UserData(Alphabet.DATA, binary.write(report))
            await modems.network.message(GATEWAY_NUMBER, octets, sender=SIM)
            await site.eventually("SELECT count(*) FROM cases WHERE class = 'emergency'", [(1,)])
            # The same by the other form, as a terminal would that hears nothing.
            await modems.network.text(GATEWAY_NUMBER, text.write(report), sender=SIM)
            await site.eventually("SELECT count(*) FROM phone_in WHERE outcome LIKE 'alarm %%'", [(2,)])
            await site.eventually("SELECT count(*) FROM leg WHERE delivered_at IS NOT NULL", [(6,)])
            await site.eventually(
                "SELECT answer, via FROM answer JOIN leg ON leg.id = leg_id WHERE role = 'guardian'",
                [("coming", "sms")],
            )
            await site.eventually("SELECT state FROM leg WHERE role = 'guardian'", [("answered",)])
            site.nats.start()
            await fleet.wait_received()
        assert await site.rows("SELECT count(*), max(urgency) FROM cases WHERE class = 'emergency'") == [(1, 1)]
        assert await site.rows("SELECT count(*) FROM alarm a JOIN cases c ON c.id = a.case_id") == [(1,)]
        await site.eventually("SELECT count(*) FROM phone_out WHERE report IS DISTINCT FROM 'delivered'", [(0,)])
        await has_read(community, 1)
        assert "紧急呼叫" in guardian.received[0].text
        assert "测试街道" in guardian.received[0].text
        assert "回1" in community.received[0].text
        assert not await site.rows("SELECT id FROM finding WHERE cleared_at IS NULL")


async def test_an_sms_that_nobody_understands_a_ring_and_a_flood(tmp_path: Path) -> None:
    async with (
        rack(tmp_path, personas=(SIM800,)) as modems,
        plant(
            tmp_path,
            households=2,
            alter=lambda site: (site.give_sim(TERMINAL, SIM), site.give_sim("sim-00002", "14700000002"))[0],
            ONEKEY_MODEMS=modems.settings,
            PACE=FAST,
        ) as site,
    ):
        site.start_gateway()
        await site.ready()
        await modem_ready(site)
        flood = asyncio.gather(
            *(modems.network.text(GATEWAY_NUMBER, f"中奖 {n}", sender="10690000") for n in range(60)),
            *(modems.network.text(GATEWAY_NUMBER, f"loan {n}", sender=f"+85290000{n:03}") for n in range(20)),
        )
        await asyncio.sleep(0.2)
        await modems.network.text(GATEWAY_NUMBER, "qwertz 17", sender=SIM)
        await site.eventually("SELECT kinds FROM cases", [(["unreadable"],)], timeout_s=30)
        modems.network.call(GATEWAY_NUMBER, caller="+8614700000002")
        await site.eventually("SELECT kinds FROM cases ORDER BY opened_at", [(["unreadable"],), (["ring"],)])
        await site.eventually("SELECT count(*) FROM leg WHERE delivered_at IS NOT NULL", [(7,)])
        await flood
        await site.eventually("SELECT sum(copies) FROM phone_in WHERE peer IS NOT NULL", [(122,)], timeout_s=30)
        await site.eventually("SELECT count(*) FROM phone_in WHERE state <> 'handled'", [(0,)], timeout_s=30)
        assert await site.rows(
            "SELECT outcome, count(*), sum(copies) FROM phone_in WHERE peer IS NOT NULL GROUP BY 1 ORDER BY 1"
        ) == [
            ("alarm opened", 1, 1),
            ("flood", 40, 40),
            ("not understood", 1, 1),
            ("stranger", 40, 80),
        ]
        await emptied(modems.modems[0])


def called_back(site: SiteFile) -> None:
    site.give_sim(TERMINAL, SIM)
    site.give_phone(TERMINAL, "+8613700000009")
    site.run_procedure("calls-back")


CALLS_BACK = {
    "procedure": "calls-back",
    "version": 1,
    "title": {"en": "Calls back"},
    "steps": [
        {
            "step": f"call-back-{n}",
            "does": "task",
            "seat": "A",
            "title": {"en": "Call back"},
            "clause": "R15",
            "after": ["started"] if n == 1 else ["call-back-1:no_answer"],
            "dials": "person",
            "ends_with": {"heard": "answered"},
            "results": ["answered", "no_answer"],
            "within": "1 min",
            "expires": "no_answer",
        }
        for n in (1, 2)
    ]
    + [
        {
            "step": "ask-neighbours",
            "does": "task",
            "seat": "A",
            "title": {"en": "Ask the neighbours"},
            "clause": "R15",
            "after": ["call-back-2:no_answer"],
        }
    ],
}


@pytest.mark.parametrize("persona", [SIM800, A7670, EC25], ids=lambda one: one.name)
async def test_a_call_back_twice_without_an_answer_and_the_procedure_goes_on(tmp_path: Path, persona: Persona) -> None:
    async with (
        rack(tmp_path, personas=(persona,)) as modems,
        plant(tmp_path, households=1, alter=called_back, ONEKEY_MODEMS=modems.settings, PACE=FAST) as site,
    ):
        async with open_pool(site.database, name="test", size=1) as pool:
            await store_procedure(pool, procedure_from(CALLS_BACK))
        person = modems.network.phone("+8613700000009", picks_up_after_s=None)
        site.start_gateway()
        await site.ready()
        await modem_ready(site)
        await modems.network.text(GATEWAY_NUMBER, f"SOS {TERMINAL}", sender=SIM)
        steps = "SELECT name, state, result FROM step ORDER BY started_at"
        await site.eventually(
            steps,
            [
                ("call-back-1", "done", "no_answer"),
                ("call-back-2", "done", "no_answer"),
                ("ask-neighbours", "open", None),
            ],
            timeout_s=40,
        )
        assert [how for _, how in person.calls] == ["missed", "missed"]
        await site.eventually(
            "SELECT kind, count(*) FROM event WHERE kind LIKE 'call.%%' GROUP BY 1 ORDER BY 1",
            [("call.dialling", 2), ("call.no_answer", 2), ("call.ringing", 2)],
        )


async def test_a_person_who_presses_a_key_is_heard_and_one_who_only_picks_up_is_not(tmp_path: Path) -> None:
    async with (
        rack(tmp_path, personas=(A7670,)) as modems,
        plant(tmp_path, households=1, alter=called_back, ONEKEY_MODEMS=modems.settings, PACE=FAST) as site,
    ):
        async with open_pool(site.database, name="test", size=1) as pool:
            await store_procedure(pool, procedure_from(CALLS_BACK))
        person = modems.network.phone("+8613700000009", picks_up_after_s=1.0, talks_for_s=100.0)
        site.start_gateway()
        await site.ready()
        await modem_ready(site)
        await modems.network.text(GATEWAY_NUMBER, "救命", sender=SIM)
        await site.eventually("SELECT count(*) FROM event WHERE kind = 'call.hung_up'", [(1,)], timeout_s=30)
        assert await site.rows("SELECT name, state FROM step") == [("call-back-1", "open")]
        assert await site.rows("SELECT fact FROM fact") == []
        assert [how for _, how in person.calls] == ["answered"]


def without_internet(site: SiteFile) -> None:
    site.give_sim(TERMINAL, SIM)
    platform = {"kind": "mqtt", "secret": "kept-where-no-network-is"}
    site.reach_by_phone("sim-guardian", GUARDIAN, [platform, {"kind": "sms"}, {"kind": "voice"}])
    site.reach_by_phone("sim-community", NEIGHBOUR, [platform, {"kind": "voice"}])


async def test_without_an_ip_network_sms_and_calls_still_go_out(tmp_path: Path) -> None:
    async with (
        rack(tmp_path, modems=2, personas=(SIM800, EC25)) as modems,
        plant(tmp_path, households=1, alter=without_internet, ONEKEY_MODEMS=modems.settings, PACE=FAST) as site,
    ):
        guardian = modems.network.phone(GUARDIAN)
        community = modems.network.phone(NEIGHBOUR, picks_up_after_s=1.0, presses="1")
        site.start_gateway()
        await site.ready()
        await modem_ready(site, 2)
        site.nats.stop()
        await modems.network.text(GATEWAY_NUMBER, "SOS 32.0611,118.7921 70%", sender=SIM)
        await site.eventually(
            "SELECT role, state FROM leg WHERE role IN ('guardian', 'community') ORDER BY 1",
            [("community", "answered"), ("guardian", "delivered")],
            timeout_s=60,
        )
        await has_read(guardian, 1)
        assert [how for _, how in community.calls] == ["answered"]
        assert await site.rows("SELECT answer, via FROM answer") == [("coming", "voice")]


NO_NETWORK = ("unshare", "--net") if os.geteuid() == 0 else ("unshare", "--map-root-user", "--net")
"""Runs a program where there is no network, not even a loopback."""


def may_be_without_network() -> bool:
    try:
        return subprocess.run([*NO_NETWORK, "true"], stderr=subprocess.DEVNULL, check=False).returncode == 0
    except FileNotFoundError:
        return False


@pytest.mark.skipif(not may_be_without_network(), reason="this system lets nobody have a network namespace (unshare)")
async def test_a_gateway_that_starts_without_any_network_hears_and_tells_by_phone(tmp_path: Path) -> None:
    async with (
        rack(tmp_path, modems=2, personas=(SIM800, EC25)) as modems,
        plant(tmp_path, households=1, alter=without_internet, ONEKEY_MODEMS=modems.settings, PACE=FAST) as site,
    ):
        guardian = modems.network.phone(GUARDIAN, answer=lambda said: "1" if "回1" in said.text else None)
        community = modems.network.phone(NEIGHBOUR, picks_up_after_s=1.0, presses="1")
        site.start_gateway(under=NO_NETWORK)
        await modem_ready(site, 2)
        await modems.network.text(GATEWAY_NUMBER, "SOS 32.0611,118.7921 70%", sender=SIM)
        await site.eventually(
            "SELECT role, state FROM leg WHERE role IN ('guardian', 'community') ORDER BY 1",
            [("community", "answered"), ("guardian", "answered")],
            timeout_s=60,
        )
        await has_read(guardian, 1)
        assert [how for _, how in community.calls] == ["answered"]
        assert sorted(await site.rows("SELECT answer, via FROM answer")) == [("coming", "sms"), ("coming", "voice")]
        # Nobody who is reached by the network only was told, and it is known.
        assert await site.rows("SELECT count(*) FROM leg WHERE state IN ('answered', 'delivered')") == [(2,)]


@pytest.mark.parametrize("step", ["sms_read", "sms_kept", "sms_handled", "sms_deleted", "sms_sending", "sms_sent"])
async def test_a_gateway_killed_between_a_message_and_its_deletion(tmp_path: Path, step: str) -> None:
    count = 4

    def alter(site: SiteFile) -> None:
        for n in range(1, count + 1):
            site.give_sim(f"sim-{n:05}", f"+8614700000{n:03}")
        site.reach_by_phone("sim-guardian", GUARDIAN, [{"kind": "sms"}])

    async with (
        rack(tmp_path, personas=(SIM800,)) as modems,
        plant(tmp_path, households=count, alter=alter, ONEKEY_MODEMS=modems.settings, PACE=FAST) as site,
    ):
        guardian = modems.network.phone(GUARDIAN)
        site.start_gateway(kill_at=f"{step}:2")
        await site.ready()
        await modem_ready(site)

        async def send() -> None:
            for n in range(1, count + 1):
                await modems.network.text(GATEWAY_NUMBER, f"SOS sim {n}", sender=f"+8614700000{n:03}")
                await asyncio.sleep(0.15)

        await asyncio.gather(send(), site.gateway_died())
        site.start_gateway()
        await site.ready()
        await site.eventually("SELECT count(*), count(DISTINCT subject) FROM cases", [(count, count)], timeout_s=30)
        await site.eventually("SELECT count(*) FROM alarm", [(count,)])
        await site.eventually("SELECT count(*) FROM leg WHERE state <> 'delivered'", [(0,)], timeout_s=30)
        await site.eventually("SELECT count(*) FROM phone_out WHERE state IN ('queued', 'sending')", [(0,)])
        await has_read(guardian, count)
        assert len(guardian.received) <= count + 1  # what may have gone out goes out again (I6)
        await emptied(modems.modems[0])


async def test_a_modem_that_resets_is_pulled_out_or_full_is_used_again(tmp_path: Path) -> None:
    """The times are printed: with real modems they are those of the modem's own start (see `Pace`)."""

    def alter(site: SiteFile) -> None:
        site.give_sim(TERMINAL, SIM)
        site.reach_by_phone("sim-guardian", GUARDIAN, [{"kind": "sms"}])

    async with (
        rack(tmp_path, personas=(SIM800,)) as modems,
        plant(tmp_path, households=1, alter=alter, ONEKEY_MODEMS=modems.settings, PACE=FAST) as site,
    ):
        modems.network.phone(GUARDIAN)
        site.start_gateway()
        await site.ready()
        await modem_ready(site)
        times: dict[str, float] = {}

        async def recovers(name: str, fault: Awaitable[None]) -> None:
            before = (await site.rows("SELECT count(*) FROM phone_in WHERE kind = 'message'"))[0][0]
            began = time.monotonic()
            await fault
            await modems.network.text(GATEWAY_NUMBER, f"help me {name}", sender=SIM)
            await site.eventually(
                f"SELECT count(*) > {before} FROM phone_in WHERE kind = 'message' AND state = 'handled'",
                [(True,)],
                timeout_s=40,
            )
            await site.eventually("SELECT state FROM modem", [("ready",)], timeout_s=40)
            times[name] = time.monotonic() - began

        async def reset() -> None:
            modems.modems[0].reset()
            await asyncio.sleep(0.3)

        async def pulled_out() -> None:
            modems.ports[0].unplug()
            await asyncio.sleep(1)
            modems.ports[0].plug_in()

        async def silent() -> None:
            modems.modems[0].faults.silent = True
            await asyncio.sleep(3)
            modems.modems[0].faults.silent = False

        async def full() -> None:
            site.postgres.stop()  # nothing can be kept, so the SIM fills up
            texts = [modems.network.text(GATEWAY_NUMBER, f"SOS {n}", sender=SIM) for n in range(60)]
            filling = asyncio.gather(*texts)
            await asyncio.sleep(1.5)
            assert modems.modems[0].stored("ME") + modems.modems[0].stored("SM") >= 20
            site.postgres.start()
            await filling

        async def no_network() -> None:
            modems.modems[0].register(0)
            await asyncio.sleep(2)

        for name, fault in (
            ("reset", reset),
            ("pulled out", pulled_out),
            # Before the one that makes the modem climb the ladder: the simulated one comes back without a network then.
            ("no network", no_network),
            ("silent", silent),
            ("full", full),
        ):
            await recovers(name, fault())
        print({name: round(took, 2) for name, took in times.items()})  # noqa: T201 # for whoever reads them with -s
        await site.eventually("SELECT count(*) FROM phone_in WHERE kind = 'message' AND state = 'handled'", [(65,)])
        assert (await site.rows("SELECT count(*) FROM cases WHERE class = 'emergency'"))[0][0] == 1
