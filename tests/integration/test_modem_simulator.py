"""The simulated modem: what a driver has to live with happens, and nothing that a real one would not do."""

import asyncio
import contextlib
import os
import re
import secrets
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import replace
from pathlib import Path

import pytest

from firmware_sim.modem.device import Modem, Sim
from firmware_sim.modem.network import Network
from firmware_sim.modem.personas import A7670, EC25, SIM800, Persona
from firmware_sim.modem.ports import SocketPort, pseudo_terminal, tcp, unix_socket
from protocols.gsm import replies
from protocols.gsm.address import Address
from protocols.gsm.at import Answer, AtEvent, Dialogue, Notice, Prompt
from protocols.gsm.coding import DataCoding
from protocols.gsm.tpdu import Deliver, StatusReport, Submit, read_pdu, write_pdu
from protocols.gsm.userdata import joined, split

OURS, THEIRS = "+8613900000001", "+8613812345678"


class Bench:
    """A modem and somebody who talks to it."""

    def __init__(self, network: Network, sim: Sim | None, persona: Persona) -> None:
        self.dialogue = Dialogue()
        self.events: list[AtEvent] = []
        self.network = network
        self.modem = Modem(network, sim, self._heard, persona=persona)

    def _heard(self, data: bytes) -> None:
        for event in self.dialogue.feed(data):
            self.events.append(event)
            if isinstance(event, Prompt):
                self.modem.feed(event.body)

    def ask(self, command: str, *, prefix: str = "", free: bool = False, body: str | None = None) -> Answer:
        self.modem.feed(
            self.dialogue.send(command, prefix=prefix, free=free, calls=command.startswith("ATD"), body=body)
        )
        answer = next(event for event in reversed(self.events) if isinstance(event, Answer))
        assert answer.command == command
        return answer

    def send(self, text: str) -> Answer:
        (user,) = split(text, reference=1)
        message = Submit(recipient=Address.parse(THEIRS), user=user, coding=DataCoding.of(user.alphabet), report=True)
        pdu, length = write_pdu(message)
        return self.ask(f"AT+CMGS={length}", prefix="+CMGS:", body=pdu)

    def notices(self) -> list[str]:
        return [event.line for event in self.events if isinstance(event, Notice)]

    async def until(self, line: str, timeout_s: float = 10) -> None:
        async with asyncio.timeout(timeout_s):
            while not any(notice.startswith(line) for notice in self.notices()):
                await asyncio.sleep(0.01)

    async def count(self, line: str, number: int, timeout_s: float = 10) -> None:
        async with asyncio.timeout(timeout_s):
            while (found := sum(notice.startswith(line) for notice in self.notices())) < number:
                await asyncio.sleep(0.01)
        assert found == number

    def set_up(self) -> None:
        for command in ("ATE0", "AT+CMEE=1", "AT+CMGF=0", "AT+CNMI=2,1,0,1,0", "AT+CLIP=1", "AT+CREG=1"):
            assert self.ask(command).ok, command


@asynccontextmanager
async def bench(sim: Sim | None = None, *, persona: Persona = SIM800, no_sim: bool = False) -> AsyncIterator[Bench]:
    network = Network(speed=50)
    network.phone(THEIRS)
    here = Bench(network, None if no_sim else sim or Sim(OURS), persona)
    try:
        yield here
    finally:
        here.modem.close()
        await network.close()


async def test_a_pin_is_asked_for_and_three_wrong_ones_lock_the_sim() -> None:
    async with bench(Sim(OURS, pin="1234")) as at:
        at.ask("AT+CMEE=1")
        assert at.ask("AT+CPIN?", prefix="+CPIN:").lines == ("+CPIN: SIM PIN",)
        assert at.ask("AT+CMGL=4", prefix="+CMGL:").final.code == 11
        assert at.ask('AT+CPIN="0000"').final.code == 16
        assert at.ask('AT+CPIN="1234"').ok
        assert at.ask("AT+CPIN?", prefix="+CPIN:").lines == ("+CPIN: READY",)
    async with bench(Sim(OURS, pin="1234")) as at:
        at.ask("AT+CMEE=1")
        for _ in range(3):
            at.ask('AT+CPIN="0000"')
        assert at.ask("AT+CPIN?", prefix="+CPIN:").lines == ("+CPIN: SIM PUK",)
        assert at.ask('AT+CPIN="1234"').final.code == 12


