"""One modem, for as long as the gateway runs: found, brought up, watched, mended, and used.

It is alive while its store of messages can be read; that it answers AT says little. Whatever arrives is given to the
caller first and forgotten by the modem only after the caller has it safe (I1). What goes wrong is mended by a ladder of
measures, each stronger than the one before, and none on two modems at the same time.
"""

import asyncio
import contextlib
import logging
import time
from collections import deque
from collections.abc import Awaitable, Callable, Sequence
from datetime import UTC, datetime
from pathlib import Path
from typing import Protocol

from gateway.config import ModemSettings
from gateway.domain.modems import CallState, ModemState
from gateway.links.modem_port import ModemGone, ModemPort, ModemSilent, PortRefused
from gateway.modems.bring_up import Identity, Refused, Setup, Stopped, bring_up
from gateway.modems.calls import Call, Called
from gateway.modems.mailbox import Arrived, Mailbox
from gateway.modems.pace import Pace
from protocols.gsm import replies
from protocols.gsm.at import Notice
from protocols.gsm.causes import Action, Cause, cause_of

__all__ = ["Hub", "Modem", "NotSent"]

_log = logging.getLogger(__name__)

_BOOTED = ("RDY", "*ATREADY", "NORMAL POWER DOWN", "POWERED DOWN", "+CPIN: NOT")
_READY_AGAIN = ("SMS READY", "SMS DONE", "+QIND: SMS DONE", "CALL READY", "PB DONE", "+CPIN: READY")
_RESETS = ("AT+CFUN=1,1", "AT+CRESET", "AT^RESET")
_MOST_RINGS_WITHOUT_NUMBER = 2
_SAME_CALL_S = 10.0
_PATIENCE = 3
_PORT_REFUSED_S = 5.0
_DUPLICATE = 0xC5
"""Of a service centre that has a message already."""


class NotSent(Exception):
    """A message was not taken. ``action`` says what to do with it; ``unsure``: it may have been taken all the same.

    ``beside``: it was tried during a call, and that may be why.
    """

    def __init__(self, text: str, action: Action, *, unsure: bool = False, beside: bool = False) -> None:
        super().__init__(text)
        self.action = action
        self.unsure = unsure
        self.beside = beside


class Hub(Protocol):
    """What a modem reports to."""

    async def keep(self, modem: str, arrived: Sequence[Arrived]) -> None:
        """Have these safe before it returns; what raises stays with the modem."""
        ...

    async def forgotten(self, modem: str, arrived: Sequence[Arrived]) -> None:
        """Know that the modem has these no more."""
        ...

    async def rang(self, modem: str, number: str | None) -> None:
        """Have it safe that this number called."""
        ...

    def named(self, modem: "Modem", identity: Identity) -> Identity:
        """Return who the modem is, by a name that no other one has."""
        ...

    def changed(self, modem: "Modem") -> None:
        """Look at the modem: its state has changed."""
        ...

    async def pin_refused(self, sim: str, pin: str) -> bool:
        """Was this PIN tried before with this SIM, and not right?"""
        ...

    async def remember_pin(self, sim: str, pin: str, *, refused: bool) -> None:
        """Remember a PIN that is being tried, or that it was right after all."""
        ...


class _Rebooted(Exception):
    """It has started again by itself: what was set is gone."""


class _Unsteady(Exception):
    """It starts again by itself, again and again."""


class _NoNetwork(Exception):
    """It has no network for too long."""


