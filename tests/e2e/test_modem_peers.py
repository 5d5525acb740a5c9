"""Foreign software takes the simulated modem for a modem: it identifies, reads, sends, deletes, asks and dials."""

import asyncio
import json
import os
import re
import secrets
import shutil
import warnings
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from contextlib import AbstractAsyncContextManager, asynccontextmanager, contextmanager
from dataclasses import dataclass, field
from pathlib import Path

import pytest

from firmware_sim.modem.device import Modem, Sim
from firmware_sim.modem.network import Network, Phone, Text
from firmware_sim.modem.personas import PERSONAS
from firmware_sim.modem.ports import Port, SocketPort, pseudo_terminal, tcp, unix_socket
from tests.e2e.own import needed

OURS, THEIRS = "+8613900000001", "+8613812345678"
LONG = "紧急呼叫：张三在家中摔倒，" * 11  # three messages
SPEED = 5.0


@dataclass
class Rack:
    """A modem in a network, and the way to it."""

    directory: Path
    network: Network
    modem: Modem
    port: Port | SocketPort
    environment: dict[str, str] = field(default_factory=lambda: os.environ | {"LC_ALL": "C.UTF-8"})

    @property
    def phone(self) -> Phone:
        return self.network.phone(THEIRS)

    async def run(self, program: str, package: str, *words: str, timeout_s: float = 60, may_fail: bool = False) -> str:
        """Run foreign software to its end and return what it says; it has to end well, unless it may fail."""
        process = await asyncio.create_subprocess_exec(
            needed(program, package),
            *words,
            stdin=asyncio.subprocess.DEVNULL,
            stdout=asyncio.subprocess.PIPE,
            stderr=asyncio.subprocess.STDOUT,
            cwd=self.directory,
            env=self.environment,
        )
        async with asyncio.timeout(timeout_s):
            said, _ = await process.communicate()
        assert process.returncode == 0 or may_fail, said.decode(errors="replace")
        return said.decode(errors="replace")

    @asynccontextmanager
    async def daemon(
        self, program: str, package: str, *words: str, log: str = "daemon.log", **environment: str
    ) -> AsyncIterator[None]:
        """Run foreign software that does not end by itself; what it says goes into a file."""
        with (self.directory / log).open("wb") as said:
            process = await asyncio.create_subprocess_exec(
                needed(program, package),
                *words,
                stdin=asyncio.subprocess.DEVNULL,
                stdout=said,
                stderr=said,
                cwd=self.directory,
                env=self.environment | environment,
            )
        try:
            yield
        finally:
            await _end(process)

    @asynccontextmanager
    async def bus(self) -> AsyncIterator[None]:
        """Have a message bus of our own, which software that wants the system's takes for it."""
        process = await asyncio.create_subprocess_exec(
            needed("dbus-daemon", "dbus"),
            *("--session", "--nofork", "--nopidfile", "--print-address"),
            stdin=asyncio.subprocess.DEVNULL,
            stdout=asyncio.subprocess.PIPE,
            cwd=self.directory,
        )
        try:
            assert process.stdout is not None
            async with asyncio.timeout(30):
                address = (await process.stdout.readline()).decode().strip()
            self.environment |= {"DBUS_SYSTEM_BUS_ADDRESS": address, "DBUS_SESSION_BUS_ADDRESS": address}
            yield
        finally:
            await _end(process)

    async def call(self, service: str, path: str, method: str, *arguments: str, may_fail: bool = False) -> str:
        """Call a method over the bus and return what comes back."""
        return await self.run(
            "dbus-send",
            "dbus",
            *("--session", "--print-reply", f"--dest={service}", path, method, *arguments),
            may_fail=may_fail,
        )

    async def asked(self, ask: Callable[[], Awaitable[str]], wanted: str, timeout_s: float = 30) -> str:
        """Ask until `wanted`, a regular expression, is in the answer."""
        said = ""
        try:
            async with asyncio.timeout(timeout_s):
                while not re.search(wanted, said := await ask()):
                    await asyncio.sleep(0.2)
        except TimeoutError:
            pytest.fail(f"no {wanted}: {said}\n{self.log()}")
        return said

    def log(self) -> str:
        """What the daemon said."""
        return (self.directory / "daemon.log").read_text(errors="replace")[-3000:]