async def test_without_a_sim_it_says_so() -> None:
    async with bench(no_sim=True) as at:
        at.ask("AT+CMEE=1")
        assert at.ask("AT+CPIN?", prefix="+CPIN:").final.code == 10
        assert at.ask("AT+CSQ", prefix="+CSQ:").ok


@pytest.mark.parametrize("persona", [SIM800, A7670, EC25])
async def test_a_text_in_parts_comes_and_is_told_of(persona: Persona) -> None:
    async with bench(persona=persona) as at:
        at.set_up()
        await at.network.text(OURS, "摔倒" * 100, sender=THEIRS, shuffled=True)
        assert sum(line.startswith("+CMTI:") for line in at.notices()) == 3
        stored = replies.stored_messages(at.ask("AT+CMGL=4", prefix="+CMGL:").lines)
        parts = {}
        for one in stored:
            _, message = read_pdu(one.pdu, from_phone=False, length=one.length)
            assert isinstance(message, Deliver)
            assert message.user.header.concat is not None
            parts[message.user.header.concat.seq] = message.user
            assert str(message.sender) == THEIRS
            assert at.ask(f"AT+CMGD={one.index}").ok
        assert joined([parts[seq] for seq in sorted(parts)]).text == "摔倒" * 100
        assert at.modem.stored() == at.modem.stored("ME") == 0
        empty = at.ask("AT+CMGR=1", prefix="+CMGR:")
        assert (empty.ok, empty.final.code) == ((False, 321) if persona.empty_place else (True, None))


async def test_what_does_not_fit_into_a_full_store_comes_when_there_is_room() -> None:
    async with bench() as at:
        at.set_up()
        sending = [asyncio.ensure_future(at.network.text(OURS, f"{n}", sender=THEIRS)) for n in range(22)]
        await asyncio.sleep(0.3)
        assert at.modem.stored() == 20
        assert at.ask("AT+CMGD=1,4").ok
        await asyncio.wait_for(asyncio.gather(*sending), 10)
        assert at.modem.stored() == 2


async def test_a_message_is_sent_and_its_report_comes_back() -> None:
    async with bench() as at:
        at.set_up()
        answer = at.send("您好")
        assert answer.ok
        await at.until("+CDS:")
        notice = next(event for event in at.events if isinstance(event, Notice) and event.pdu)
        _, report = read_pdu(notice.pdu or "", from_phone=False)
        assert isinstance(report, StatusReport)
        assert f"+CMGS: {report.reference}" in answer.lines
        assert [text.text for text in at.network.phones[THEIRS].received] == ["您好"]


async def test_while_a_message_is_typed_notices_wait() -> None:
    async with bench() as at:
        at.set_up()
        said: list[bytes] = []
        at.modem.line.write = said.append
        at.modem.feed(b"AT+CMGS=20\r")
        await at.network.text(OURS, "x", sender=THEIRS)
        assert b"".join(said) == b"\r\n> "
        at.modem.feed(b"\x1b")
        assert b"+CMTI" in b"".join(said)
        assert at.network.submitted == []


@pytest.mark.parametrize(("cause", "code"), [(38, 38), (330, 330)])
async def test_the_network_may_refuse(cause: int, code: int) -> None:
    async with bench() as at:
        at.set_up()
        at.network.refuses.append(cause)
        assert at.send("x").final.code == code
        assert at.send("x").ok
        at.modem.faults.refuses["AT+CSQ"] = ["+CME ERROR: 100"]
        assert at.ask("AT+CSQ", prefix="+CSQ:").final.code == 100
        assert at.ask("AT+CSQ", prefix="+CSQ:").ok


async def test_an_answer_may_get_lost_though_the_message_is_sent() -> None:
    async with bench() as at:
        at.set_up()
        at.modem.faults.lost_answers = 1
        with pytest.raises((AssertionError, StopIteration)):
            at.send("x")
        at.modem.feed(at.dialogue.abandon())
        assert at.ask("AT").ok
        assert len(at.network.submitted) == 1


async def test_a_modem_that_starts_again_has_forgotten_what_was_set_and_not_what_was_stored() -> None:
    async with bench() as at:
        at.set_up()
        await at.network.text(OURS, "x", sender=THEIRS)
        at.modem.reset()
        await at.until("SMS Ready")
        assert at.ask("AT+CNMI?", prefix="+CNMI:").lines == ("+CNMI: 0,0,0,0,0",)
        assert at.modem.stored() == 1


