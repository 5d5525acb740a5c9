"""All modems of a gateway as one: who sends what, what is told of one that fails, and what must not end the others."""

import asyncio
import base64
import json
import os
import sys
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from dataclasses import replace
from datetime import date
from pathlib import Path
from random import Random
from typing import Any

import pytest

from firmware_sim.modem.device import Modem, Sim
from firmware_sim.modem.network import Network, Text
from firmware_sim.modem.personas import EC25, SIM800
from firmware_sim.modem.ports import Port
from gateway.config import ModemSettings
from gateway.domain.outbox import DueNotice
from gateway.keyring import Keyring
from gateway.modems import arrivals
from gateway.modems.driver import Modem as Driver
from gateway.modems.mailbox import Arrived
from gateway.modems.pool import ModemPool
from gateway.service.apply_site import apply_site
from gateway.service.phone_queue import enqueue_own
from gateway.site.load import load
from gateway.store import outbox, phone_out
from gateway.store.directory import Directory
from gateway.store.pool import Pool, connect
from protocols.gsm.address import Address
from protocols.gsm.coding import DataCoding
from protocols.gsm.tpdu import Deliver, write_pdu
from protocols.gsm.userdata import split
from tests.integration.test_modem_driver import PACE, THEIRS
from tests.integration.test_phone_messages import SIM as TERMINAL_SIM
from tests.integration.test_phone_messages import site_file

SILENT = "+8613811112223"
WHILE_CALLING = [("call", "sending"), ("sms", "sent")]
AFTER_THE_CALL = [("call", "failed"), ("sms", "sent"), ("sms", "sent")]
NUMBERS = ("+8613900000001", "+8613900000002")


class Racked:
    """A pool over simulated modems, in this process."""

    def __init__(self, database: str, pool: Pool, directory: Directory, network: Network, worker: int) -> None:
        self.database = database
        self.pool = pool
        self.directory = directory
        self.network = network
        self.worker = worker
        self.modems: list[Modem] = []
        self.ports: list[Port] = []
        self.submitted: list[DueNotice] = []
        self.machine: ModemPool
        self._running: asyncio.Task[None]

    def start(self) -> None:
        self._running = asyncio.create_task(self.machine.run())

    async def stop(self) -> None:
        self._running.cancel()
        await asyncio.wait({self._running})

    def give_up_before_it_asks(self) -> None:
        """Cancel the pool, and have it ask its modem something that is cancelled before its first step."""
        (modem,) = self.machine.modems
        assert modem.ready
        self._running.cancel()
        self.machine._watch.forget()
        self.machine._watch._begin_asking(modem)

    async def rows(self, query: str) -> list[tuple[Any, ...]]:
        async with self.pool.connection() as conn:
            return await (await conn.execute(query.encode())).fetchall()

    async def eventually(self, query: str, expected: list[tuple[Any, ...]], timeout_s: float = 15) -> None:
        rows: list[tuple[Any, ...]] = []
        try:
            async with asyncio.timeout(timeout_s):
                while (rows := await self.rows(query)) != expected:
                    await asyncio.sleep(0.03)  # other tasks are at it
        except TimeoutError:
            raise AssertionError(f"{query}\n gives {rows}, not {expected}") from None

    async def queue(self, text: str, *, rank: int = 2) -> str:
        async with self.pool.connection() as conn, conn.transaction():
            return await enqueue_own(conn, self.directory, THEIRS, text, rank=rank)

    async def queue_call(self, *, rank: int) -> None:
        async with self.pool.connection() as conn, conn.transaction():
            call = await enqueue_own(conn, self.directory, SILENT, "", rank=rank)
            await conn.execute("UPDATE phone_out SET kind = 'call' WHERE id = %s", (call,))

    async def call_without_end(self) -> Driver:
        """Have the only modem call somebody who does not pick up, for as long as a test may take."""
        self.network.phone(SILENT, picks_up_after_s=10_000.0)
        (modem,) = self.machine.modems
        modem.pace = replace(PACE, ring_s=60.0, command_s=5.0)
        await self.queue_call(rank=0)
        async with asyncio.timeout(10):
            while not modem.ready_beside:
                await asyncio.sleep(0.02)  # it dials
        return modem

    @property
    def read(self) -> list[Text]:
        return self.network.phones[THEIRS].received

    async def has_read(self, count: int) -> None:
        """Wait for texts that the network has taken and that are on their way."""
        async with asyncio.timeout(10):
            while len(self.read) < count:
                await asyncio.sleep(0.02)