async def _end(process: asyncio.subprocess.Process) -> None:
    """End what we started, with patience and then without."""
    if process.returncode is None:
        process.terminate()
    try:
        async with asyncio.timeout(20):
            await process.wait()
    except TimeoutError:
        process.kill()
        await process.wait()


@asynccontextmanager
async def rack(
    directory: Path,
    persona: str = "sim800",
    way: AbstractAsyncContextManager[SocketPort] | None = None,
    sim: Sim | None = None,
) -> AsyncIterator[Rack]:
    network = Network(speed=SPEED)
    network.phone(THEIRS, talks_for_s=300.0)
    async with way or pseudo_terminal(directory / "modem") as port:
        modem = Modem(network, sim or Sim(OURS), port.write, persona=PERSONAS[persona])
        port.feed = modem.feed
        try:
            yield Rack(directory, network, modem, port)
        finally:
            modem.close()
            await network.close()


async def until(condition: Callable[[], object], why: Callable[[], str], timeout_s: float = 60) -> None:
    try:
        async with asyncio.timeout(timeout_s):
            while not condition():
                await asyncio.sleep(0.05)
    except TimeoutError:
        pytest.fail(why())


@pytest.mark.timeout(240)
@pytest.mark.parametrize("persona", ["ec25", "sim800"])
async def test_gammu(tmp_path: Path, persona: str) -> None:
    async with rack(tmp_path, persona) as at:
        settings = tmp_path / "gammurc"
        settings.write_text(f"[gammu]\ndevice = {at.port.path}\nconnection = at115200\nmodel = at\n")

        async def gammu(*words: str) -> str:
            return await at.run("gammu", "gammu", "-c", str(settings), *words)

        said = await gammu("identify")
        assert PERSONAS[persona].maker in said
        assert at.modem.imei in said

        await at.network.text(OURS, LONG, sender=THEIRS)
        said = await gammu("geteachsms")
        assert LONG in said.replace("\n", "")
        assert "3 SMS parts in 1 SMS sequences" in said
        await gammu("deleteallsms", "1")
        assert "0 SMS parts" in await gammu("getallsms")

        await gammu("sendsms", "TEXT", THEIRS, "-unicode", "-report", "-text", "您好，张三摔倒了")
        await until(lambda: at.phone.received, lambda: "nothing arrived")
        assert [(text.sender, text.text) for text in at.phone.received] == [(OURS, "您好，张三摔倒了")]
        assert at.network.submitted[-1].report

        assert "36.50" in await gammu("getussd", "*100#")
        await gammu("dialvoice", THEIRS)
        await until(lambda: at.phone.calls, lambda: "it did not ring")
        await gammu("cancelcall")
        assert at.phone.calls[0][0] == OURS
        said = await gammu("networkinfo")
        assert "home network" in said


