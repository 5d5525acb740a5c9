"""Foreign software takes the simulated modem for a modem: it identifies, reads, sends, deletes, asks and dials."""

import asyncio
import os
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass
from pathlib import Path

import pytest

from firmware_sim.modem.device import Modem, Sim
from firmware_sim.modem.network import Network, Phone, Text
from firmware_sim.modem.personas import PERSONAS
from firmware_sim.modem.ports import Port, pseudo_terminal
from tests.e2e.own import needed

OURS, THEIRS = "+8613900000001", "+8613812345678"
LONG = "紧急呼叫：张三在家中摔倒，" * 11  # three messages
SPEED = 5.0


@dataclass
class Rack:
    """A modem in a network, and its device file."""

    directory: Path
    network: Network
    modem: Modem
    port: Port

    @property
    def phone(self) -> Phone:
        return self.network.phone(THEIRS)

    async def run(self, program: str, package: str, *words: str, timeout_s: float = 60) -> str:
        """Run foreign software to its end and return what it says; it has to end well."""
        process = await asyncio.create_subprocess_exec(
            needed(program, package),
            *words,
            stdin=asyncio.subprocess.DEVNULL,
            stdout=asyncio.subprocess.PIPE,
            stderr=asyncio.subprocess.STDOUT,
            cwd=self.directory,
            env=os.environ | {"LC_ALL": "C.UTF-8"},
        )
        async with asyncio.timeout(timeout_s):
            said, _ = await process.communicate()
        assert process.returncode == 0, said.decode(errors="replace")
        return said.decode(errors="replace")

    @asynccontextmanager
    async def daemon(self, program: str, package: str, *words: str) -> AsyncIterator[None]:
        """Run foreign software that does not end by itself."""
        with (self.directory / "daemon.log").open("wb") as log:
            process = await asyncio.create_subprocess_exec(
                needed(program, package),
                *words,
                stdin=asyncio.subprocess.DEVNULL,
                stdout=log,
                stderr=log,
                cwd=self.directory,
            )
        try:
            yield
        finally:
            if process.returncode is None:
                process.terminate()
            async with asyncio.timeout(30):
                await process.wait()

    def log(self) -> str:
        """What the daemon said."""
        return (self.directory / "daemon.log").read_text(errors="replace")[-3000:]


@asynccontextmanager
async def rack(directory: Path, persona: str = "sim800") -> AsyncIterator[Rack]:
    network = Network(speed=SPEED)
    network.phone(THEIRS)
    async with pseudo_terminal(directory / "modem") as port:
        modem = Modem(network, Sim(OURS), port.write, persona=PERSONAS[persona])
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
