"""One modem in the hands of the driver: brought up, and brought back from everything that modems are known to do."""

import asyncio
import contextlib
import sys
from collections.abc import AsyncIterator, Callable, Sequence
from contextlib import asynccontextmanager
from dataclasses import replace
from pathlib import Path
from random import Random

import pytest

from firmware_sim.modem.device import Modem as Simulated
from firmware_sim.modem.device import Sim
from firmware_sim.modem.messages import _SENT, _Stored
from firmware_sim.modem.network import Network
from firmware_sim.modem.personas import EC25, PERSONAS, SIM800, Persona
from firmware_sim.modem.ports import Port, pseudo_terminal
from gateway.config import ModemSettings
from gateway.domain.modems import CallState, ModemState
from gateway.links.modem_port import ModemPort
from gateway.modems.bring_up import Identity, bring_up
from gateway.modems.checkup import checkup
from gateway.modems.driver import Modem, NotSent
from gateway.modems.mailbox import Arrived
from gateway.modems.pace import Pace
from gateway.modems.texts import pdus
from protocols.gsm.causes import Action
from protocols.gsm.tpdu import Deliver, StatusReport, read_pdu

OURS, THEIRS = "+8613900000001", "+8613812345678"
PACE = Pace(
    find_s=0.05,
    command_s=0.5,
    list_s=1.0,
    send_s=1.0,
    beside_s=1.0,
    look_s=0.5,
    sweep_s=0.5,
    sim_s=1.0,
    register_s=1.0,
    boot_s=0.3,
    dead_s=0.5,
    healthy_s=60,
    pause_s=0.5,
    retry_s=0.1,
    ring_s=1.5,
    talk_s=1.0,
    poll_s=0.05,
)

UNHURRIED = replace(PACE, command_s=5.0, ring_s=20.0, talk_s=5.0)


class Hub:
    """Keeps what arrives, unless it cannot."""

    def __init__(self) -> None:
        self.kept: dict[str, Arrived] = {}
        self.rings: list[str | None] = []
        self.pins: set[tuple[str, str]] = set()
        self.tried: list[str] = []
        self.states: list[ModemState] = []
        self.broken = False
        self.forgets: list[list[str]] = []

    async def keep(self, modem: str, arrived: Sequence[Arrived]) -> None:
        del modem
        if self.broken:
            raise OSError("no room")
        self.kept |= {one.pdu: one for one in arrived}

    async def forgotten(self, modem: str, arrived: Sequence[Arrived]) -> None:
        del modem
        self.forgets += [[one.pdu for one in arrived]]

    async def rang(self, modem: str, number: str | None) -> None:
        del modem
        if self.broken:
            raise OSError("no room")
        self.rings.append(number)

    def named(self, modem: Modem, identity: Identity) -> Identity:
        del modem
        return identity

    def changed(self, modem: Modem) -> None:
        if not self.states or self.states[-1] is not modem.state:
            self.states.append(modem.state)

    async def pin_refused(self, sim: str, pin: str) -> bool:
        return (sim, pin) in self.pins

    async def remember_pin(self, sim: str, pin: str, *, refused: bool) -> None:
        self.tried.append(pin)
        (self.pins.add if refused else self.pins.discard)((sim, pin))

    @property
    def texts(self) -> list[str]:
        found = []
        for one in self.kept.values():
            _, message = read_pdu(one.pdu, from_phone=False, length=one.length)
            if isinstance(message, Deliver):
                found.append(message.user.text or "")
        return found

    @property
    def reports(self) -> int:
        messages = (read_pdu(one.pdu, from_phone=False, length=one.length)[1] for one in self.kept.values())
        return sum(isinstance(message, StatusReport) for message in messages)