class Modem:
    """A modem at one port."""

    def __init__(
        self,
        path: Path,
        settings: ModemSettings,
        hub: Hub,
        *,
        pace: Pace | None = None,
        turn: asyncio.Lock | None = None,
    ) -> None:
        """`turn` is shared by modems that must not be started anew at the same time."""
        self.path = path
        self.settings = settings
        self.pace = pace or Pace()
        self.identity = Identity(str(path), "", "", "")
        self.state = ModemState.GONE
        self.problem: str | None = None
        self.since = datetime.now(UTC)
        self.operator: str | None = None
        self.signal_dbm: int | None = None
        self.heard_at: datetime | None = None
        self.busy_with: str | None = None
        self.beside: str | None = None
        """What it sends while a call goes on."""
        self.paused_until_s = 0.0
        self.failures = 0
        self.barred: str | None = None
        """Why the network takes no message of its SIM, until it takes one."""
        self.rung = 0
        self._hub = hub
        self._turn = turn or asyncio.Lock()
        self._port: ModemPort | None = None
        self._setup: Setup | None = None
        self._registered: dict[str, bool] = {}
        self._denied = False
        self._wake = asyncio.Event()
        self._mailbox = Mailbox(
            lambda arrived: hub.keep(self.id, arrived),
            lambda arrived: hub.forgotten(self.id, arrived),
            name=lambda: self.id,
            wake=self._wake.set,
            pace=self.pace,
        )
        self._rings: deque[str | None] = deque()
        self._ringing: dict[str | None, float] = {}
        self._nameless = 0
        self._starts: deque[float] = deque()
        self._failed_s = 0.0
        self._booted = False
        self._again = False
        self._wrong: Exception | None = None
        self._call: Call | None = None
        self._refused_beside = 0
        self._refused_s = 0.0
        self._ussd: asyncio.Future[replies.Ussd] | None = None

    # How it is

    @property
    def id(self) -> str:
        """Its IMEI, or its port while that is not known."""
        return self.identity.id

    @property
    def ready(self) -> bool:
        """Can it send now?"""
        idle = self.busy_with is None and self.beside is None
        return self.state is ModemState.READY and idle and time.monotonic() >= self.paused_until_s

    @property
    def ready_beside(self) -> bool:
        """Can it send while a call of ours goes on? Networks allow that (TS 23.040, 3.1); not all modules do."""
        call = self._call
        if call is None or call.alone or call.left_s < self.pace.beside_s / 3:
            return False
        if self._refused_beside >= _PATIENCE and time.monotonic() - self._refused_s < self.pace.healthy_s:
            return False
        return self.state is ModemState.READY and self.beside is None and self.barred is None

    @property
    def connected(self) -> bool:
        """Is its port open?"""
        return self._port is not None

    @property
    def calling(self) -> bool:
        """Is a call of ours under way?"""
        return self._call is not None

    def _show(self, state: ModemState, problem: str | None = None) -> None:
        if (state, problem) == (self.state, self.problem):
            return
        if state is not self.state:
            self.since = datetime.now(UTC)
            level = logging.WARNING if state in (ModemState.STOPPED, ModemState.DEAD, ModemState.GONE) else logging.INFO
            _log.log(level, "modem %s: %s%s", self.id, state, f", {problem}" if problem else "")
        self.state, self.problem = state, problem
        self._hub.changed(self)

    # Its life

    async def run(self) -> None:
        """Keep it in service until cancelled."""
        while True:
            try:
                await self._find()
                await self._bring_up()
                await self._serve()
            except PortRefused as exc:
                self._show(ModemState.STOPPED, str(exc))
                await self._pause(min(_PORT_REFUSED_S, self.pace.dead_s))
            except ModemGone as exc:
                self._show(ModemState.GONE, str(exc))
                await asyncio.sleep(self.pace.find_s)
            except Stopped as exc:
                self._show(ModemState.STOPPED, str(exc))
                await self._pause(self.pace.dead_s)
            except _Rebooted:
                await self._started_again()
            except (ModemSilent, Refused, _NoNetwork) as exc:
                if self._booted:  # what was under way when it started again by itself
                    await self._started_again()
                    continue
                with contextlib.suppress(ModemGone, ModemSilent):
                    await self._climb(exc)
            except Exception as exc:  # noqa: BLE001 # whatever a modem makes us stumble over, the others go on (D12)
                _log.exception("modem %s: a fault of ours", self.id)
                with contextlib.suppress(ModemGone, ModemSilent):
                    await self._climb(exc)
            finally:
                self._close()

    async def _started_again(self) -> None:
        """Set it up anew; if that happens too often, something is wrong with it: its power, mostly."""
        now_s = time.monotonic()
        self._starts.append(now_s)
        while now_s - self._starts[0] > self.pace.healthy_s:
            self._starts.popleft()
        self._show(ModemState.STARTING, "it has started again by itself")
        if len(self._starts) > _PATIENCE:
            with contextlib.suppress(ModemGone, ModemSilent):
                await self._climb(_Unsteady(f"it has started again by itself {len(self._starts)} times"))

    async def _pause(self, seconds: float) -> None:
        """Wait with the port closed, so that an administrator can open it."""
        self._close()
        await asyncio.sleep(seconds)

    def _close(self) -> None:
        port, self._port = self._port, None
        if port is not None:
            port.close()
        self._registered.clear()
        if self._call is not None:
            self._call.end(CallState.FAILED, "the modem is gone")

    async def _find(self) -> None:
        """Wait until the port is there, and open it."""
        while not self.path.exists():
            self._show(ModemState.GONE, "nothing is plugged in there")
            await asyncio.sleep(self.pace.find_s)
        self._wake.clear()
        self._booted = self._again = self._mailbox.arrived = False
        self._wrong = None
        self._ringing.clear()
        port = ModemPort(self.path, notice=self._heard)
        port.open()
        self._port = port
        if self.state in (ModemState.GONE, ModemState.STOPPED):
            self._show(ModemState.STARTING)

    async def _bring_up(self) -> None:
        assert self._port is not None
        self._setup = await bring_up(
            self._port,
            self.settings,
            pace=self.pace,
            pin_refused=self._hub.pin_refused,
            remember_pin=self._hub.remember_pin,
        )
        self.identity = self._hub.named(self, self._setup.identity)
        self._booted = False  # what it said of its start before it was set up is over

    async def _serve(self) -> None:
        """Be there for what arrives and what is sent, until something is wrong."""
        began_s = time.monotonic()
        lost_since_s: float | None = None
        look_s = sweep_s = 0.0
        while True:
            self._wake.clear()
            now_s = time.monotonic()
            if self._port is None or self._port.gone.is_set():
                raise ModemGone(f"{self.path} is gone")
            if self._wrong is not None:
                raise self._wrong
            if self._booted:
                raise _Rebooted
            if self._again:
                self._again = False
                await self._set_again()
                sweep_s = 0.0
            await self._take_rings()
            await self._mailbox.take_direct()
            if self._mailbox.arrived or now_s >= sweep_s:
                self._mailbox.arrived = False
                assert self._setup is not None
                await self._mailbox.sweep(self._port, self._setup.stores)
                self.heard_at = datetime.now(UTC)
                sweep_s = now_s + self.pace.sweep_s
            if now_s >= look_s:
                if self._call is None:
                    await self._look()
                look_s = now_s + self.pace.look_s
            if any(self._registered.values()):
                lost_since_s = None
                self._show(ModemState.READY)
            else:
                lost_since_s = now_s if lost_since_s is None else lost_since_s
                self._show(ModemState.SEARCHING, "the network refuses its SIM" if self._denied else "no network")
                look_s = min(look_s, now_s + self.pace.look_s / 10)
                if now_s - lost_since_s > self.pace.register_s:
                    raise _NoNetwork
            if self.rung and now_s - began_s > self.pace.healthy_s:
                self.rung = 0
            if self.failures and now_s - self._failed_s > self.pace.healthy_s:
                self.failures = 0  # it has its turn again
            wait_s = min(look_s, sweep_s, now_s + self.pace.look_s) - time.monotonic()
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(max(0.01, wait_s)):
                    await self._wake.wait()

    async def _set_again(self) -> None:
        """Set again what a modem forgets that is ready only a while after it said so."""
        assert self._port is not None
        assert self._setup is not None
        for command in self._setup.again:
            await self._port.ask(command, timeout_s=self.pace.command_s)

    # Mending

    async def _climb(self, exc: Exception) -> None:
        """Take the next measure, and leave the rest to bringing it up again."""
        # That it is set up anew brings no network: its radio has to look for one.
        self.rung = max(self.rung + 1, 2 if isinstance(exc, _NoNetwork) else 1)
        why = "it has no network for too long" if isinstance(exc, _NoNetwork) else str(exc) or type(exc).__name__
        _log.warning("modem %s: %s; measure %d", self.id, why, self.rung)
        if self.rung > 4 or (self.rung == 4 and not self.settings.power_cycle):
            self._show(ModemState.DEAD, why)
            await self._pause(self.pace.dead_s)
            if self.rung % 5 == 0:  # now and then, for whatever it is may have gone by itself
                await self._restart()
            return
        self._show(ModemState.RECOVERING, why)
        if self.rung == 1:
            return  # it is opened, woken and set up anew
        async with self._turn:
            match self.rung:
                case 2:
                    await self._radio()
                case 3:
                    await self._restart()
                case _:
                    await self._power_cycle()

    async def _radio(self) -> None:
        """Take it off the network and back: some receive nothing after a day until then."""
        if self._port is None:
            return
        with contextlib.suppress(ModemSilent):
            await self._port.synchronise()
            await self._port.ask("AT+CFUN=4", timeout_s=15)
            await asyncio.sleep(min(2.0, self.pace.look_s / 5))
            await self._port.ask("AT+CFUN=1", timeout_s=15)

    async def _restart(self) -> None:
        """Let it start anew: its port is closed meanwhile, for it may come back as another device."""
        if self._port is None:
            with contextlib.suppress(ModemGone):
                port = ModemPort(self.path)
                port.open()
                self._port = port
        if self._port is not None:
            for command in _RESETS:
                try:
                    if (await self._port.ask(command, timeout_s=3.0)).ok:
                        break
                except ModemSilent:
                    continue
                except ModemGone:
                    break
        await self._pause(self.pace.boot_s)

    async def _power_cycle(self) -> None:
        """Take its power away by the command of the settings."""
        self._close()
        command = [part.replace("{path}", str(self.path)) for part in self.settings.power_cycle]
        try:
            process = await asyncio.create_subprocess_exec(
                *command, stdin=asyncio.subprocess.DEVNULL, stdout=asyncio.subprocess.DEVNULL
            )
            async with asyncio.timeout(60):
                code = await process.wait()
            if code:
                _log.error("modem %s: the command for its power ended with %d", self.id, code)
        except (OSError, TimeoutError) as exc:
            _log.error("modem %s: the command for its power failed: %s", self.id, type(exc).__name__)
        await self._pause(self.pace.boot_s)

    # What it says unasked

    def _heard(self, notice: Notice) -> None:
        line = notice.line.upper()
        if self._mailbox.heard(notice):
            pass
        elif line.startswith("+CLIP:"):  # calls of ours bring none
            self._nameless = 0
            self._rang(replies.caller(notice.line))
        elif line.startswith(("RING", "+CRING")) and self._call is None:
            self._nameless += 1
            if self._nameless > _MOST_RINGS_WITHOUT_NUMBER:
                self._nameless = 0
                self._rang(None)
        elif line.startswith("+CUSD:") and (said := replies.ussd(notice.line)) is not None:
            if self._ussd is not None and not self._ussd.done():
                self._ussd.set_result(said)
        elif self._call is not None and self._call.heard(line):
            pass
        elif (known := replies.registration(notice.line, answer=False)) is not None:
            self._note(known)
        elif line.startswith(_BOOTED):
            self._booted = True
        elif line.startswith(_READY_AGAIN):
            self._again = True
        else:
            return
        self._wake.set()

    def _note(self, known: replies.Registration) -> None:
        if known.domain in ("CREG", "CEREG"):
            self._registered[known.domain] = known.registered
            self._denied = known.denied

    # Who calls

    def _rang(self, number: str | None) -> None:
        """Note that somebody calls. It is said every few seconds, and is one call until it was hung up on."""
        now_s = time.monotonic()
        if now_s - self._ringing.get(number, -_SAME_CALL_S) >= _SAME_CALL_S:
            self._rings.append(number)
        self._ringing[number] = now_s

    async def _take_rings(self) -> None:
        """Note who calls, and hang up then: a call that waits keeps messages from arriving.

        That it ends tells a terminal that it was heard. While it cannot be noted it rings on, and calls again (I1).
        """
        if not self._rings:
            return
        assert self._port is not None
        numbers = set(self._rings)
        self._rings.clear()
        kept = [await self._keep_ring(number) for number in numbers]
        if all(kept) and self._call is None:  # else it ends with our own call
            await self._hang_up()

    async def _keep_ring(self, number: str | None) -> bool:
        try:
            await self._hub.rang(self.id, number)
        except Exception as exc:  # noqa: BLE001 # it is tried until it is kept: nobody else knows of this call
            _log.error("modem %s: a call cannot be kept yet: %s", self.id, type(exc).__name__)
            asyncio.get_running_loop().call_later(0.5, self._ring_again, number)
            return False
        return True

    def _ring_again(self, number: str | None) -> None:
        self._rings.append(number)
        self._wake.set()

    async def _look(self) -> None:
        """Ask how strong the signal is, and whether there is a network."""
        assert self._port is not None
        answer = await self._port.ask("AT+CSQ", prefix="+CSQ:", timeout_s=self.pace.command_s)
        self.signal_dbm = replies.signal_dbm(answer.lines[0]) if answer.ok and answer.lines else None
        for name in ("CREG", "CEREG"):
            answer = await self._port.ask(f"AT+{name}?", prefix=f"+{name}:", timeout_s=self.pace.command_s)
            known = replies.registration(answer.lines[0], answer=True) if answer.ok and answer.lines else None
            if known is not None:
                self._note(known)
            else:
                self._registered.pop(name, None)
        answer = await self._port.ask("AT+COPS?", prefix="+COPS:", timeout_s=self.pace.command_s)
        self.operator = replies.operator(answer.lines[0]) if answer.ok and answer.lines else None
        self._hub.changed(self)

    # What is sent

    async def send(self, pdu: str, length: int) -> int:
        """Send one message, and return the reference under which the network reports on it.

        Beside a call it may be refused because of that; then it is no failure of the modem.

        Raises:
            NotSent: It was not taken, or nobody knows.
        """
        port, call = self._port, self._call
        if port is None:
            raise NotSent("the modem is gone", Action.ELSEWHERE)
        timeout_s = self.pace.send_s
        if call is not None:
            timeout_s = min(self.pace.beside_s, max(call.left_s, self.pace.beside_s / 3))
            call.watched = False
        try:
            answer = await port.ask(f"AT+CMGS={length}", prefix="+CMGS:", body=pdu, timeout_s=timeout_s)
        except ModemGone:
            self._wake.set()
            raise NotSent("the modem was pulled out", Action.ELSEWHERE, unsure=True) from None
        except ModemSilent as exc:
            if call is None:
                self._fail(exc)
            else:  # the call goes on; whether the modem answers at all is seen there
                self._refused(call)
                await self._quieten(port)
            raise NotSent(
                "the modem did not say whether it was sent", Action.ELSEWHERE, unsure=True, beside=call is not None
            ) from None
        if answer.ok and not answer.lines:
            raise NotSent("the modem did not say under which reference it was sent", Action.ELSEWHERE, unsure=True)
        if not answer.ok:
            cause = cause_of(answer.final)
            if call is not None and cause.action not in (Action.RECIPIENT, Action.DONE, Action.OTHER_SIM):
                self._refused(call)
                raise NotSent(f"not during a call: {cause.text}", Action.WAIT, beside=True)
            if cause.action is Action.DONE and answer.final.code != _DUPLICATE:
                cause = Cause(cause.text, Action.ELSEWHERE)
            if cause.action is Action.CLEAR_STORE:
                self._mailbox.look_again()
            if cause.action is Action.OTHER_SIM:
                self.barred = cause.text
                self._hub.changed(self)
            if cause.action not in (Action.RECIPIENT, Action.OURS, Action.DONE):
                self._failed_once(Refused("AT+CMGS", cause))
            raise NotSent(cause.text, cause.action)
        self.failures, self.barred = 0, None
        if call is not None:
            self._refused_beside = 0
        reference = replies.number_of(replies.fields(answer.lines[0])[0])
        return -1 if reference is None else reference % 256

    def _refused(self, call: Call) -> None:
        """Send nothing more beside this call, and after three such calls beside none for a while."""
        call.alone = True
        self._refused_beside += 1
        self._refused_s = time.monotonic()

    async def _quieten(self, port: ModemPort) -> None:
        """Have what comes late not taken for the answer to something else."""
        try:
            await port.synchronise()
        except ModemSilent as exc:
            self._fail(exc)
        except ModemGone:
            self._wake.set()

    def _failed_once(self, exc: Exception) -> None:
        """Count a failure; several in a row, and it rests, is looked at, and others send meanwhile."""
        self.failures += 1
        self._failed_s = time.monotonic()
        if self.failures >= _PATIENCE:
            self.failures = 0
            self.paused_until_s = time.monotonic() + self.pace.pause_s
            self._fail(exc)

    def suspect(self, why: str, *, measures: int = 1) -> None:
        """Have it taken off the network and back, or started anew, for a reason that it does not know itself.

        `measures` counts how often that was needed. It is not given up: it may still send.
        """
        self.rung = max(self.rung, min(measures, 3 if self.settings.power_cycle else 2))
        self._fail(Refused("self-test", Cause(why, Action.WAIT)))

    def _fail(self, exc: Exception) -> None:
        self._wrong = exc
        self._wake.set()

    async def ask_network(self, code: str) -> replies.Ussd:
        """Ask the network by a code such as ``*100#``.

        Raises:
            NotSent: It cannot be asked.
        """
        port = self._port
        if port is None:
            raise NotSent("the modem is gone", Action.ELSEWHERE)
        self._ussd = asyncio.get_running_loop().create_future()
        try:
            answer = await port.ask(f'AT+CUSD=1,"{code}",15', timeout_s=self.pace.list_s)
            if not answer.ok:
                raise NotSent(cause_of(answer.final).text, Action.ELSEWHERE)
            async with asyncio.timeout(self.pace.send_s):
                return await self._ussd
        except ModemSilent as exc:
            self._fail(exc)
            raise NotSent("the modem does not answer", Action.ELSEWHERE) from None
        except TimeoutError:
            raise NotSent("the network does not answer the code", Action.ELSEWHERE) from None
        except ModemGone:
            raise NotSent("the modem was pulled out", Action.ELSEWHERE) from None
        finally:
            self._ussd = None

    # Calls

    async def call(
        self, number: str, *, progress: Callable[[CallState], Awaitable[None]], ring_s: float | None = None
    ) -> Called:
        """Call somebody, and return how it ended. `progress` hears how far it is.

        A modem that is lost while somebody speaks or presses a key takes nothing of that back.

        Raises:
            NotSent: The call could not be begun, or nobody knows how it ended.
        """
        port = self._port
        if port is None:
            raise NotSent("the modem is gone", Action.ELSEWHERE)
        self._call = call = Call()
        try:
            answer = await port.ask(f"ATD{number};", calls=True, timeout_s=max(20.0, self.pace.command_s))
            if not answer.ok:
                cause = cause_of(answer.final)
                if answer.final.code is not None:
                    raise NotSent(cause.text, cause.action)
                call.heard(answer.final.outcome.name.replace("_", " "))
            await progress(CallState.DIALLING)
            return await call.follow(port, self.pace, progress, ring_s=ring_s or self.pace.ring_s)
        except ModemGone:
            if (so_far := call.so_far("the modem was pulled out")) is not None:
                return so_far
            raise NotSent("the modem was pulled out", Action.ELSEWHERE) from None
        except ModemSilent as exc:
            self._fail(exc)
            if (so_far := call.so_far("the modem does not answer any more")) is not None:
                return so_far
            raise NotSent("the modem does not answer", Action.ELSEWHERE) from None
        finally:
            self._call = None
            try:
                await self._hang_up()
            except ModemGone:
                self._wake.set()
            except ModemSilent as exc:
                self._fail(exc)

    async def _hang_up(self) -> None:
        if self._port is None:
            return
        answer = await self._port.ask("AT+CHUP", timeout_s=self.pace.command_s)
        if not answer.ok:
            await self._port.ask("ATH", timeout_s=self.pace.command_s)
        self._ringing.clear()  # whoever calls now calls again