async def test_without_a_network_nothing_is_sent_and_what_is_for_us_waits() -> None:
    async with bench() as at:
        at.set_up()
        at.modem.register(2)
        assert "+CREG: 2" in at.notices()
        assert at.send("x").final.code == 331
        sending = asyncio.ensure_future(at.network.text(OURS, "x", sender=THEIRS))
        await asyncio.sleep(0.1)
        assert at.modem.stored() == 0
        at.modem.register(1)
        await asyncio.wait_for(sending, 10)
        assert at.modem.stored() == 1


async def test_it_rings_says_who_and_stops_when_it_is_answered() -> None:
    async with bench() as at:
        at.set_up()
        call = at.network.call(OURS, caller=THEIRS)
        await at.until("+CLIP:")
        assert replies.caller(next(line for line in at.notices() if line.startswith("+CLIP"))) == THEIRS
        assert replies.calls(at.ask("AT+CLCC", prefix="+CLCC:").lines)[0].state == 4
        assert at.ask("ATH").ok
        assert call.state == "ended"
        quiet = at.network.call(OURS, caller=None, rings_for_s=3)
        await asyncio.wait_for(quiet.ended(), 10)
        assert "NO CARRIER" in at.notices()


@pytest.mark.parametrize(
    ("habits", "seen", "end"),
    [
        ({"picks_up_after_s": 1.0, "talks_for_s": 2.0}, {2, 3, 0}, "NO CARRIER"),
        ({"busy": True}, {2}, "BUSY"),
        ({"picks_up_after_s": None}, {2, 3}, "NO ANSWER"),
        ({"reachable": False}, {2}, "NO CARRIER"),
    ],
)
async def test_a_call_goes_through_its_states(habits: dict[str, object], seen: set[int], end: str) -> None:
    async with bench() as at:
        at.set_up()
        at.network.phone(THEIRS, **habits)
        assert at.ask(f"ATD{THEIRS};").ok
        states = set()
        async with asyncio.timeout(10):
            while calls := replies.calls(at.ask("AT+CLCC", prefix="+CLCC:").lines):
                states.add(calls[0].state)
                await asyncio.sleep(0.001)
        assert states == seen
        assert end in at.notices()


async def test_ussd_is_answered() -> None:
    async with bench() as at:
        at.set_up()
        assert at.ask('AT+CUSD=1,"*100#",15').ok
        await at.until("+CUSD:")
        read = replies.ussd(next(line for line in at.notices() if line.startswith("+CUSD")))
        assert read is not None
        assert read.text == "您的余额为 36.50 元。"


async def test_what_notifications_a_maker_does_not_know_are_refused() -> None:
    async with bench() as at:
        assert at.ask("AT+CNMI=2,1,0,2,0").final.code == 302
    async with bench(persona=EC25) as at:
        assert at.ask("AT+CNMI=2,1,0,2,0").ok


async def test_a_port_that_is_pulled_out_is_gone_and_comes_back_under_its_name(tmp_path: Path) -> None:
    async with pseudo_terminal(tmp_path / "modem") as port:
        heard: list[bytes] = []
        port.feed = heard.append
        file = os.open(port.path, os.O_RDWR | os.O_NOCTTY)
        os.write(file, b"AT\r")
        async with asyncio.timeout(5):
            while not heard:
                await asyncio.sleep(0.01)
        port.unplug()
        assert not port.path.exists()
        with pytest.raises(OSError, match=r"."):
            os.write(file, b"AT\r")
        os.close(file)
        port.plug_in()
        file = os.open(port.path, os.O_RDWR | os.O_NOCTTY)
        port.write(b"RDY\r\n")
        assert os.read(file, 100) == b"RDY\r\n"
        os.close(file)


async def test_a_message_that_is_said_has_to_be_confirmed_before_the_next() -> None:
    async with bench(persona=EC25) as at:
        at.set_up()
        assert at.ask("AT+CSMS=1", prefix="+CSMS:").ok
        assert at.ask("AT+CNMI=2,2,0,1,0").ok
        assert at.ask("AT+CNMA").final.code == 340
        at.network.retry_s = 1.0
        sending = asyncio.ensure_future(at.network.text(OURS, "摔倒" * 100, sender=THEIRS))
        for number in range(1, 4):
            await at.count("+CMT:", number)
            # With a report to the network (27.005, 3.4.4), and without.
            assert (at.ask("AT+CNMA=1,2", body="0000") if number % 2 else at.ask("AT+CNMA")).ok
        assert sum(isinstance(event, Prompt) for event in at.events) == 2
        await asyncio.wait_for(sending, 10)
        assert at.ask("AT+CNMA=0").final.code == 340
        assert at.modem.stored() == at.modem.stored("ME") == 0