class Bench:
    """A simulated modem and a driver that looks after it."""

    def __init__(self, network: Network, port: Port, simulated: Simulated, driver: Modem, hub: Hub) -> None:
        self.network = network
        self.port = port
        self.simulated = simulated
        self.driver = driver
        self.hub = hub

    async def until(self, holds: Callable[[], bool], timeout_s: float = 15) -> None:
        try:
            async with asyncio.timeout(timeout_s):
                while not holds():
                    await asyncio.sleep(0.01)  # a state of a device that tells nobody
        except TimeoutError:
            raise AssertionError(
                f"{self.driver.state}, {self.driver.problem}, rung {self.driver.rung}, {self.hub.states}"
            ) from None

    async def in_state(self, state: ModemState, timeout_s: float = 15) -> None:
        await self.until(lambda: self.driver.state is state, timeout_s)

    async def receives(self, text: str) -> None:
        await self.network.text(OURS, text, sender=THEIRS)
        await self.until(lambda: text in self.hub.texts)

    async def send(self, text: str = "in the midst") -> list[int]:
        return [await self.driver.send(pdu, length) for pdu, length in pdus(THEIRS, text, reference=1)]


@asynccontextmanager
async def bench(
    directory: Path,
    *,
    persona: Persona = SIM800,
    sim: Sim | None = None,
    no_sim: bool = False,
    hub: Hub | None = None,
    pace: Pace = PACE,
    **settings: object,
) -> AsyncIterator[Bench]:
    network = Network(speed=50, rng=Random(3))
    network.phone(THEIRS)
    hub = hub or Hub()
    async with pseudo_terminal(directory / "modem") as port:
        card = None if no_sim else sim or Sim(OURS)
        simulated = Simulated(network, card, port.write, persona=persona)
        port.feed = simulated.feed
        options = ModemSettings.model_validate({"path": str(port.path)} | settings)
        driver = Modem(port.path, options, hub, pace=pace)
        task = asyncio.create_task(driver.run())
        try:
            yield Bench(network, port, simulated, driver, hub)
        finally:
            task.cancel()
            await asyncio.wait({task})
            simulated.close()
            await network.close()


@pytest.mark.parametrize("persona", PERSONAS.values(), ids=PERSONAS)
async def test_each_kind_is_brought_up_and_used(tmp_path: Path, persona: Persona) -> None:
    async with bench(tmp_path, persona=persona) as one:
        await one.in_state(ModemState.READY)
        assert one.driver.identity.model == persona.model
        assert one.driver.operator == "CHINA MOBILE"
        assert one.driver.signal_dbm == -71
        await one.receives("求救")
        await one.until(lambda: one.simulated.stored("SM") + one.simulated.stored("ME") == 0)
        references = await one.send("字" * 100)
        assert len(set(references)) == 2
        await one.until(lambda: one.hub.reports == 2)
        assert one.network.phones[THEIRS].received[0].text == "字" * 100
        said = await one.driver.ask_network("*100#")
        assert said.text == "您的余额为 36.50 元。"


async def test_the_right_pin_opens_the_sim(tmp_path: Path) -> None:
    async with bench(tmp_path, sim=Sim(OURS, pin="4711"), pin="4711") as one:
        await one.in_state(ModemState.READY)
        assert one.hub.tried == ["4711", "4711"]
        assert one.hub.pins == set()


async def test_a_wrong_pin_is_tried_once_and_never_again(tmp_path: Path) -> None:
    sim, hub = Sim(OURS, pin="4711"), Hub()
    for _ in range(2):  # the second time after a restart of the gateway
        async with bench(tmp_path, sim=sim, hub=hub, pin="1234") as one:
            await one.in_state(ModemState.STOPPED)
            await asyncio.sleep(1.5)
            assert sim.tries == 2
            assert one.driver.state is ModemState.STOPPED
    async with bench(tmp_path, sim=sim, hub=hub, pin="4711") as one:
        await one.in_state(ModemState.READY)