@pytest.fixture
async def racked(pool: Pool, database: str, keyring: Keyring, tmp_path: Path) -> Callable[..., Any]:
    site_file().save(tmp_path / "site.yaml")
    await apply_site(pool, keyring, load(tmp_path / "site.yaml").site, prune=False)

    @asynccontextmanager
    async def open_rack(*settings: dict[str, Any]) -> AsyncIterator[Racked]:
        network = Network(speed=50, rng=Random(3))
        network.phone(THEIRS)
        async with await connect(database, name="test") as session:
            worker = await outbox.register(session, "test")
            rack = Racked(database, pool, Directory(keyring), network, worker)
            options = []
            for place, own in enumerate(settings):
                port = Port(tmp_path / f"modem{place}")
                port.plug_in()
                modem = Modem(
                    network,
                    Sim(NUMBERS[place]),
                    port.write,
                    persona=(SIM800, EC25)[place],
                    imei=f"86123456789012{place}",
                )
                port.feed = modem.feed
                rack.modems.append(modem)
                rack.ports.append(port)
                options.append(ModemSettings.model_validate({"path": str(port.path)} | own))

            def is_working_day(_: date) -> bool:
                return True

            rack.machine = ModemPool(
                database,
                pool,
                rack.directory,
                options,
                replica="a",
                worker=lambda: worker,
                submit=rack.submitted.extend,
                is_working_day=is_working_day,
                rng=Random(1),
                pace=PACE,
            )
            rack.start()
            try:
                await rack.eventually("SELECT count(*) FROM modem WHERE state = 'ready'", [(len(settings),)])
                yield rack
            finally:
                await rack.stop()
                for modem, port in zip(rack.modems, rack.ports, strict=True):
                    modem.close()
                    port.unplug()
                await network.close()

    return open_rack


async def test_a_modem_that_is_lost_is_a_case_until_it_is_back(racked: Callable[..., Any]) -> None:
    async with racked({}) as rack:
        rack.ports[0].unplug()
        case = "SELECT class, state, kinds FROM cases"
        await rack.eventually(case, [("technical", "open", ["modem_lost"])])
        rack.ports[0].plug_in()
        await rack.eventually(case, [("technical", "closed", ["modem_lost"])])
        rack.ports[0].unplug()
        await rack.eventually("SELECT state FROM cases ORDER BY opened_at", [("closed",), ("open",)])


async def test_what_one_modem_cannot_send_another_does(racked: Callable[..., Any]) -> None:
    async with racked({}, {}) as rack:
        rack.network.refuses = [38]
        await rack.queue("by whom?")
        await rack.eventually("SELECT state, tries, cardinality(avoid) FROM phone_out", [("sent", 2, 1)])
        await rack.has_read(1)
        assert [one.text for one in rack.read] == ["by whom?"]


async def test_an_answer_comes_back_to_the_number_that_was_seen(racked: Callable[..., Any]) -> None:
    async with racked({}, {}) as rack:
        for n in range(4):
            await rack.queue(f"text {n}")
            await rack.eventually("SELECT count(*) FROM phone_out WHERE state = 'sent'", [(n + 1,)])
        await rack.has_read(4)
        assert len({one.sender for one in rack.read}) == 1


async def test_a_number_that_there_is_none_is_not_tried_for_ever(racked: Callable[..., Any]) -> None:
    async with racked({}) as rack:
        rack.network.refuses = [1]
        await rack.queue("for nobody")
        await rack.eventually("SELECT state, detail FROM phone_out", [("failed", "there is no such number")])