@pytest.mark.timeout(240)
async def test_gammu_smsd_has_a_conversation(tmp_path: Path) -> None:
    """Texts go both ways for a while, one of them in parts, with reports of delivery."""
    inbox, outbox, sent = (tmp_path / name for name in ("inbox", "outbox", "sent"))
    for folder in (inbox, outbox, sent, tmp_path / "error"):
        folder.mkdir()
    settings = tmp_path / "smsdrc"
    async with rack(tmp_path, "a7670") as at:
        settings.write_text(
            f"[gammu]\ndevice = {at.port.path}\nconnection = at115200\nmodel = at\n"
            f"[smsd]\nservice = files\nlogfile = stderr\ndebuglevel = 1\ncommtimeout = 5\nstatusfrequency = 5\n"
            f"checksecurity = 0\ndeliveryreport = log\ntransmitformat = unicode\n"
            f"inboxpath = {inbox}/\noutboxpath = {outbox}/\n"
            f"sentsmspath = {sent}/\nerrorsmspath = {tmp_path}/error/\n"
        )

        def answer(text: Text) -> str | None:
            return f"收到{text.text[-1]}" if text.text.startswith("问") else None

        at.network.phone(THEIRS, answer=answer)
        async with at.daemon("gammu-smsd", "gammu-smsd", "-c", str(settings)):
            for number in range(4):
                (outbox / f"OUT{THEIRS}.{number}.txtu").write_text(f"问{number}", encoding="utf-8")
            await at.network.text(OURS, LONG, sender=THEIRS)
            await until(lambda: len(at.phone.received) == 4, at.log, 90)

            def read() -> str:
                """What has come in, in the order of the files: parts follow one another."""
                return "".join(file.read_text(encoding="utf-8", errors="replace") for file in sorted(inbox.iterdir()))

            await until(lambda: LONG in read() and all(f"收到{n}" in read() for n in range(4)), at.log, 90)
            await until(lambda: at.modem.stored() == 0, at.log)
            # A modem that starts again in the midst of it is set up again.
            at.modem.reset()
            await at.network.text(OURS, "之后", sender=THEIRS)
            await until(lambda: "之后" in read(), at.log, 90)


@pytest.mark.timeout(240)
async def test_smstools_receives_and_sends(tmp_path: Path) -> None:
    folders = ["outgoing", "incoming", "checked", "sent", "failed", "report", "saved"]
    for name in folders:
        (tmp_path / name).mkdir()
    settings = tmp_path / "smsd.conf"
    async with rack(tmp_path, "ec25") as at:
        settings.write_text(
            f"devices = GSM1\noutgoing = {tmp_path}/outgoing\nchecked = {tmp_path}/checked\n"
            f"incoming = {tmp_path}/incoming\nsent = {tmp_path}/sent\nfailed = {tmp_path}/failed\n"
            f"report = {tmp_path}/report\nsaved = {tmp_path}/saved\nlogfile = {tmp_path}/smsd.log\nloglevel = 5\n"
            f"infofile = {tmp_path}/smsd.working\npidfile = {tmp_path}/smsd.pid\ndelaytime = 1\nerrorsleeptime = 2\n"
            f"[GSM1]\ndevice = {at.port.path}\nincoming = high\nreport = yes\ncs_convert = yes\n"
            f"check_memory_method = 1\nsend_delay = 0\nbaudrate = 115200\nrtscts = no\n"
        )
        await at.network.text(OURS, LONG, sender=THEIRS)
        async with at.daemon("smsd", "smstools", f"-c{settings}", "-t"):
            await until(lambda: any((tmp_path / "incoming").iterdir()), at.log, 90)
            (tmp_path / "outgoing" / "one").write_bytes(
                f"To: {THEIRS.removeprefix('+')}\nAlphabet: UCS2\nReport: yes\n\n".encode() + "您好".encode("utf-16-be")
            )
            await until(lambda: at.phone.received, at.log, 90)
        (file,) = (tmp_path / "incoming").iterdir()
        assert LONG.encode("utf-16-be") in file.read_bytes()
        assert [text.text for text in at.phone.received] == ["您好"]
        assert at.modem.stored() == at.modem.stored("ME") == 0