async def test_a_wrong_pin_is_remembered_of_the_sim_and_not_of_the_modem(tmp_path: Path) -> None:
    sim, hub = Sim(OURS, pin="4711"), Hub()
    async with bench(tmp_path, sim=sim, hub=hub, pin="1234") as one:
        await one.in_state(ModemState.STOPPED)
    # The same SIM in another modem, and another SIM for which this PIN is right in the first one.
    async with bench(tmp_path, sim=sim, hub=hub, pin="1234") as one:
        await one.in_state(ModemState.STOPPED)
    assert sim.tries == 2
    async with bench(tmp_path, sim=Sim(OURS, iccid="89860012345678909999", pin="1234"), hub=hub, pin="1234") as one:
        await one.in_state(ModemState.READY)


async def test_one_that_starts_again_whenever_it_sends_is_given_up(tmp_path: Path) -> None:
    async with bench(tmp_path) as one:
        await one.in_state(ModemState.READY)
        one.simulated.line._send = lambda *_: one.simulated.reset()
        async with asyncio.timeout(30):
            while ModemState.DEAD not in one.hub.states:
                if one.driver.state is ModemState.READY:
                    with pytest.raises(NotSent):
                        await one.send()
                await asyncio.sleep(0.01)  # a state of a device that tells nobody
        assert "it has started again by itself" in str(one.driver.problem)


async def test_a_store_full_of_what_was_sent_is_emptied(tmp_path: Path) -> None:
    async with bench(tmp_path) as one:
        await one.in_state(ModemState.READY)
        ((pdu, length),) = pdus(THEIRS, "old", reference=0)
        for name, store in one.simulated._stores.items():
            for place in range(1, one.simulated.persona.stores[name] + 1):
                store[place] = _Stored(_SENT, pdu, length)
        await one.receives("SOS")


async def test_a_modem_that_does_not_delete_is_mended(tmp_path: Path) -> None:
    async with bench(tmp_path) as one:
        await one.in_state(ModemState.READY)
        ((pdu, length),) = pdus(THEIRS, "old", reference=0)
        for name, store in one.simulated._stores.items():
            for place in range(2, one.simulated.persona.stores[name] + 1):
                store[place] = _Stored(_SENT, pdu, length)
        one.simulated.faults.refuses["AT+CMGD"] = ["+CMS ERROR: 500"] * 20
        await one.receives("SOS")
        await one.until(lambda: one.driver.rung > 0)
        await one.until(lambda: not one.simulated.faults.refuses["AT+CMGD"], 60)
        await one.receives("help")


async def test_one_message_that_cannot_be_deleted_takes_no_modem_out_of_service(tmp_path: Path) -> None:
    async with bench(tmp_path, pace=replace(PACE, command_s=5.0, list_s=5.0)) as one:
        await one.in_state(ModemState.READY)
        one.simulated.faults.refuses["AT+CMGD"] = ["+CMS ERROR: 500"] * 1000
        await one.receives("SOS")
        await asyncio.sleep(3)
        assert one.driver.rung == 0
        await one.receives("help")


async def test_answers_that_come_late_all_at_once_are_not_taken_for_those_of_other_commands(tmp_path: Path) -> None:
    network = Network(speed=50, rng=Random(3))
    async with pseudo_terminal(tmp_path / "modem") as port:
        simulated = Simulated(network, Sim(OURS), port.write, persona=EC25)
        written: asyncio.Queue[bytes] = asyncio.Queue()
        port.feed = written.put_nowait

        async def stand_still_and_then_take_one_after_the_other() -> None:
            await asyncio.sleep(3.2)
            while True:
                data = await written.get()
                await asyncio.sleep(0.1)
                simulated.feed(data)

        slow = asyncio.create_task(stand_still_and_then_take_one_after_the_other())
        line = ModemPort(port.path)
        line.open()
        hub = Hub()
        setup = await bring_up(
            line,
            ModemSettings(path=str(port.path)),
            pace=Pace(),
            pin_refused=hub.pin_refused,
            remember_pin=hub.remember_pin,
        )
        assert setup.identity.id == simulated.imei
        assert setup.identity.model == EC25.model
        line.close()
        slow.cancel()
        simulated.close()
    await network.close()


async def test_a_locked_sim_is_left_alone(tmp_path: Path) -> None:
    async with bench(tmp_path, sim=Sim(OURS, pin="4711", tries=0), pin="4711") as one:
        await one.in_state(ModemState.STOPPED)
        assert "PUK" in str(one.driver.problem)