async def test_the_daily_limit_is_none_for_calls_for_help(racked: Callable[..., Any]) -> None:
    async with racked({"daily_limit": 1}) as rack:
        await rack.queue("the first")
        await rack.eventually("SELECT count(*) FROM phone_out WHERE state = 'sent'", [(1,)])
        await rack.queue("one too many")
        await rack.queue("help", rank=0)
        await rack.eventually("SELECT count(*) FROM phone_out WHERE state = 'sent'", [(2,)])
        await rack.has_read(2)
        assert [one.text for one in rack.read] == ["the first", "help"]


async def test_the_balance_by_a_code_and_by_a_message(racked: Callable[..., Any]) -> None:
    async with racked({"balance_code": "*100#"}, {"balance_to": "10086", "balance_low": 50}) as rack:
        rack.network.phone("10086", answer=lambda text: "您的余额为 8.40 元" if text.text == "YE" else None)
        rack.machine._watch._asked_balance_s.clear()  # it asked before there was anybody to answer
        await rack.eventually("SELECT balance::text FROM modem ORDER BY path", [("36.50",), ("8.40",)], timeout_s=30)
        await rack.eventually("SELECT problem FROM cases", [("modem …0121: only 8.40 left on its SIM",)])


async def test_a_message_that_we_fail_on_holds_up_no_other(
    racked: Callable[..., Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    handle = arrivals.handle

    async def failing(pool: Pool, directory: Directory, came: Any, *, worker: int | None) -> Any:
        if came.id == 1:
            raise RuntimeError("a fault of ours")
        return await handle(pool, directory, came, worker=worker)

    monkeypatch.setattr(arrivals, "handle", failing)
    monkeypatch.setattr(arrivals, "_LATER", arrivals._LATER / 100)  # so that five tries take a second
    async with racked({}) as rack:
        await rack.network.text(NUMBERS[0], "the first", sender=TERMINAL_SIM)
        await rack.network.text(NUMBERS[0], "SOS", sender=TERMINAL_SIM)
        await rack.eventually("SELECT kinds FROM cases WHERE 'sos' = ANY (kinds)", [(["sos"],)])
        await rack.eventually("SELECT outcome FROM phone_in WHERE id = 1", [("given up",)], timeout_s=30)
        assert {notice.role for notice in rack.submitted} >= {"guardian", "ambulance_120"}


async def test_a_pool_that_is_started_again_serves_its_modems(racked: Callable[..., Any]) -> None:
    async with racked({}) as rack:
        await rack.stop()
        rack.start()
        await rack.queue("once more")
        await rack.eventually("SELECT state FROM phone_out", [("sent",)])


async def test_a_pin_that_is_tried_is_refused_until_it_was_right(racked: Callable[..., Any]) -> None:
    async with racked({}) as rack:
        await rack.machine.remember_pin("8986", "1234", refused=True)
        assert await rack.machine.pin_refused("8986", "1234")
        assert not await rack.machine.pin_refused("8987", "1234")
        await rack.machine.remember_pin("8986", "1234", refused=False)
        assert not await rack.machine.pin_refused("8986", "1234")


async def test_what_was_cancelled_before_it_began_is_asked_again(
    racked: Callable[..., Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    async with racked({"number": NUMBERS[0]}) as rack:
        await rack.eventually("SELECT count(*) FROM phone_in WHERE kind = 'message' AND outcome = 'stranger'", [(1,)])
        monkeypatch.setattr(rack.machine._watch, "_pace", replace(PACE, self_test_s=0.0))
        rack.give_up_before_it_asks()
        await rack.stop()
        rack.start()
        await rack.eventually("SELECT count(*) > 1 FROM phone_in WHERE kind = 'message'", [(True,)])


async def test_one_that_hears_nothing_is_found_out_by_its_own_message(
    racked: Callable[..., Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    async with racked({"number": NUMBERS[0]}) as rack:
        await rack.eventually("SELECT count(*) FROM phone_in WHERE kind = 'message' AND outcome = 'stranger'", [(1,)])
        rack.modems[0].faults.deaf = True
        monkeypatch.setattr(rack.machine._watch, "_pace", replace(PACE, self_test_s=0.5, echo_s=1.0))
        waiting = asyncio.create_task(rack.network.text(NUMBERS[0], "SOS", sender=TERMINAL_SIM))
        await rack.eventually("SELECT kinds FROM cases", [(["sos"],)], timeout_s=30)
        await waiting


@asynccontextmanager
async def another_gateway(rack: Racked, path: Path) -> AsyncIterator[ModemPool]:
    async with await connect(rack.database, name="test-b") as session:
        worker = await outbox.register(session, "b")
        machine = ModemPool(
            rack.database,
            rack.pool,
            rack.directory,
            [ModemSettings(path=str(path))],
            replica="b",
            worker=lambda: worker,
            submit=rack.submitted.extend,
            is_working_day=lambda _: True,
            rng=Random(2),
            pace=PACE,
        )
        running = asyncio.create_task(machine.run())
        try:
            yield machine
        finally:
            running.cancel()
            await asyncio.wait({running})


async def test_an_empty_port_of_the_same_name_elsewhere_is_one_case_and_stays_it(racked: Callable[..., Any]) -> None:
    async with racked({}) as rack, another_gateway(rack, rack.ports[0].path):
        # Its port is taken by the first one: what it finds there is no modem.
        await rack.eventually("SELECT count(*) FROM cases WHERE state = 'open'", [(1,)], timeout_s=30)
        await asyncio.sleep(4)
        assert await rack.rows("SELECT count(*) FROM cases") == [(1,)]
        assert await rack.rows("SELECT state, replica FROM modem ORDER BY replica") == [
            ("ready", "a"),
            ("stopped", "b"),
        ]


async def test_a_modem_that_was_carried_to_another_gateway_is_not_lost(
    racked: Callable[..., Any], tmp_path: Path
) -> None:
    async with racked({}) as rack:
        port = Port(tmp_path / "elsewhere")
        rack.ports[0].unplug()
        port.plug_in()
        modem = Modem(rack.network, Sim(NUMBERS[0]), port.write, persona=SIM800, imei="861234567890120")
        port.feed = modem.feed
        async with another_gateway(rack, port.path):
            await rack.eventually("SELECT replica, state FROM modem", [("b", "ready")], timeout_s=30)
            await asyncio.sleep(4)
            assert await rack.rows("SELECT replica, state, case_id FROM modem") == [("b", "ready", None)]
            assert len(await rack.rows("SELECT FROM cases")) <= 1
        modem.close()
        port.unplug()


async def test_one_that_comes_back_at_another_port_is_itself_and_two_alike_are_two(
    racked: Callable[..., Any], tmp_path: Path
) -> None:
    async with racked({}) as rack:
        settings = ModemSettings(path=str(tmp_path / "late*"))
        rack.machine._settings = [*rack.machine._settings, settings]
        imei = rack.machine.modems[0].id
        clone, port = None, Port(tmp_path / "late0")
        port.plug_in()
        clone = Modem(rack.network, Sim(NUMBERS[1]), port.write, persona=SIM800, imei=imei)
        port.feed = clone.feed
        await rack.eventually(
            "SELECT id, state FROM modem ORDER BY id", [(imei, "ready"), (f"{imei}@{port.path}", "ready")], timeout_s=30
        )
        clone.close()
        port.unplug()
        # The first one is taken out, and put in elsewhere.
        rack.ports[0].unplug()
        other = Port(tmp_path / "late1")
        other.plug_in()
        moved = Modem(rack.network, Sim(NUMBERS[0]), other.write, persona=SIM800, imei=imei)
        other.feed = moved.feed
        await rack.eventually("SELECT path, state FROM modem WHERE id = '" + imei + "'", [(str(other.path), "ready")])
        moved.close()
        other.unplug()


async def test_one_that_no_measure_makes_hear_is_told_of(
    racked: Callable[..., Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    async with racked({"number": NUMBERS[0]}) as rack:
        await rack.eventually("SELECT count(*) FROM phone_in WHERE kind = 'message' AND outcome = 'stranger'", [(1,)])
        pace = replace(PACE, self_test_s=0.5, echo_s=1.0, healthy_s=0.5)
        monkeypatch.setattr(rack.machine._watch, "_pace", pace)
        (driver,) = rack.machine.modems
        driver.pace = pace
        rungs: set[int] = set()

        async def keep_deaf() -> None:
            while True:
                rack.modems[0].faults.deaf = True
                rungs.add(driver.rung)
                await asyncio.sleep(0.01)  # whatever is done to it

        deaf = asyncio.create_task(keep_deaf())
        await rack.eventually("SELECT kinds, state FROM cases", [(["modem_lost"], "open")], timeout_s=40)
        deaf.cancel()
        assert {2, 3} & rungs
        rack.modems[0].faults.deaf = False
        await rack.eventually("SELECT state FROM cases", [("closed",)], timeout_s=40)


async def test_a_call_for_help_knows_no_limit_while_another_modem_fails(racked: Callable[..., Any]) -> None:
    async with racked({}, {"daily_limit": 1}) as rack:
        limited = next(one for one in rack.machine.modems if one.settings.daily_limit == 1)
        async with rack.pool.connection() as conn:
            for n in (1, 2):
                job = await enqueue_own(conn, rack.directory, "+8613812340000", "before", rank=9)
                await conn.execute("UPDATE phone_out SET state = 'sent', ended_at = now() WHERE id = %s", (job,))
                await phone_out.add_part(conn, job, part=1, modem=limited.id, reference=n)
        rack.modems[0].faults.refuses["AT+CMGS"] = ["+CMS ERROR: 8"] * 100
        await rack.eventually("SELECT count(*) >= 2 FROM phone_part", [(True,)])
        await asyncio.sleep(6)  # it counts what was sent today every five seconds
        await rack.queue("help", rank=0)
        await rack.eventually("SELECT state, modem FROM phone_out WHERE rank = 0", [("sent", limited.id)])
        # And that the operator bars the other SIM is told, though everything goes out.
        await rack.eventually("SELECT kinds, state FROM cases", [(["modem_lost"], "open")])


async def test_a_call_for_help_by_sms_does_not_wait_for_a_call_of_the_only_modem(racked: Callable[..., Any]) -> None:
    async with racked({}) as rack:
        modem = await rack.call_without_end()
        await rack.queue("a battery is low", rank=3)
        await rack.queue("help", rank=0)
        await rack.eventually("SELECT kind, state FROM phone_out WHERE rank = 0 ORDER BY kind", WHILE_CALLING)
        assert modem.calling
        assert await rack.rows("SELECT state FROM phone_out WHERE rank = 3") == [("queued",)]
        rack.modems[0].line.notice("NO CARRIER")  # whatever ends the call, then the rest goes out
        await rack.eventually("SELECT kind, state FROM phone_out ORDER BY kind, rank", AFTER_THE_CALL)
        await rack.has_read(2)
        assert [one.text for one in rack.read] == ["help", "a battery is low"]


async def test_what_is_refused_beside_a_call_is_the_first_after_it(racked: Callable[..., Any]) -> None:
    async with racked({}) as rack:
        modem = await rack.call_without_end()
        rack.modems[0].faults.refuses["AT+CMGS"] = ["+CMS ERROR: 302"]
        job = await rack.queue("help", rank=0)
        await rack.queue_call(rank=0)
        async with asyncio.timeout(10):
            while rack.modems[0].faults.refuses["AT+CMGS"]:
                await asyncio.sleep(0.02)
        await rack.eventually(f"SELECT state, tries FROM phone_out WHERE id = '{job}'", [("queued", 0)])
        assert modem.calling
        rack.modems[0].line.notice("NO CARRIER")
        await rack.eventually(
            "SELECT kind, state FROM phone_out ORDER BY started_at DESC LIMIT 1", [("call", "sending")]
        )
        assert await rack.rows("SELECT kind FROM phone_out ORDER BY started_at") == [("call",), ("sms",), ("call",)]
        await rack.eventually(f"SELECT state FROM phone_out WHERE id = '{job}'", [("sent",)])
        assert modem.failures == 0


async def test_the_same_octets_are_another_message_after_an_answer_to_a_deletion_was_lost(
    racked: Callable[..., Any],
) -> None:
    async with racked({}) as rack:
        arrivals_, modem = rack.machine._arrivals, rack.machine.modems[0].id
        await rack.eventually("SELECT count(*) FROM modem WHERE heard_at IS NOT NULL", [(1,)])
        (user,) = split("SOS", reference=1)
        pdu, length = write_pdu(
            Deliver(sender=Address.parse(TERMINAL_SIM), user=user, sent_at=None, coding=DataCoding.of(user.alphabet))
        )
        one = Arrived(pdu, length, "SM", 1)
        await arrivals_.keep(modem, [one])  # it is deleted, and the answer to that gets lost
        arrivals_._sure.discard(modem)  # a look of the driver may have come in between
        await arrivals_.forgotten(modem, ())
        await rack.eventually("SELECT forgotten, outcome FROM phone_in", [(True, "alarm opened")])
        await arrivals_.keep(modem, [one])
        await rack.eventually("SELECT count(*) FROM phone_in WHERE state = 'handled'", [(2,)])


async def test_what_an_administrator_sees_and_sends(racked: Callable[..., Any], tmp_path: Path) -> None:
    async with racked({}) as rack:

        async def onekey(*arguments: str) -> str:
            process = await asyncio.create_subprocess_exec(
                *(sys.executable, "-m", "gateway.cli", "--data", str(tmp_path), "--database", rack.database),
                *("modem", *arguments),
                env={**os.environ, "ONEKEY_MASTER_KEY": base64.b64encode(bytes(range(32))).decode()},
                stdout=asyncio.subprocess.PIPE,
                stderr=asyncio.subprocess.PIPE,
            )
            out, err = await asyncio.wait_for(process.communicate(), 60)
            assert process.returncode == 0, err.decode()
            return out.decode()

        (modem,) = json.loads(await onekey("list", "--json"))["modems"]
        assert (modem["state"], modem["operator"], modem["sent_today"]) == ("ready", "CHINA MOBILE", 0)
        assert "sent: accepted by the network, 1 message" in await onekey("send", THEIRS, "试一下")
        assert [one.text for one in rack.read] == ["试一下"]
        await rack.network.text(NUMBERS[0], "谢谢", sender=THEIRS)
        await rack.eventually("SELECT count(*) FROM phone_in WHERE kind = 'message' AND state = 'handled'", [(1,)])
        told = await onekey("log", "--all", "--json")
        assert {(one["way"], one["kind"], one["number"]) for one in json.loads(told)} == {
            ("out", "sms", "+86138****5678"),
            ("in", "report", "+86138****5678"),
            ("in", "message", "+86138****5678"),
        }
        assert "12345678" not in told
        assert "谢谢" not in told
        assert "CHINA MOBILE" in await onekey("list")
        for wrong, words in (("120", "No machine writes"), ("foo", "is no number")):
            with pytest.raises(AssertionError, match=words):
                await onekey("send", wrong, "hello")
        with pytest.raises(AssertionError, match="looks after"):
            await onekey("forget", modem["port"])
        rack.ports[0].unplug()
        await rack.eventually("SELECT state FROM modem", [("gone",)])
        with pytest.raises(AssertionError, match="waiting 2 s"):
            await onekey("send", THEIRS, "too late", "--wait-s", "2")
        await rack.eventually("SELECT state FROM phone_out ORDER BY queued_at DESC LIMIT 1", [("withdrawn",)])
        await rack.stop()
        await rack.rows("UPDATE modem SET seen_at = seen_at - interval '1 hour' RETURNING 1")
        await onekey("forget", modem["port"])
        assert await rack.rows("SELECT FROM modem") == []
        assert await rack.rows("SELECT count(*) FROM cases WHERE state <> 'closed'") == [(0,)]