@pytest.mark.timeout(120)
async def test_python_gsmmodem(tmp_path: Path) -> None:
    """A library with threads of its own: it reads and deletes, sends and hears of the delivery, asks and calls."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # its source is older than what Python warns of today
        from gsmmodem.modem import GsmModem
    read: list[tuple[str, str]] = []
    async with rack(tmp_path, "ec25") as at:
        assert isinstance(at.port, Port)
        at.network.phone(THEIRS, picks_up_after_s=15.0, talks_for_s=15.0)
        library = GsmModem(str(at.port.path), smsReceivedCallbackFunc=lambda sms: read.append((sms.number, sms.text)))
        try:
            await asyncio.to_thread(library.connect)
            assert await asyncio.to_thread(lambda: (library.manufacturer, library.imei)) == ("Quectel", at.modem.imei)
            assert await asyncio.to_thread(library.waitForNetworkCoverage, 20) > 0

            said = await asyncio.to_thread(library.sendUssd, "*100#")
            assert bytes.fromhex(said.message).decode("utf-16-be") == at.network.codes["*100#"]

            await at.network.text(OURS, "张三摔倒了", sender=THEIRS)
            await until(lambda: read and not at.modem.stored("ME"), lambda: f"{read}, not deleted")
            assert read == [(THEIRS, "张三摔倒了")]

            # It waits for the report of the delivery.
            sent = await asyncio.to_thread(library.sendSms, THEIRS, "您好，收到了", waitForDeliveryReport=True)
            assert [(text.sender, text.text) for text in at.phone.received] == [(OURS, "您好，收到了")]
            assert sent.status == sent.DELIVERED

            # It asks for the state of the call, again and again: dialling, ringing, picked up, gone.
            states: list[bool] = []
            call = await asyncio.to_thread(
                library.dial, THEIRS, timeout=10, callStatusUpdateCallbackFunc=lambda call: states.append(call.answered)
            )
            await until(lambda: not call.active, lambda: f"the call goes on: {states}")
            assert states == [True, False]
            assert at.phone.calls == [(OURS, "answered")]
        finally:
            await asyncio.to_thread(library.close)


@pytest.mark.timeout(120)
async def test_modem_manager(tmp_path: Path) -> None:
    """It brings the modem into the network, puts parts together, reads, sends and deletes, asks and calls."""
    name = f"abstract:onekey-{secrets.token_hex(8)}"  # the first word belongs to the name
    async with rack(tmp_path, "ec25", unix_socket(name)) as at, at.bus():

        async def mmcli(*words: str, may_fail: bool = False) -> str:
            return await at.run("mmcli", "modemmanager", *words, may_fail=may_fail)

        async def modem(*words: str) -> str:
            return await mmcli("-m", "any", *words)

        async with at.daemon(
            "ModemManager",
            "modemmanager",
            *("--test-session", "--test-enable", "--test-no-udev", "--test-no-qrtr", "--test-no-suspend-resume"),
            "--no-auto-scan",
        ):
            manager = "org.freedesktop.ModemManager1"
            profile = ("string:onekey", "string:generic", f"array:string:{name}")
            await at.asked(
                lambda: at.call(
                    manager, "/org/freedesktop/ModemManager1", f"{manager}.Test.SetProfile", *profile, may_fail=True
                ),
                "method return",
            )
            await at.asked(lambda: mmcli("-L", may_fail=True), r"/Modem/\d+")

            # What came before anybody looked is listed, its parts put together.
            await at.network.text(OURS, LONG, sender=THEIRS)
            await modem("--enable")
            said = json.loads(await at.asked(lambda: modem("-J"), '"registration-state":"home"'))
            assert said["modem"]["generic"]["equipment-identifier"] == at.modem.imei
            said = await at.asked(lambda: modem("--messaging-list-sms"), "received")
            (first,) = re.findall(r"(/\S+/SMS/\d+) \(received\)", said)
            content = json.loads(await mmcli("-J", "-s", first))["sms"]["content"]
            assert (content["number"], content["text"]) == (THEIRS, LONG)

            # What comes then is told.
            await at.network.text(OURS, "之后", sender=THEIRS)
            said = await at.asked(lambda: modem("--messaging-list-sms"), r"(?s)received.*received")
            (second,) = set(re.findall(r"(/\S+/SMS/\d+) \(received\)", said)) - {first}
            content = json.loads(await mmcli("-J", "-s", second))["sms"]["content"]
            assert (content["number"], content["text"]) == (THEIRS, "之后")
            for message in (first, second):
                await modem(f"--messaging-delete-sms={message}")
            assert at.modem.stored() == at.modem.stored("ME") == 0

            said = await modem(f"--messaging-create-sms=number={THEIRS},text=您好，收到了")
            await mmcli("-s", said.split()[-1], "--send")
            await until(lambda: at.phone.received, at.log)
            assert [(text.sender, text.text) for text in at.phone.received] == [(OURS, "您好，收到了")]

            assert at.network.codes["*100#"] in await modem("--3gpp-ussd-initiate=*100#")

            call = (await modem(f"--voice-create-call=number={THEIRS}")).split()[-1]
            await mmcli("-o", call, "--start")
            await at.asked(lambda: mmcli("-J", "-o", call), '"state":"active"')
            await mmcli("-o", call, "--hangup")
            await at.asked(lambda: mmcli("-J", "-o", call), '"state":"terminated"')
            assert at.phone.calls == [(OURS, "answered")]


@contextmanager
def forgotten_by_ofono(sim: Sim) -> Iterator[None]:
    """Remove what it remembers of a SIM, in the one place that it knows: parts of messages and what is to be sent."""
    try:
        yield
    finally:
        for folder in Path("/var/lib/ofono").glob(f"{sim.imsi}*"):
            shutil.rmtree(folder)


@pytest.mark.timeout(120)
async def test_ofono(tmp_path: Path) -> None:
    """It confirms every message that the modem says to it, sends, asks and calls."""
    sim = Sim(OURS, imsi=f"46000{secrets.randbelow(10**10):010}")
    with forgotten_by_ofono(sim):
        async with rack(tmp_path, "ec25", tcp(), sim) as at, at.bus():
            assert isinstance(at.port, SocketPort)
            host, port = at.port.address
            settings = tmp_path / "phonesim.conf"
            settings.write_text(f"[phonesim]\nDriver=phonesim\nAddress={host}\nPort={port}\n")

            async def ofono(method: str, *arguments: str, may_fail: bool = False) -> str:
                return await at.call("org.ofono", "/phonesim", f"org.ofono.{method}", *arguments, may_fail=may_fail)

            async with at.daemon(
                "ofonod", "ofono", *("-n", "-d", "-p", "phonesim,atmodem"), OFONO_PHONESIM_CONFIG=str(settings)
            ):
                await at.asked(lambda: ofono("Modem.GetProperties", may_fail=True), '"Powered"')
                for name in ("Powered", "Online"):
                    await ofono("Modem.SetProperty", f"string:{name}", "variant:boolean:true")
                said = await at.asked(lambda: ofono("SimManager.GetProperties"), '"SubscriberIdentity"')
                assert sim.imsi in said
                assert sim.iccid in said
                await at.asked(lambda: ofono("NetworkRegistration.GetProperties", may_fail=True), '"registered"')
                await at.asked(lambda: ofono("MessageManager.GetProperties", may_fail=True), "array")

                signals = tmp_path / "signals"
                rule = "type='signal',interface='org.ofono.MessageManager',member='IncomingMessage'"
                async with at.daemon("dbus-monitor", "dbus", "--session", rule, log=signals.name):
                    # Without its name on the bus it hears all.
                    await until(lambda: "NameLost" in signals.read_text(), signals.read_text)
                    await at.network.text(OURS, LONG, sender=THEIRS)
                    await until(lambda: THEIRS in signals.read_text(), at.log)
                assert f'string "{LONG}"' in signals.read_text()
                assert at.modem.stored() == at.modem.stored("ME") == 0

                await ofono("MessageManager.SendMessage", f"string:{THEIRS}", "string:您好，收到了")
                await until(lambda: at.phone.received, at.log)
                assert [(text.sender, text.text) for text in at.phone.received] == [(OURS, "您好，收到了")]

                said = await ofono("SupplementaryServices.Initiate", "string:*100#")
                assert at.network.codes["*100#"] in said

                await ofono("VoiceCallManager.Dial", f"string:{THEIRS}", "string:")
                await at.asked(lambda: ofono("VoiceCallManager.GetCalls"), '"active"')
                await ofono("VoiceCallManager.HangupAll")
                assert at.phone.calls == [(OURS, "answered")]