async def test_a_sim_that_is_put_in_later_is_used(tmp_path: Path) -> None:
    async with bench(tmp_path, no_sim=True) as one:
        await one.in_state(ModemState.STOPPED)
        assert one.driver.problem == "no SIM is in the modem"
        one.simulated.sim = Sim(OURS)
        one.network.attach(one.simulated)
        await one.in_state(ModemState.READY)


async def test_without_a_network_it_is_started_anew_and_comes_back(tmp_path: Path) -> None:
    async with bench(tmp_path) as one:
        await one.in_state(ModemState.READY)
        one.simulated.register(3)
        await one.in_state(ModemState.SEARCHING)
        assert one.driver.problem == "the network refuses its SIM"
        await one.in_state(ModemState.RECOVERING)
        one.simulated.register(1)
        await one.in_state(ModemState.READY)
        await one.receives("back again")


async def test_a_network_that_is_lost_is_looked_for_by_the_radio_at_once(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    async with bench(tmp_path, pace=replace(PACE, command_s=5.0, list_s=5.0)) as one:
        await one.in_state(ModemState.READY)
        one.simulated.register(0)  # until its radio was off and on
        await one.in_state(ModemState.RECOVERING)
        await one.in_state(ModemState.READY)
        measures = [record.args for record in caplog.records if "measure" in record.msg]
        assert [args[-1] for args in measures if isinstance(args, tuple)] == [2]
        await one.receives("back again")


async def test_a_reset_sets_everything_anew(tmp_path: Path) -> None:
    async with bench(tmp_path, pace=replace(PACE, command_s=2.0, list_s=3.0)) as one:
        await one.in_state(ModemState.READY)
        for n in range(3):
            one.simulated.reset()
            await one.receives(f"after reset {n}")
        assert one.driver.rung == 0


async def test_a_port_that_goes_comes_back(tmp_path: Path) -> None:
    async with bench(tmp_path) as one:
        await one.in_state(ModemState.READY)
        one.port.unplug()
        await one.in_state(ModemState.GONE)
        with pytest.raises(NotSent):
            await one.send()
        await one.network.text(OURS, "while it was out", sender=THEIRS)
        one.port.plug_in()
        await one.in_state(ModemState.READY)
        await one.until(lambda: "while it was out" in one.hub.texts)


async def test_silence_is_mended_by_the_ladder_and_given_up_after_it(tmp_path: Path) -> None:
    cycled = tmp_path / "cycled"
    command = [sys.executable, "-c", f"open({str(cycled)!r}, 'a').write('x')", "{path}"]
    async with bench(tmp_path, power_cycle=command) as one:
        await one.in_state(ModemState.READY)
        one.simulated.faults.silent = True
        await one.in_state(ModemState.DEAD, timeout_s=60)
        assert cycled.read_text() == "x"
        one.simulated.faults.silent = False
        await one.in_state(ModemState.READY, timeout_s=60)
        await one.receives("alive")


async def test_a_store_that_cannot_be_read_is_no_healthy_modem(tmp_path: Path) -> None:
    async with bench(tmp_path) as one:
        await one.in_state(ModemState.READY)
        one.simulated.faults.refuses["AT+CMGL"] = ["+CMS ERROR: 320"] * 3
        await one.in_state(ModemState.RECOVERING)
        await one.in_state(ModemState.READY)


async def test_the_first_characters_may_be_lost_or_garbage(tmp_path: Path) -> None:
    """A module that finds out the speed of the line by itself loses what comes first, and answers noise."""
    async with bench(tmp_path) as one:
        lost = 25

        def feed(data: bytes) -> None:
            nonlocal lost
            taken, lost = data[lost:], max(0, lost - len(data))
            if not taken:
                one.port.write(bytes((0xFF, 0x00, 0x86)))
            one.simulated.feed(taken)

        one.port.feed = feed
        await one.in_state(ModemState.READY)
        await one.receives("and yet")


@pytest.mark.parametrize(
    "refuses",
    [
        {"AT+CNMI=": ["+CMS ERROR: 302"] * 20},
        {"AT+CNMI=?": ["ERROR"], "AT+CPMS=?": ["ERROR"]},
        {"AT+CSMS": ["ERROR"] * 9, "AT+CVHU": ["ERROR"] * 9, "AT+COPS": ["ERROR"] * 9, "AT+CEREG": ["ERROR"] * 99},
        {"AT+CHUP": ["ERROR"] * 9},
        {"AT+CGSN": ["ERROR"], "AT+CGMI": ["ERROR"], "AT+CGMM": ["ERROR"], "AT+CGMR": ["ERROR"]},
        {"AT+CPIN?": ["+CME ERROR: 14"] * 3},
    ],
    ids=["tells nothing", "says nothing of itself", "old", "no CHUP", "nameless", "SIM busy"],
)
async def test_what_a_module_does_not_know_is_done_without(tmp_path: Path, refuses: dict[str, list[str]]) -> None:
    async with bench(tmp_path) as one:
        one.simulated.faults.refuses |= refuses
        await one.in_state(ModemState.READY)
        await one.receives("and yet")
        call = one.network.call(OURS, caller=THEIRS, rings_for_s=600)
        await one.until(lambda: one.hub.rings == [THEIRS])
        await asyncio.wait_for(call.ended(), 5)
        await one.send("and back")


async def test_a_full_store_is_emptied_and_the_backlog_arrives(tmp_path: Path) -> None:
    async with bench(tmp_path) as one:
        one.hub.broken = True
        await one.in_state(ModemState.READY)
        sending = asyncio.gather(*(one.network.text(OURS, f"text {n}", sender=THEIRS) for n in range(90)))
        await one.until(lambda: one.simulated.stored("ME") == 50 or one.simulated.stored("SM") == 20)
        await asyncio.sleep(3)  # whoever deletes first and keeps afterwards has lost them by then
        assert one.hub.kept == {}
        one.hub.broken = False
        await sending
        await one.until(lambda: len(one.hub.texts) == 90, timeout_s=30)
        await one.until(lambda: one.simulated.stored("SM") + one.simulated.stored("ME") == 0)


async def test_what_is_damaged_on_the_line_is_read_again(tmp_path: Path) -> None:
    async with bench(tmp_path) as one:
        await one.in_state(ModemState.READY)
        one.simulated.faults.noise = 0.002
        for n in range(15):
            await one.network.text(OURS, f"SOS {n:03} " + "é" * 100, sender=THEIRS)
        await asyncio.sleep(1)
        one.simulated.faults.noise = 0.0
        wanted = {f"SOS {n:03} " + "é" * 100 for n in range(15)}
        await one.until(lambda: wanted <= set(one.hub.texts), timeout_s=40)


async def test_a_message_whose_answer_gets_lost_may_have_been_sent(tmp_path: Path) -> None:
    async with bench(tmp_path, persona=EC25) as one:
        await one.in_state(ModemState.READY)
        one.simulated.faults.lost_answers = 1
        with pytest.raises(NotSent) as failed:
            await one.send()
        assert failed.value.unsure
        await one.in_state(ModemState.READY)
        await one.send("once more")


@pytest.mark.parametrize(
    ("cause", "action"),
    [
        (1, Action.RECIPIENT),
        (38, Action.ELSEWHERE),
        (50, Action.OTHER_SIM),
        (304, Action.OURS),
        (500, Action.ELSEWHERE),
    ],
)
async def test_what_the_network_refuses_says_what_to_do(tmp_path: Path, cause: int, action: Action) -> None:
    async with bench(tmp_path) as one:
        await one.in_state(ModemState.READY)
        one.network.refuses = [cause]
        with pytest.raises(NotSent) as failed:
            await one.send()
        assert failed.value.action is action
        assert not failed.value.unsure
        await one.send("the next one")


async def test_after_three_failures_in_a_row_it_rests(tmp_path: Path) -> None:
    async with bench(tmp_path) as one:
        await one.in_state(ModemState.READY)
        one.network.refuses = [38, 41, 42]
        for _ in range(3):
            with pytest.raises(NotSent):
                await one.send()
        assert not one.driver.ready
        await one.until(lambda: one.driver.ready)


async def test_an_answer_that_comes_late_is_not_taken_for_another(tmp_path: Path) -> None:
    """Hanging up may take longer than it is waited for; its OK must not be that of the message behind it (I7)."""
    async with bench(tmp_path, persona=EC25) as one:
        await one.in_state(ModemState.READY)
        one.network.phone(THEIRS, busy=True)
        one.simulated.faults.slow["AT+CHUP"] = PACE.command_s + 0.15

        async def progress(_: CallState) -> None:
            return

        await one.driver.call(THEIRS, progress=progress)
        one.simulated.faults.slow.clear()
        with contextlib.suppress(NotSent):
            await one.send("not lost")
        await one.in_state(ModemState.READY)
        sent = len(one.network.submitted)
        await one.send("and this")
        assert len(one.network.submitted) == sent + 1


async def test_what_cannot_be_deleted_is_not_said_to_be_forgotten(tmp_path: Path) -> None:
    async with bench(tmp_path) as one:
        await one.in_state(ModemState.READY)
        one.simulated.faults.refuses["AT+CMGD"] = ["+CMS ERROR: 314"] * 3
        await one.receives("SOS")
        await one.until(lambda: one.simulated.stored("SM") + one.simulated.stored("ME") == 0)
        await one.until(lambda: any(one.hub.forgets))
        assert [len(pdus) for pdus in one.hub.forgets if pdus] == [1]
        await one.until(lambda: one.hub.forgets[-1] == [])  # and then that nothing lies there any more


async def test_a_pin_that_was_being_tried_when_we_died_locks_nobody_out(tmp_path: Path) -> None:
    sim, hub = Sim(OURS, pin="4711", open=True), Hub()
    hub.pins.add((sim.iccid, "4711"))
    async with bench(tmp_path, sim=sim, hub=hub, pin="4711") as one:
        await one.in_state(ModemState.READY)
        assert hub.pins == set()
        one.simulated.reset()
        await one.until(lambda: one.driver.state is not ModemState.READY)
        await one.in_state(ModemState.READY)


async def test_one_that_hears_nothing_any_more_is_taken_off_the_network_and_back(tmp_path: Path) -> None:
    async with bench(tmp_path) as one:
        await one.in_state(ModemState.READY)
        one.simulated.faults.deaf = True
        waiting = asyncio.create_task(one.network.text(OURS, "for a day", sender=THEIRS))
        await asyncio.sleep(1)
        assert one.driver.state is ModemState.READY  # it says that all is well
        one.driver.suspect("a message to itself did not come back")
        await one.until(lambda: "for a day" in one.hub.texts)
        await waiting


async def test_who_calls_is_noted_and_hung_up_on(tmp_path: Path) -> None:
    async with bench(tmp_path) as one:
        await one.in_state(ModemState.READY)
        call = one.network.call(OURS, caller=THEIRS, rings_for_s=600)
        await one.until(lambda: one.hub.rings == [THEIRS])
        await asyncio.wait_for(call.ended(), 5)
        assert call.how == "hung up here"
        withheld = one.network.call(OURS, caller=None, rings_for_s=600)
        await one.until(lambda: len(one.hub.rings) == 2)
        assert one.hub.rings[1] is None
        await asyncio.wait_for(withheld.ended(), 5)


async def test_a_terminal_that_calls_while_we_call_is_noted(tmp_path: Path) -> None:
    async with bench(tmp_path, pace=replace(UNHURRIED, ring_s=4.0)) as one:
        await one.in_state(ModemState.READY)
        one.network.phone(THEIRS, picks_up_after_s=1000.0)
        calling = asyncio.create_task(one.driver.call(THEIRS, progress=_nothing))
        await one.until(lambda: one.driver.calling)
        one.simulated.line.notice('+CLIP: "+8614700000001",145')
        await one.until(lambda: "+8614700000001" in one.hub.rings)
        one.simulated.line.notice('+CLIP: "+8614700000001",145')
        assert (await calling).how is CallState.NO_ANSWER
        assert one.hub.rings == ["+8614700000001"], "it goes on ringing, and is one call"
        one.simulated.line.notice('+CLIP: "+8614700000001",145')
        await one.until(lambda: len(one.hub.rings) == 2)  # the first was hung up on


@pytest.mark.parametrize("persona", PERSONAS.values(), ids=PERSONAS)
async def test_a_message_goes_out_while_a_call_goes_on(tmp_path: Path, persona: Persona) -> None:
    async with bench(tmp_path, persona=persona, pace=UNHURRIED) as one:
        await one.in_state(ModemState.READY)
        one.network.phone(THEIRS, picks_up_after_s=150.0, presses="1", talks_for_s=200.0)
        assert not one.driver.ready_beside
        calling = asyncio.create_task(one.driver.call(THEIRS, progress=_nothing))
        await one.until(lambda: one.driver.ready_beside)
        await one.send("beside a call")
        assert not calling.done()
        assert (await calling).keys == "1"
        assert not one.driver.ready_beside


async def test_one_that_refuses_messages_during_a_call_is_as_good_as_others_otherwise(tmp_path: Path) -> None:
    async with bench(tmp_path, pace=replace(UNHURRIED, ring_s=5.0)) as one:
        await one.in_state(ModemState.READY)
        one.network.phone(THEIRS, picks_up_after_s=1000.0)
        for call in range(4):
            calling = asyncio.create_task(one.driver.call(THEIRS, progress=_nothing))
            await one.until(lambda: one.driver.calling)
            if call == 3:
                await asyncio.sleep(1)
                assert not one.driver.ready_beside, "three calls are enough to know"
            else:
                await one.until(lambda: one.driver.ready_beside)
                one.simulated.faults.refuses["AT+CMGS"] = ["+CMS ERROR: 302"]
                with pytest.raises(NotSent, match="not during a call") as failure:
                    await one.send("refused")
                assert failure.value.beside
                assert not one.driver.ready_beside, "not again in this call"
            assert (await calling).how is CallState.NO_ANSWER
        assert one.driver.failures == 0
        await one.send("after the calls")


async def test_a_message_that_hangs_beside_a_call_takes_nothing_from_it(tmp_path: Path) -> None:
    async with bench(tmp_path, pace=UNHURRIED) as one:
        await one.in_state(ModemState.READY)
        one.network.phone(THEIRS, picks_up_after_s=100.0, presses="1", talks_for_s=500.0)
        calling = asyncio.create_task(one.driver.call(THEIRS, progress=_nothing))
        await one.until(lambda: one.driver.ready_beside)
        one.simulated.faults.slow["AT+CMGS"] = 60.0
        with pytest.raises(NotSent, match="did not say") as failure:
            await one.send("hangs")
        assert (failure.value.unsure, failure.value.beside) == (True, True)
        one.simulated.faults.slow.clear()
        called = await calling
        assert (called.picked_up, called.keys) == (True, "1")
        assert (one.driver.state, one.driver.rung) == (ModemState.READY, 0)


async def test_whoever_picked_up_has_answered_though_the_modem_is_pulled_out_then(tmp_path: Path) -> None:
    async with bench(tmp_path, pace=UNHURRIED) as one:
        await one.in_state(ModemState.READY)
        one.network.phone(THEIRS, picks_up_after_s=10.0, talks_for_s=5000.0)
        seen: list[CallState] = []

        async def progress(state: CallState) -> None:
            seen.append(state)

        calling = asyncio.create_task(one.driver.call(THEIRS, progress=progress))
        await one.until(lambda: CallState.PICKED_UP in seen)
        one.port.unplug()
        called = await calling
        assert (called.how, called.picked_up) == (CallState.HUNG_UP, True)


async def _nothing(_: CallState) -> None:
    return


async def test_a_call_that_cannot_be_kept_yet_is_kept_later(tmp_path: Path) -> None:
    async with bench(tmp_path) as one:
        await one.in_state(ModemState.READY)
        one.hub.broken = True
        call = one.network.call(OURS, caller=THEIRS, rings_for_s=600)
        await asyncio.sleep(1)
        assert call.state == "incoming", "whoever is hung up on believes to have been heard"
        one.hub.broken = False
        await one.until(lambda: THEIRS in one.hub.rings)
        await asyncio.wait_for(call.ended(), 5)


@pytest.mark.parametrize("persona", PERSONAS.values(), ids=PERSONAS)
@pytest.mark.parametrize(
    ("habit", "how", "picked_up", "keys"),
    [
        ({"picks_up_after_s": 10.0, "presses": "1", "talks_for_s": 200.0}, CallState.HUNG_UP, True, "1"),
        ({"picks_up_after_s": 10.0, "talks_for_s": 100.0}, CallState.HUNG_UP, True, ""),
        ({"picks_up_after_s": 10.0, "talks_for_s": 1000.0}, CallState.HUNG_UP, True, ""),
        ({"picks_up_after_s": None}, CallState.NO_ANSWER, False, ""),
        ({"busy": True}, CallState.BUSY, False, ""),
        ({"reachable": False}, CallState.FAILED, False, ""),
    ],
    ids=["key", "hangs up", "stays", "no answer", "busy", "off"],
)
async def test_calls(
    tmp_path: Path, persona: Persona, habit: dict[str, object], how: CallState, *, picked_up: bool, keys: str
) -> None:
    async with bench(tmp_path, persona=persona, pace=replace(PACE, command_s=5.0, talk_s=5.0)) as one:
        await one.in_state(ModemState.READY)
        one.network.phone(THEIRS, **habit)
        seen: list[CallState] = []

        async def progress(state: CallState) -> None:
            seen.append(state)

        called = await one.driver.call(THEIRS, progress=progress)
        assert (called.how, called.picked_up, called.keys) == (how, picked_up, keys)
        assert seen[0] is CallState.DIALLING
        assert (CallState.PICKED_UP in seen) is picked_up
        await one.send("after the call")


async def test_a_checkup_says_what_is_good_and_what_is_wrong(tmp_path: Path) -> None:
    network = Network(speed=50)
    async with pseudo_terminal(tmp_path / "modem") as port:
        simulated = Simulated(network, Sim(OURS, pin="4711"), port.write, persona=EC25)
        port.feed = simulated.feed

        async def looked_at(**settings: object) -> dict[str, tuple[bool | None, str]]:
            options = ModemSettings.model_validate({"path": str(port.path)} | settings)
            return {one.name: (one.good, one.words) async for one in checkup(port.path, options, pace=PACE)}

        assert (await looked_at())["SIM"] == (
            False,
            "the SIM wants its PIN: give it in the settings, or take it off in a phone",
        )
        found = await looked_at(pin="4711")
        assert all(good for good, _ in found.values()), found
        assert found["answers"][1].startswith("Quectel EC25")
        assert found["store ME"][1] == "0 of 255 messages"
        simulated.register(3)
        simulated.faults.signal = 3
        found = await looked_at()
        assert found["network"][0] is False
        assert "refuses its SIM" in found["network"][1]
        assert found["signal"] == (False, "-107 dBm: weak, move its antenna")
        other = Modem(port.path, ModemSettings(path=str(port.path)), Hub(), pace=PACE)
        task = asyncio.create_task(other.run())
        await asyncio.sleep(0.3)
        assert "another program has it open" in (await looked_at())["port"][1]
        task.cancel()
        await asyncio.wait({task})
        simulated.faults.silent = True
        assert (await looked_at())["answers"][0] is False
        port.unplug()
        assert "no such port" in (await looked_at())["port"][1]
        simulated.close()
        await network.close()
