"""A modem's serial line against the simulated one: answers, notices, silence, noise, and a port that is pulled out."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

import pytest

from firmware_sim.modem.device import Modem, Sim
from firmware_sim.modem.network import Network
from firmware_sim.modem.ports import Port, pseudo_terminal
from gateway.links.modem_port import ModemGone, ModemPort, ModemSilent
from protocols.gsm import replies
from protocols.gsm.address import Address
from protocols.gsm.at import Notice
from protocols.gsm.coding import DataCoding
from protocols.gsm.tpdu import Submit, write_pdu
from protocols.gsm.userdata import split

OURS, THEIRS = "+8613900000001", "+8613812345678"


class Rack:
    """A simulated modem in its network, and our line to it."""

    def __init__(self, network: Network, port: Port, modem: Modem, line: ModemPort, notices: list[Notice]) -> None:
        self.network = network
        self.port = port
        self.modem = modem
        self.line = line
        self.notices = notices

    async def send(self, text: str, *, timeout_s: float = 5) -> bool:
        (user,) = split(text, reference=1)
        message = Submit(recipient=Address.parse(THEIRS), user=user, coding=DataCoding.of(user.alphabet))
        pdu, length = write_pdu(message)
        return (await self.line.ask(f"AT+CMGS={length}", prefix="+CMGS:", body=pdu, timeout_s=timeout_s)).ok


@asynccontextmanager
async def rack(directory: Path) -> AsyncIterator[Rack]:
    network = Network(speed=50)
    network.phone(THEIRS)
    notices: list[Notice] = []
    async with pseudo_terminal(directory / "modem") as port:
        modem = Modem(network, Sim(OURS), port.write)
        port.feed = modem.feed
        line = ModemPort(port.path, notice=notices.append)
        line.open()
        try:
            await line.synchronise()
            yield Rack(network, port, modem, line, notices)
        finally:
            line.close()
            modem.close()
            await network.close()


async def test_commands_are_answered_in_their_turn(tmp_path: Path) -> None:
    async with rack(tmp_path) as at:
        asked = [at.line.ask("AT+CSQ", prefix="+CSQ:") for _ in range(20)]
        asked += [at.line.ask("AT+CGSN", free=True)]
        answers = await asyncio.gather(*asked)
        assert [answer.lines for answer in answers[:20]] == [("+CSQ: 21,0",)] * 20
        assert answers[20].lines == (at.modem.imei,)


async def test_a_message_goes_out_and_one_that_comes_is_told_of_and_read(tmp_path: Path) -> None:
    async with rack(tmp_path) as at:
        await at.line.ask("AT+CNMI=2,1,0,0,0")
        assert await at.send("您好")
        await at.network.text(OURS, "紧急" * 60, sender=THEIRS)
        async with asyncio.timeout(5):
            while len(at.notices) < 2:
                await asyncio.sleep(0.01)
        places = [replies.stored_at(notice.line) for notice in at.notices]
        assert places == [("SM", 1), ("SM", 2)]
        answer = await at.line.ask("AT+CMGL=4", prefix="+CMGL:")
        assert len(replies.stored_messages(answer.lines)) == 2
        await asyncio.sleep(0.1)
        assert [text.text for text in at.network.phones[THEIRS].received] == ["您好"]


async def test_a_modem_that_is_silent_is_brought_back(tmp_path: Path) -> None:
    async with rack(tmp_path) as at:
        at.modem.faults.silent = True
        for _ in range(3):
            with pytest.raises(ModemSilent):
                await at.line.ask("AT+CSQ", prefix="+CSQ:", timeout_s=0.1)
        assert at.line.silences == 3
        at.modem.faults.silent = False
        await at.line.synchronise()
        assert at.line.silences == 0
        assert (await at.line.ask("AT+CSQ", prefix="+CSQ:")).ok


async def test_an_answer_that_is_lost_does_not_become_the_next_ones(tmp_path: Path) -> None:
    async with rack(tmp_path) as at:
        at.modem.faults.lost_answers = 1
        with pytest.raises(ModemSilent):
            await at.send("x", timeout_s=0.3)
        await at.line.synchronise()
        assert (await at.line.ask("AT+CSQ", prefix="+CSQ:")).lines == ("+CSQ: 21,0",)
        assert len(at.network.submitted) == 1, "it may be out: whoever repeats it says so"


async def test_noise_on_the_line_is_lived_through(tmp_path: Path) -> None:
    async with rack(tmp_path) as at:
        await at.line.ask("ATE0")
        at.modem.faults.noise = 0.3
        for _ in range(5):
            try:
                await at.line.ask("AT+CGMI", free=True, timeout_s=0.2)
            except ModemSilent:
                continue
        at.modem.faults.noise = 0.0
        await at.line.synchronise()
        assert (await at.line.ask("AT+CSQ", prefix="+CSQ:")).lines == ("+CSQ: 21,0",)


async def test_a_port_that_is_pulled_out_ends_what_waits_and_opens_again(tmp_path: Path) -> None:
    async with rack(tmp_path) as at:
        at.modem.faults.silent = True
        asking = asyncio.ensure_future(at.line.ask("AT+CSQ", timeout_s=20))
        await asyncio.sleep(0.1)
        at.port.unplug()
        async with asyncio.timeout(5):
            with pytest.raises(ModemGone):
                await asking
            await at.line.gone.wait()
        with pytest.raises(ModemGone):
            await at.line.ask("AT")
        with pytest.raises(ModemGone):
            ModemPort(at.port.path).open()
        at.modem.faults.silent = False
        at.port.plug_in()
        again = ModemPort(at.port.path)
        again.open()
        await again.synchronise()
        assert (await again.ask("AT+CSQ", prefix="+CSQ:")).ok
        again.close()


async def test_nobody_else_opens_a_port_that_we_have(tmp_path: Path) -> None:
    async with rack(tmp_path) as at:
        with pytest.raises(ModemGone):
            ModemPort(at.port.path).open()
        assert (await at.line.ask("AT")).ok