async def test_what_nobody_confirms_comes_again_and_is_kept() -> None:
    async with bench(persona=EC25) as at:
        at.set_up()
        at.ask("AT+CSMS=1", prefix="+CSMS:")
        at.ask("AT+CNMI=2,2,0,1,0")
        await at.network.text(OURS, "x", sender=THEIRS)
        assert at.ask("AT+CNMA=2").ok  # it could not be kept
        await at.count("+CMT:", 2)
        async with asyncio.timeout(10):
            while not at.modem.stored():
                await asyncio.sleep(0.01)
        assert at.ask("AT+CNMI?", prefix="+CNMI:").lines == ("+CNMI: 2,0,0,0,0",)


async def test_in_two_stores_at_once_a_message_has_the_same_place_wherever_it_is_named() -> None:
    persona = replace(EC25, stores={"ME": 2, "SM": 2, "MT": 4})
    async with bench(persona=persona) as at:
        at.set_up()
        assert at.ask('AT+CPMS="MT","MT","MT"', prefix="+CPMS:").ok
        for number in range(4):
            await at.network.text(OURS, f"{number}", sender=THEIRS)
        told = [int(notice.rpartition(",")[2]) for notice in at.notices() if notice.startswith("+CMTI")]
        listed = replies.stored_messages(at.ask("AT+CMGL=4", prefix="+CMGL:").lines)
        assert told == [one.index for one in listed] == [1, 2, 3, 4]
        assert (at.modem.stored("ME"), at.modem.stored("SM")) == (2, 2)


async def test_a_list_of_messages_is_one_text() -> None:
    """27.005, 3.4.2: lines follow one another without an empty one; some managers of modems insist."""
    async with bench() as at:
        at.set_up()
        await at.network.text(OURS, "摔倒" * 50, sender=THEIRS)
        said: list[bytes] = []
        at.modem.line.write = said.append
        at.modem.feed(b"AT+CMGL=4\r")
        assert re.fullmatch(
            rb"\r\n\+CMGL: 1,0,,\d+\r\n[0-9A-F]+\r\n\+CMGL: 2,0,,\d+\r\n[0-9A-F]+\r\n\r\nOK\r\n", b"".join(said)
        )


async def test_the_serial_number_of_the_sim_is_in_its_file() -> None:
    async with bench(Sim(OURS, iccid="8986001234567890123")) as at:
        assert at.ask("AT+CRSM=176,12258,0,0,10", prefix="+CRSM:").lines == ('+CRSM: 144,0,"986800214365870921F3"',)
        status = at.ask("AT+CRSM=192,12258", prefix="+CRSM:").lines
        assert status == ('+CRSM: 144,0,"0000000A2FE204000FFFFF01020000"',)
        assert at.ask("AT+CRSM=176,28486,0,0,17", prefix="+CRSM:").lines == ("+CRSM: 106,130",)


async def test_whoever_hangs_up_is_told_ok_and_nothing_else() -> None:
    async with bench() as at:
        at.set_up()
        assert at.ask(f"ATD{THEIRS};").ok
        said: list[bytes] = []
        at.modem.line.write = said.append
        at.modem.feed(b"AT+CHUP\rAT+CLCC\r")
        assert b"".join(said) == b"\r\nOK\r\n" * 2


@pytest.mark.parametrize("way", ["tcp", "unix"])
async def test_a_socket_has_one_client_at_a_time(way: str) -> None:
    async def connect(port: SocketPort) -> tuple[asyncio.StreamReader, asyncio.StreamWriter]:
        if isinstance(port.address, str):
            return await asyncio.open_unix_connection(f"\0{port.address}")
        return await asyncio.open_connection(*port.address)

    async with tcp() if way == "tcp" else unix_socket(f"onekey-{secrets.token_hex(8)}") as port, asyncio.timeout(10):
        port.feed = lambda data: port.write(b"heard " + data)
        port.write(b"lost: nobody is there")
        first, first_writer = await connect(port)
        first_writer.write(b"AT")
        assert await first.readexactly(8) == b"heard AT"
        second, second_writer = await connect(port)
        second_writer.write(b"ATZ")
        assert await second.readexactly(9) == b"heard ATZ"
        with contextlib.suppress(ConnectionResetError):
            assert await first.read() == b""
        port.unplug()
        with contextlib.suppress(ConnectionResetError):
            assert await second.read() == b""
        third, third_writer = await connect(port)
        third_writer.write(b"ATI")
        assert await third.readexactly(9) == b"heard ATI"
        for writer in (first_writer, second_writer, third_writer):
            writer.close()
