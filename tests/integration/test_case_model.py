"""A small model of cases beside the real thing: presses, people, channels and clocks in any order, on PostgreSQL.

The model says in a few lines of Python what has to come of every step. After each step the tables must say the
same, and what must be true of any tables is asked of them directly.
"""

import asyncio
import hashlib
from collections.abc import Coroutine, Iterable, Iterator, Sequence
from contextlib import AsyncExitStack
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime, timedelta
from random import Random
from typing import Any, ClassVar, TypeVar
from uuid import UUID

import psycopg
import pytest
from hypothesis import HealthCheck, Phase, settings
from hypothesis import strategies as st
from hypothesis.stateful import (
    RuleBasedStateMachine,
    initialize,
    invariant,
    precondition,
    rule,
    run_state_machine_as_test,
)
from psycopg.rows import namedtuple_row

from gateway.domain import journal, keys
from gateway.domain.case import StateConflict
from gateway.domain.kinds import UNREADABLE
from gateway.domain.outbox import DueNotice, GiveUp, PartyAnswer, Sent, Tried, TryAgain
from gateway.domain.retry import LAST_TRY, TRIES_BEFORE_HELP
from gateway.keyring import Keyring
from gateway.service.apply_site import apply_site
from gateway.service.case_commands import acknowledge_case, answer_leg, close_case, mark_safe
from gateway.service.due import lease_due, still_due
from gateway.service.quarantine import Misread, keep_alarm
from gateway.service.raise_alarm import Press, Raised, raise_alarm
from gateway.service.record import record_attempts
from gateway.service.telemetry import Told, store_reports
from gateway.service.test_windows import open_window
from gateway.site.model import Site
from gateway.store import outbox
from gateway.store.directory import Directory
from gateway.store.pool import Pool, connect, open_pool
from schemas.reports import Fix, FixReport

T = TypeVar("T")

# The site, once for the gateway and once for the model.

STREAM = {"kind": "stream"}
WEBHOOK = {"kind": "webhook", "url": "http://127.0.0.1:1/", "secret": "whsec_" + "A" * 40}
SITE = Site.model_validate(
    {
        "site": "model",
        "district": "320102",
        "timezone": "Asia/Shanghai",
        "locale": "zh-CN",
        "fallback": ["duty", "chief"],
        "parties": [
            {"id": "son", "role": "guardian", "name": "x", "channels": [WEBHOOK, STREAM]},
            {"id": "daughter", "role": "guardian", "name": "x", "channels": [STREAM]},
            {"id": "hotline", "role": "hotline", "name": "x", "channels": [STREAM]},
            {"id": "ambulance", "role": "ambulance_120", "name": "x", "channels": [STREAM]},
            {"id": "mute", "role": "supplier", "name": "x"},
            {"id": "duty", "role": "care_station", "name": "x", "channels": [STREAM]},
            {"id": "chief", "role": "district", "name": "x", "channels": [STREAM]},
        ],
        "households": [
            {
                "id": "home",
                "address": {"district": "x", "street": "x"},
                "persons": [{"id": "person", "name": "x"}],
                "parties": ["son", "daughter", "hotline", "ambulance", "mute", "chief"],
                "terminals": ["box", "pendant"],
            }
        ],
        "terminals": [{"id": name, "model": "x"} for name in ("box", "pendant", "drawer")],
        "plans": [
            {"id": "emergency", "kinds": ["sos", "fall"], "roles": ["guardian", "hotline", "ambulance_120"]},
            {"id": "fire", "kinds": ["smoke"], "roles": ["guardian", "fire_119"]},
            {"id": "duress", "kinds": ["duress"], "roles": ["hotline", "district"]},
            {"id": "service", "kinds": ["service"], "roles": ["hotline"]},
            {"id": "rest", "kinds": ["*"], "roles": ["hotline", "supplier"]},
        ],
    }
)

HOME = ("box", "pendant")
TERMINALS = (*HOME, "drawer", "stranger")  # in a household, two of them; known and in none; never heard of
MEMBERS = {
    "guardian": ("son", "daughter"),
    "hotline": ("hotline",),
    "ambulance_120": ("ambulance",),
    "fire_119": (),
    "district": ("chief",),
    "supplier": ("mute",),
}
ROLES = {
    "sos": ("guardian", "hotline", "ambulance_120"),
    "fall": ("guardian", "hotline", "ambulance_120"),
    "smoke": ("guardian", "fire_119"),
    "duress": ("hotline", "district"),
    "service": ("hotline",),
}
OTHERWISE = ("hotline", "supplier")
FALLBACK = (("care_station", "duty"), ("district", "chief"))
PUBLIC = ("ambulance_120", "fire_119", "police_110")
CHANNELS = {"son": 2}
KINDS = ("sos", "fall", "smoke", "duress", "service", "low_battery", "tamper", "something_new")
ANSWERS = {"accepted": "answered", "coming": "answered", "arrived": "answered", "cannot": "refused"}

Target = tuple[str, str | None]


def class_of(kinds: Iterable[str], *, test: bool) -> str:
    left = set(kinds)
    if test:
        return "test"
    if left - {"service", "low_battery", "tamper"}:
        return "emergency"
    return "service" if "service" in left else "technical"


def planned(kinds: Iterable[str], *, test: bool, at_home: bool) -> dict[Target, str]:
    """Say who has to be told, and in which state each leg begins."""
    legs: dict[Target, str] = {}
    for kind in kinds if at_home else ():
        for role in () if kind == UNREADABLE else ROLES.get(kind, OTHERWISE):
            for name in MEMBERS[role] or (None,):
                spared = test and role in PUBLIC
                legs[role, name] = "skipped" if spared else "failed" if name in (None, "mute") else "pending"
    if "failed" in legs.values() or "pending" not in legs.values():
        for target in FALLBACK:
            legs.setdefault(target, "pending")
    return legs


@dataclass
class Message:
    """A notice of the model."""

    reason: str
    state: str = "due"
    taken: bool = False
    tried: int = 0


@dataclass
class Leg:
    """A leg of the model."""

    state: str
    messages: dict[int, Message] = field(default_factory=dict)
    heard: bool = False
    said: dict[str | None, tuple[str, int | None]] = field(default_factory=dict)

    def queue(self, reason: str, *, taken: bool) -> None:
        self.messages[len(self.messages) + 1] = Message(reason, taken=taken)

    def cancel(self) -> None:
        for message in self.messages.values():
            if message.state == "due":
                message.state, message.taken = "cancelled", False


@dataclass
class Case:
    """A case of the model."""

    id: UUID
    subject: str
    of_class: str
    kinds: list[str]
    previous: UUID | None
    at_home: bool
    state: str = "open"
    presses: int = 1
    safe: bool = False
    owner: str | None = None
    outcome: str | None = None
    legs: dict[Target, Leg] = field(default_factory=dict)

    def plan(self, *, taken: bool) -> None:
        for target, state in planned(self.kinds, test=self.of_class == "test", at_home=self.at_home).items():
            if target not in self.legs:
                self.legs[target] = Leg(state)
                if state == "pending":
                    self.legs[target].queue("fallback" if self._calls_fallback(target) else "alarm", taken=taken)

    def _calls_fallback(self, target: Target) -> bool:
        named = {
            role for kind in self.kinds if self.at_home for role in ROLES.get(kind, OTHERWISE) if kind != UNREADABLE
        }
        return target[0] not in named

    def press_again(self, kinds: Iterable[str], *, taken: bool) -> None:
        told = [
            (role, leg)
            for (role, name), leg in self.legs.items()
            if name not in (None, "mute") and leg.state != "skipped"
        ]
        silent = set(kinds) == {"duress"}  # then whoever is not in its plan must not even hear of another press
        for _, leg in [one for one in told if silent and one[0] in ROLES["duress"]] or told:
            leg.state = "pending"
            leg.queue("pressed_again", taken=taken)

    def call_fallback(self, because: Target, *, taken: bool) -> None:
        reached = {name for _, name in self.legs}
        for target in FALLBACK:
            if target[1] not in reached and target[1] != because[1]:
                self.legs[target] = Leg("pending")
                self.legs[target].queue("fallback", taken=taken)

    def answer(self, leg: Leg, answer: PartyAnswer, *, overtaken: bool = False) -> None:
        after = leg.state
        if not overtaken and self.state != "closed" and leg.state not in ("withdrawn", "skipped"):
            after = ANSWERS[answer.answer]
        if after == leg.state and leg.said.get(answer.by) == (answer.answer, answer.minutes):
            return
        leg.said[answer.by] = (answer.answer, answer.minutes)
        if leg.state == "pending" and after == ANSWERS[answer.answer]:
            leg.cancel()
        leg.state = after

    def settle(self, own: str) -> None:
        """The role's own fact is there: nobody of it is called any more, everybody else is."""
        for (role, name), leg in self.legs.items():
            if role == own and name is not None and leg.state in ("pending", "delivered"):
                leg.cancel()
                leg.state = "answered"

    def close(self, outcome: str, *, taken: bool) -> None:
        self.state, self.safe, self.outcome = "closed", True, outcome
        for leg in self.legs.values():
            told = leg.heard or any(message.tried or message.taken for message in leg.messages.values())
            leg.cancel()
            if leg.state in ("pending", "delivered"):
                leg.state = "withdrawn"
            if told:
                leg.queue("closed", taken=taken)


@dataclass
class Sighting:
    """The newest alarm under a key."""

    case: Case
    press: Press
    test: bool
    tick: int
    occurrence: int
    repeats: int = 0


class Gateway:
    """The real thing, with a loop of its own to run it in."""

    def __init__(self, database: str) -> None:
        self.runner = asyncio.Runner()
        self.stack = AsyncExitStack()
        self.admin = psycopg.connect(database, autocommit=True, row_factory=namedtuple_row)
        self.keyring = Keyring(bytes(range(32)))
        self.directory = Directory(self.keyring)
        self.pool: Pool = self.run(self.stack.enter_async_context(open_pool(database, name="model", size=4)))
        session = self.run(self.stack.enter_async_context(self.run(connect(database, name="model"))))
        self.worker = self.run(outbox.register(session, "model"))
        self.run(apply_site(self.pool, self.keyring, SITE, prune=False))

    def run(self, work: Coroutine[Any, Any, T]) -> T:
        return self.runner.run(work)

    def close(self) -> None:
        self.run(self.stack.aclose())
        self.admin.close()
        self.runner.close()

    def rows(self, query: str) -> list[Any]:
        return self.admin.execute(query.encode()).fetchall()

    def forget(self) -> None:
        """Begin anew: the directory stays, what happened goes."""
        with self.admin.transaction():
            for table in (
                *("quarantine", "answer", "attempt", "notice", "journal", "event", "alarm", "leg"),
                *("inspection_item", "judgement", "work_order_step", "work_order"),
                *("fact", "progress", "command", "step", "run", "cases"),
            ):
                self.admin.execute(f"DELETE FROM {table}".encode())
            self.admin.execute("DELETE FROM test_window")
            self.admin.execute("UPDATE terminal SET epoch = 1")

    def apply_with_duress(self, **changes: object) -> None:
        """Apply the site with another plan for duress."""
        document = SITE.model_dump(mode="json", exclude_none=True)
        document["plans"] = [plan | changes if plan["id"] == "duress" else plan for plan in document["plans"]]
        self.run(apply_site(self.pool, self.keyring, Site.model_validate(document), prune=False))

    def raise_alarm(self, press: Press, *, worker: int | None = None) -> Raised:
        return self.run(raise_alarm(self.pool, self.directory, press, worker=worker))

    def record(
        self, notice: DueNotice, outcome: Sent | TryAgain | GiveUp, *, worker: int | None = None
    ) -> list[DueNotice]:
        now = datetime.now(UTC)
        tried = Tried(notice=notice, started_at=now, answered_at=now, outcome=outcome)
        recorded = self.run(record_attempts(self.pool, self.directory, [tried], worker=worker, rng=Random(1)))
        assert recorded.later == []
        return recorded.notices


@pytest.fixture
def gateway(database: str) -> Iterator[Gateway]:
    opened = Gateway(database)
    yield opened
    opened.close()


def pressed(terminal: str, *kinds: str, **known: Any) -> Press:
    """Make a press; the same words are the same bytes."""
    payload = repr((terminal, kinds, sorted(known.items()))).encode()
    defaults: dict[str, Any] = {"transport": "mqtt", "received_at": datetime.now(UTC)}
    return Press(
        terminal=terminal,
        kinds=kinds,
        payload=payload,
        digest=hashlib.sha256(payload).digest(),
        **defaults | known,
    )


# Uniform choices would spend the run on quiet households: what is drawn most is what can collide.
terminals = st.sampled_from(HOME) | st.sampled_from(HOME) | st.sampled_from(TERMINALS)
known_terminals = st.sampled_from([name for name in TERMINALS if name != "stranger"])
kind_lists = st.just(("sos",)) | st.lists(st.sampled_from(KINDS), min_size=1, max_size=3, unique=True).map(tuple)
handovers = st.sampled_from([True, True, False])
tests = st.sampled_from([False, False, True])


def one_of(data: st.DataObject, things: Sequence[T]) -> T:
    """Draw the place and not the thing, so that a report shows a number and not a page; the newest come most often."""
    return things[-1 - data.draw(st.integers(0, len(things) - 1))]


class CaseMachine(RuleBasedStateMachine):
    """Everything that can happen to the cases of one household and of two terminals without one."""

    gateway: ClassVar[Gateway]

    def __init__(self) -> None:
        super().__init__()
        self.cases: list[Case] = []
        self.by_key: dict[tuple[object, ...], Sighting] = {}
        self.alarms: dict[UUID, Sighting] = {}
        self.lives: dict[UUID, int] = {}
        self.sent: list[Press] = []
        self.held: dict[str, DueNotice] = {}
        self.numbers = dict.fromkeys(TERMINALS, 0)
        self.epochs = {name: 0 if name == "stranger" else 1 for name in TERMINALS}
        self.windows = dict.fromkeys(TERMINALS, False)
        self.tick = 0
        self.seconds = 0
        self.attempts = 0
        self.quarantined: set[bytes] = set()

    @initialize(terminal=terminals, kinds=kind_lists, clock=st.booleans(), taken=handovers)
    def begin(self, terminal: str, kinds: tuple[str, ...], clock: bool, taken: bool) -> None:
        self.gateway.forget()
        self.press_anew(terminal, kinds, number=0, clock=clock, test=False, taken=taken)

    # What the model expects of a press

    def key_of(self, press: Press) -> tuple[object, ...]:
        assert press.terminal is not None
        here = (press.terminal, self.epochs[press.terminal])
        numbers = (press.boot, press.seq, self._trouble(press))
        return (*here, *numbers) if press.boot is not None else (*here, frozenset(press.kinds))

    def _trouble(self, press: Press) -> str | None:
        """Return the one thing that a technical alarm is about; None: it is about a person."""
        assert press.terminal is not None
        test = press.test and self.windows[press.terminal]
        return press.kinds[0] if class_of(press.kinds, test=test) == "technical" else None

    def expect(self, press: Press, *, taken: bool) -> tuple[str, Case | None]:
        """Take a press into the model: what is said of several troubles at once is a case for each."""
        if self._trouble(press) is None:
            return self._expect_one(press, taken=taken)
        kinds = sorted(set(press.kinds))
        first, *_ = [self._expect_one(replace(press, kinds=(kind,)), taken=taken) for kind in kinds]
        return first

    def _expect_one(self, press: Press, *, taken: bool) -> tuple[str, Case | None]:
        assert press.terminal is not None
        test = press.test and self.windows[press.terminal]
        of_class = class_of(press.kinds, test=test)
        key = self.key_of(press)
        known = self.by_key.get(key)
        if known is not None and known.case.state == "open" and self._same(press, known):
            known.repeats += 1
            return "repeated", known.case
        trouble = self._trouble(press)
        subject = "household:home" if press.terminal in HOME and trouble is None else f"terminal:{press.terminal}"
        subject = subject if trouble is None else f"terminal:{press.terminal}:{trouble}"
        mine = [case for case in self.cases if (case.subject, case.of_class) == (subject, of_class)]
        occurrence = 1 if known is None else known.occurrence + 1
        alarm = keys.alarm_id(self._key_text(press), occurrence)
        if mine and mine[-1].state == "open":
            case, how = mine[-1], "joined"
            case.presses += 1
            case.kinds += [kind for kind in press.kinds if kind not in case.kinds]
            case.press_again(press.kinds, taken=taken)
        else:
            previous = mine[-1].id if mine else None
            at_home = press.terminal in HOME
            case, how = Case(keys.case_id(alarm), subject, of_class, list(press.kinds), previous, at_home), "opened"
            self.cases.append(case)
        case.plan(taken=taken)
        self.by_key[key] = self.alarms[alarm] = Sighting(case, press, test, self.tick, occurrence)
        self.lives[alarm] = self.epochs[press.terminal]
        return how, case

    def _same(self, press: Press, known: Sighting) -> bool:
        """Tell a repeat from a press that only looks like one: whatever says more than the first is no repeat (I2)."""
        if set(press.kinds) - set(known.press.kinds) or (known.test and not press.test):
            return False
        if press.boot is None:
            return known.tick == self.tick
        return None in (press.pressed_at, known.press.pressed_at) or press.pressed_at == known.press.pressed_at

    def _key_text(self, press: Press) -> str:
        assert press.terminal is not None
        epoch = self.epochs[press.terminal]
        if press.boot is not None and press.seq is not None:
            key = keys.numbered_key(press.terminal, epoch=epoch, boot=press.boot, seq=press.seq)
            return key if self._trouble(press) is None else f"{key}:{press.kinds[0]}"
        return keys.window_key(press.terminal, epoch=epoch, kinds=press.kinds)

    def take(self, notices: Iterable[DueNotice], *, taken: bool) -> None:
        """Hold what was handed over, as a dispatcher does."""
        for notice in notices:
            assert taken
            assert notice.id not in self.held
            self.shows_no_duress(notice)
            self.held[notice.id] = notice

    def shows_no_duress(self, notice: DueNotice) -> None:
        """See that nobody outside its plan reads of duress where there is something else to read of."""
        kinds = next(set(case.kinds) for case in self.cases if case.id == notice.case.id)
        silent = kinds - {"duress"} or kinds
        if notice.party.id == "duty":  # of the fallback alone: it may know, and has to where the plan has nobody
            assert set(notice.case.kinds) in (kinds, silent)
        else:
            assert set(notice.case.kinds) == (kinds if notice.role in ROLES["duress"] else silent)

    def handed_over(self) -> set[str]:
        return {
            keys.notice_id(keys.leg_id(case.id, role=role, party=name), number)
            for case in self.cases
            for (role, name), leg in case.legs.items()
            for number, message in leg.messages.items()
            if message.taken
        }

    def press(self, press: Press, *, taken: bool) -> None:
        before = self.handed_over()
        how, case = self.expect(press, taken=taken)
        raised = self.gateway.raise_alarm(press, worker=self.gateway.worker if taken else None)
        assert case is not None
        assert (raised.how, raised.case_id) == (how, case.id)
        assert {notice.id for notice in raised.notices} == self.handed_over() - before
        self.take(raised.notices, taken=taken)

    def press_anew(
        self, terminal: str, kinds: tuple[str, ...], *, number: int | None, clock: bool, test: bool, taken: bool
    ) -> None:
        known: dict[str, Any] = {"test": test}
        if number is not None:
            known |= {"boot": 0, "seq": number}
            self.numbers[terminal] = number + 1
        if clock:
            self.seconds += 1
            known["pressed_at"] = datetime(2026, 11, 22, tzinfo=UTC) + timedelta(seconds=self.seconds)
        press = pressed(terminal, *kinds, **known)
        self.sent.append(press)
        self.press(press, taken=taken)

    # What terminals do

    @rule(
        terminal=terminals,
        kinds=kind_lists,
        reflashed=st.booleans(),
        clock=st.booleans(),
        test=tests,
        taken=handovers,
    )
    def somebody_presses(
        self, terminal: str, kinds: tuple[str, ...], reflashed: bool, clock: bool, test: bool, taken: bool
    ) -> None:
        """Press a terminal that counts; a reflashed one counts from the start again."""
        number = 0 if reflashed else self.numbers[terminal]
        self.press_anew(terminal, kinds, number=number, clock=clock, test=test, taken=taken)

    @rule(terminal=terminals, kinds=kind_lists, clock=st.booleans(), test=tests, taken=handovers)
    def somebody_presses_a_terminal_that_does_not_count(
        self, terminal: str, kinds: tuple[str, ...], clock: bool, test: bool, taken: bool
    ) -> None:
        self.press_anew(terminal, kinds, number=None, clock=clock, test=test, taken=taken)

    @rule(
        data=st.data(), how=st.sampled_from(["again", "again", "sms", "sms without its time", "copy"]), taken=handovers
    )
    def a_press_comes_again(self, data: st.DataObject, how: str, taken: bool) -> None:
        press = one_of(data, self.sent)
        if how == "copy":
            self.copied(press)
        elif how == "sms without its time":
            known = {"boot": press.boot, "seq": press.seq, "test": press.test, "transport": "sms"}
            assert press.terminal is not None
            self.press(pressed(press.terminal, *press.kinds, **known), taken=taken)
        else:
            transport = "mqtt" if how == "again" else "sms"
            self.press(replace(press, transport=transport, received_at=datetime.now(UTC)), taken=taken)

    def copied(self, press: Press) -> None:
        """Let the broker send what it kept: once stored in this life of the terminal, it is never a press."""
        assert press.terminal is not None
        led_to = {
            one.case.id
            for alarm, one in self.alarms.items()
            if one.press.digest == press.digest and self.lives[alarm] == self.epochs[press.terminal]
        }
        if led_to:
            raised = self.gateway.raise_alarm(replace(press, copy=True), worker=self.gateway.worker)
            assert raised.how == "repeated"
            assert raised.case_id in led_to
            assert raised.notices == ()

    @rule(data=st.data())
    def two_gateways_hear_the_same_press_at_once(self, data: st.DataObject) -> None:
        press = replace(one_of(data, self.sent), received_at=datetime.now(UTC))
        expected = sorted((how, case.id) for how, case in (self.expect(press, taken=False) for _ in "ab") if case)

        async def both() -> list[Raised]:
            alarm = (raise_alarm(self.gateway.pool, self.gateway.directory, press, worker=None) for _ in "ab")
            return list(await asyncio.gather(*alarm))

        assert sorted((raised.how, raised.case_id) for raised in self.gateway.run(both())) == expected

    @rule(terminal=terminals, payload=st.binary(max_size=2), taken=handovers)
    def an_alarm_cannot_be_read(self, terminal: str, payload: bytes, taken: bool) -> None:
        before = self.handed_over()
        how, case = self.expect(pressed(terminal, UNREADABLE), taken=taken)
        misread = Misread(
            transport="mqtt",
            topic=f"okc/v1/{terminal}/up/alarm",
            terminal=terminal,
            payload=payload,
            received_at=datetime.now(UTC),
            reason="nobody can read this",
        )
        worker = self.gateway.worker if taken else None
        raised = self.gateway.run(keep_alarm(self.gateway.pool, self.gateway.directory, misread, worker=worker))
        assert case is not None
        assert (raised.how, raised.case_id) == (how, case.id)
        assert {notice.id for notice in raised.notices} == self.handed_over() - before
        self.take(raised.notices, taken=taken)
        self.quarantined.add(terminal.encode() + b" " + payload)

    @rule(
        what=st.sampled_from(["half a minute", "half a minute", "refurbished", "test begins", "tests end"]),
        terminal=known_terminals,
    )
    def something_passes(self, what: str, terminal: str) -> None:
        if what == "half a minute":
            self.tick += 1
            self.gateway.admin.execute(
                "UPDATE alarm SET received_at = received_at - interval '31 s', "
                "stored_at = stored_at - interval '31 s', repeated_at = repeated_at - interval '31 s'"
            )
            self.gateway.admin.execute("UPDATE notice SET queued_at = queued_at - interval '31 s'")
        elif what == "refurbished":
            self.gateway.admin.execute("UPDATE terminal SET epoch = epoch + 1 WHERE public_id = %s", (terminal,))
            self.epochs[terminal] += 1
            self.numbers[terminal] = 0
        elif what == "test begins":
            self.gateway.run(open_window(self.gateway.pool, terminal, minutes=30, reason="drill", by="installer"))
            self.windows[terminal] = True
        else:
            self.gateway.admin.execute("UPDATE test_window SET closes_at = least(closes_at, clock_timestamp())")
            self.windows = dict.fromkeys(TERMINALS, False)

    # What channels do

    @precondition(lambda self: self.waiting())
    @rule()
    def the_dispatcher_takes_what_is_due(self) -> None:
        self.gateway.admin.execute("UPDATE notice SET due_at = clock_timestamp() WHERE state = 'due'")
        leased = self.gateway.run(
            lease_due(self.gateway.pool, self.gateway.directory, worker=self.gateway.worker, holding=list(self.held))
        )
        free = set()
        for name, message in self.waiting():
            free.add(name)
            message.taken = True
        # What is held from before and was recorded twice is free again, though this worker knows it still.
        assert {notice.id for notice in leased} == free
        for notice in leased:
            self.shows_no_duress(notice)
            self.held[notice.id] = notice

    @precondition(lambda self: self.held)
    @rule(
        data=st.data(),
        outcome=st.sampled_from(["sent", "sent", "accepted", "coming", "cannot"]),
        again=st.sampled_from([False, False, True]),
    )
    def a_channel_delivers(self, data: st.DataObject, outcome: str, again: bool) -> None:
        self.try_one(data, outcome, again=again, taken=False)

    @precondition(lambda self: self.held)
    @rule(
        data=st.data(),
        outcome=st.sampled_from(["try_again", "give_up"]),
        again=st.sampled_from([False, False, True]),
        taken=handovers,
    )
    def a_channel_fails(self, data: st.DataObject, outcome: str, again: bool, taken: bool) -> None:
        self.try_one(data, outcome, again=again, taken=taken)

    def try_one(self, data: st.DataObject, outcome: str, *, again: bool, taken: bool) -> None:
        """Record an attempt. With `again` another worker tried the same at the same time, and its word comes later."""
        notice = self.held[one_of(data, sorted(self.held))]
        notice = replace(notice, tries=data.draw(st.sampled_from([notice.tries, TRIES_BEFORE_HELP - 1, LAST_TRY - 1])))
        case, target, leg = next(one for one in self.legs() if self.leg_id(one[0], one[1]) == notice.leg_id)
        message = leg.messages[notice.number]
        if case.state == "closed" and notice.reason != "closed":
            assert not self.gateway.run(still_due(self.gateway.pool, [notice.id], worker=self.gateway.worker))
        if not again:
            del self.held[notice.id]
        before = self.handed_over()
        self.attempts += 1
        message.tried += 1
        self._tried(case, target, leg, message, notice, outcome, taken=taken)
        what: Sent | TryAgain | GiveUp = Sent(200, answer=PartyAnswer(outcome) if outcome in ANSWERS else None)
        if outcome == "try_again":
            what = TryAgain("busy")
        elif outcome == "give_up":
            what = GiveUp("gone")
        more = self.gateway.record(notice, what, worker=self.gateway.worker if taken else None)
        assert {one.id for one in more} == self.handed_over() - before
        self.take(more, taken=taken)

    def _tried(
        self, case: Case, target: Target, leg: Leg, message: Message, notice: DueNotice, outcome: str, *, taken: bool
    ) -> None:
        newest = notice.number == len(leg.messages)
        if outcome == "sent" or outcome in ANSWERS:
            message.state, message.taken, leg.heard = "sent", False, True
            if leg.state == "pending" and newest:
                leg.state = "delivered"
            if outcome in ANSWERS:
                case.answer(leg, PartyAnswer(outcome), overtaken=not newest)
            return
        if message.state == "due":
            message.taken = False
        tries = notice.tries + 1
        if notice.channel + 1 < CHANNELS.get(target[1] or "", 1):
            return
        if outcome == "try_again" and tries < LAST_TRY:
            needs_help = tries >= TRIES_BEFORE_HELP and leg.state in ("pending", "failed")
        else:
            message.state = "failed" if message.state == "due" else message.state
            needs_help = leg.state == "pending" and newest
            leg.state = "failed" if needs_help else leg.state
        if needs_help and case.state == "open":
            case.call_fallback(target, taken=taken)

    # What people do

    @rule(
        data=st.data(),
        answer=st.sampled_from(sorted(ANSWERS)),
        minutes=st.sampled_from([None, 5]),
        by=st.sampled_from([None, "seat 12"]),
    )
    def a_party_answers(self, data: st.DataObject, answer: str, minutes: int | None, by: str | None) -> None:
        case = one_of(data, self.cases)
        target = one_of(data, sorted(case.legs, key=str))
        words = PartyAnswer(answer, minutes=minutes, by=by)
        work = answer_leg(self.gateway.pool, self.gateway.directory, self.leg_id(case, target), words, via="api")
        if target[1] is None:
            with pytest.raises(StateConflict):
                self.gateway.run(work)
            return
        leg = case.legs[target]
        case.answer(leg, words)
        answered = self.gateway.run(work)
        over = case.state == "closed" or leg.state in ("withdrawn", "skipped")
        assert (answered.state, answered.counted) == (leg.state, not over)

    @rule(data=st.data(), operator=st.sampled_from(["anna", "bert"]))
    def an_operator_owns_a_case(self, data: st.DataObject, operator: str) -> None:
        case = one_of(data, self.cases)
        work = acknowledge_case(self.gateway.pool, self.gateway.directory, case.id, operator=operator)
        if case.owner not in (None, operator) or (case.owner is None and case.state == "closed"):
            with pytest.raises(StateConflict):
                self.gateway.run(work)
            return
        if case.owner is None:
            case.settle("hotline")
        case.owner = operator
        assert self.gateway.run(work).owner == operator

    @precondition(lambda self: any(case.state == "open" for case in self.cases))
    @rule(data=st.data())
    def somebody_is_safe(self, data: st.DataObject) -> None:
        case = one_of(data, self.cases)
        row = self.gateway.run(mark_safe(self.gateway.pool, self.gateway.directory, case.id, by="anna"))
        if case.state == "open":
            case.state, case.safe = "safe", True
        assert row.state == case.state

    @rule(
        data=st.data(),
        outcome=st.sampled_from(["helped", "false_alarm"]),
        confirmed_by=st.sampled_from([None, "daughter", "daughter"]),
        taken=handovers,
    )
    def a_case_is_closed(self, data: st.DataObject, outcome: str, confirmed_by: str | None, taken: bool) -> None:
        case = one_of(data, self.cases)
        worker = self.gateway.worker if taken else None
        work = close_case(
            self.gateway.pool,
            self.gateway.directory,
            case.id,
            outcome=outcome,
            confirmed_by=confirmed_by,
            note="why",
            worker=worker,
        )
        unsafe = case.of_class == "emergency" and not case.safe and confirmed_by is None
        if case.outcome not in (None, outcome) or (case.state != "closed" and unsafe):
            with pytest.raises(StateConflict):
                self.gateway.run(work)
            return
        before = self.handed_over()
        if case.state != "closed":
            case.close(outcome, taken=taken)
        notices = self.gateway.run(work)
        assert {notice.id for notice in notices} == self.handed_over() - before
        self.take(notices, taken=taken)

    # What has to be so after every step

    def legs(self) -> list[tuple[Case, Target, Leg]]:
        return [(case, target, leg) for case in self.cases for target, leg in case.legs.items()]

    def waiting(self) -> list[tuple[str, Message]]:
        """Return what is due and nobody has taken, with its id."""
        return [
            (keys.notice_id(self.leg_id(case, target), number), message)
            for case, target, leg in self.legs()
            for number, message in leg.messages.items()
            if message.state == "due" and not message.taken
        ]

    def leg_id(self, case: Case, target: Target) -> UUID:
        return keys.leg_id(case.id, role=target[0], party=target[1])

    @invariant()
    def everything_holds(self) -> None:
        # One invariant, not a dozen: Hypothesis names each after every step of what it reports.
        self.every_press_that_was_answered_is_one_alarm_of_a_case()
        self.cases_stand_as_the_model_says()
        self.no_subject_has_two_open_cases_of_a_class()
        self.the_urgency_of_a_case_counts_its_presses()
        self.no_case_holds_alarms_of_another_class()
        self.legs_stand_as_the_model_says()
        self.everybody_whom_the_kinds_call_has_a_leg()
        self.notices_stand_as_the_model_says()
        self.after_the_end_nothing_is_sent_but_the_word_that_it_is_over()
        self.nobody_waits_for_a_message_that_is_not_on_its_way()
        self.nothing_that_was_tried_is_forgotten()
        self.every_journal_holds()

    def every_press_that_was_answered_is_one_alarm_of_a_case(self) -> None:
        rows = self.gateway.rows(
            "SELECT a.id, a.case_id, a.terminal_id, a.kinds, a.test, a.repeats FROM alarm a "
            "JOIN cases c ON c.id = a.case_id"
        )
        assert len(rows) == self.gateway.rows("SELECT count(*) AS n FROM alarm")[0].n
        assert {(row.id, row.case_id, row.terminal_id, tuple(row.kinds), row.test, row.repeats) for row in rows} == {
            (alarm, one.case.id, one.press.terminal, one.press.kinds, one.test, one.repeats)
            for alarm, one in self.alarms.items()
        }

    def cases_stand_as_the_model_says(self) -> None:
        rows = self.gateway.rows(
            "SELECT id, subject, class AS of_class, state, urgency, kinds, test, previous, owner, outcome, "
            "safe_at IS NOT NULL AS safe FROM cases ORDER BY opened_at"
        )
        assert [
            (r.id, r.subject, r.of_class, r.state, r.urgency, r.kinds, r.previous, r.owner, r.outcome, r.safe)
            for r in rows
        ] == [
            (c.id, c.subject, c.of_class, c.state, c.presses, c.kinds, c.previous, c.owner, c.outcome, c.safe)
            for c in self.cases
        ]
        assert all(row.test == (row.of_class == "test") for row in rows)

    def no_subject_has_two_open_cases_of_a_class(self) -> None:
        rows = self.gateway.rows(
            "SELECT subject, class AS of_class FROM cases WHERE state = 'open' "
            "GROUP BY subject, class HAVING count(*) > 1"
        )
        assert rows == []

    def the_urgency_of_a_case_counts_its_presses(self) -> None:
        rows = self.gateway.rows(
            "SELECT c.urgency, count(a.id) AS presses FROM cases c LEFT JOIN alarm a ON a.case_id = c.id GROUP BY c.id"
        )
        assert all(row.urgency == row.presses for row in rows)

    def no_case_holds_alarms_of_another_class(self) -> None:
        for row in self.gateway.rows(
            "SELECT c.class AS of_class, a.kinds, a.test FROM alarm a JOIN cases c ON c.id = a.case_id"
        ):
            assert class_of(row.kinds, test=row.test) == row.of_class

    def legs_stand_as_the_model_says(self) -> None:
        rows = self.gateway.rows("SELECT id, case_id, role, party_id, state, ended_at, notices, problem FROM leg")
        assert {(row.id, row.case_id, row.role, row.party_id, row.state, row.notices) for row in rows} == {
            (self.leg_id(case, target), case.id, *target, leg.state, len(leg.messages))
            for case, target, leg in self.legs()
        }
        for row in rows:
            assert (row.ended_at is None) == (row.state in ("pending", "delivered"))
            assert row.problem is not None or row.state not in ("failed", "skipped")

    def everybody_whom_the_kinds_call_has_a_leg(self) -> None:
        for case in self.cases:
            wanted = planned(case.kinds, test=case.of_class == "test", at_home=case.at_home)
            rows = self.gateway.rows(f"SELECT role, party_id, state FROM leg WHERE case_id = '{case.id}'")
            assert wanted.keys() <= {(row.role, row.party_id) for row in rows}
            if case.of_class == "test":
                assert {row.state for row in rows if row.role in PUBLIC} <= {"skipped"}

    def notices_stand_as_the_model_says(self) -> None:
        rows = self.gateway.rows("SELECT id, leg_id, number, reason, state, worker, ended_at FROM notice")
        assert {(row.id, row.reason, row.state, row.worker is not None) for row in rows} == {
            (keys.notice_id(self.leg_id(case, target), number), message.reason, message.state, message.taken)
            for case, target, leg in self.legs()
            for number, message in leg.messages.items()
        }
        assert all((row.ended_at is None) == (row.state == "due") for row in rows)

    def after_the_end_nothing_is_sent_but_the_word_that_it_is_over(self) -> None:
        rows = self.gateway.rows(
            "SELECT n.id FROM notice n JOIN cases c ON c.id = n.case_id "
            "WHERE c.state = 'closed' AND n.state = 'due' AND n.reason <> 'closed'"
        )
        assert rows == []

    def nobody_waits_for_a_message_that_is_not_on_its_way(self) -> None:
        rows = self.gateway.rows(
            "SELECT leg.id FROM leg WHERE state = 'pending' AND NOT EXISTS "
            "(SELECT FROM notice n WHERE n.leg_id = leg.id AND n.number = leg.notices AND n.state = 'due')"
        )
        assert rows == []

    def nothing_that_was_tried_is_forgotten(self) -> None:
        assert self.gateway.rows("SELECT count(*) AS n FROM attempt")[0].n == self.attempts
        assert self.gateway.rows("SELECT count(*) AS n FROM quarantine")[0].n == len(self.quarantined)

    def every_journal_holds(self) -> None:
        chains: dict[UUID, list[journal.Entry]] = {case.id: [] for case in self.cases}
        for row in self.gateway.rows("SELECT case_id, n, at, kind, actor, sealed, prev, hash FROM journal ORDER BY n"):
            chains[row.case_id].append(journal.Entry(**row._asdict()))
        for row in self.gateway.rows("SELECT id, journal_n, journal_head FROM cases"):
            assert journal.verify(chains[row.id], head=row.journal_head, count=row.journal_n) is None
            assert len(chains[row.id]) == row.journal_n

    def teardown(self) -> None:
        """Open every entry: what cannot be read is no proof."""
        for row in self.gateway.rows(
            "SELECT j.case_id, j.n, j.sealed, k.id, k.wrapped FROM journal j JOIN data_key k ON k.id = j.key_id"
        ):
            key = self.gateway.keyring.unwrap(row.id, row.wrapped)
            key.open(row.sealed, about=f"journal {row.case_id} {row.n}")


@pytest.mark.timeout(600)  # a failure is made small before it is reported
def test_cases_are_what_the_model_says(gateway: Gateway) -> None:
    class HereAndNow(CaseMachine):
        pass

    HereAndNow.gateway = gateway
    run_state_machine_as_test(
        HereAndNow,
        settings=settings(
            max_examples=80,
            stateful_step_count=25,
            deadline=None,
            phases=(Phase.explicit, Phase.reuse, Phase.generate, Phase.shrink),  # to explain it, every line is traced
            suppress_health_check=[HealthCheck.too_slow, HealthCheck.data_too_large],
        ),
    )


# What once went wrong


def legs_of(gateway: Gateway, case: UUID) -> dict[str | None, str]:
    return {
        row.party_id: row.state for row in gateway.rows(f"SELECT party_id, state FROM leg WHERE case_id = '{case}'")
    }


def test_a_drill_swallows_no_real_press(gateway: Gateway) -> None:
    gateway.run(open_window(gateway.pool, "box", minutes=30, reason="drill", by="installer"))
    drill = gateway.raise_alarm(pressed("box", "sos", test=True))
    real = gateway.raise_alarm(pressed("box", "sos"))
    assert (drill.how, real.how) == ("opened", "opened")
    assert legs_of(gateway, drill.case_id)["ambulance"] == "skipped"
    assert legs_of(gateway, real.case_id)["ambulance"] == "pending"


@pytest.mark.parametrize("first", ["low_battery", "service"])
def test_a_number_used_again_for_a_call_for_help_is_a_call_for_help(gateway: Gateway, first: str) -> None:
    # A reflashed terminal whose clock is not set yet: its second life begins with numbers of its first.
    before = gateway.raise_alarm(pressed("box", first, boot=0, seq=0))
    press = gateway.raise_alarm(pressed("box", "sos", boot=0, seq=0))
    assert press.how == "opened"
    assert press.case_id != before.case_id


def test_a_number_used_again_for_another_kind_calls_whom_that_kind_calls(gateway: Gateway) -> None:
    case = gateway.raise_alarm(pressed("box", "duress", boot=0, seq=0)).case_id
    assert gateway.raise_alarm(pressed("box", "sos", boot=0, seq=0)).how == "joined"
    assert legs_of(gateway, case)["ambulance"] == "pending"


def test_a_clock_of_ours_that_runs_ahead_does_not_make_presses_repeats(gateway: Gateway) -> None:
    gateway.raise_alarm(pressed("box", "sos", received_at=datetime.now(UTC) + timedelta(hours=1)))
    gateway.admin.execute("UPDATE alarm SET stored_at = stored_at - interval '31 s'")
    assert gateway.raise_alarm(pressed("box", "sos")).how == "joined"


def test_an_answer_to_the_first_message_does_not_take_back_the_second(gateway: Gateway) -> None:
    raised = gateway.raise_alarm(pressed("pendant", "sos", boot=0, seq=0), worker=gateway.worker)
    first = next(notice for notice in raised.notices if notice.party.id == "hotline")
    gateway.raise_alarm(pressed("pendant", "smoke", boot=0, seq=1))
    gateway.record(first, Sent(200, answer=PartyAnswer("accepted")))
    second = gateway.rows(f"SELECT state FROM notice WHERE leg_id = '{first.leg_id}' AND number = 2")
    assert [row.state for row in second] == ["due"]


def test_a_plan_that_joins_later_brings_its_privacy_along(gateway: Gateway) -> None:
    gateway.apply_with_duress(privacy={"district": "neighbour"})
    gateway.raise_alarm(pressed("box", "sos", boot=0, seq=0))
    joined = gateway.raise_alarm(pressed("box", "duress", boot=0, seq=1), worker=gateway.worker)
    assert joined.how == "joined"
    assert {notice.case.privacy.get("district") for notice in joined.notices} == {"neighbour"}


def test_duress_beside_another_kind_hides_that_kind_from_nobody(gateway: Gateway) -> None:
    gateway.raise_alarm(pressed("box", "sos", boot=0, seq=0))
    again = gateway.raise_alarm(pressed("box", "smoke", "duress", boot=0, seq=1), worker=gateway.worker)
    assert {"son", "daughter", "ambulance", "hotline", "chief"} <= {notice.party.id for notice in again.notices}
    shown = {notice.party.id: set(notice.case.kinds) for notice in again.notices}
    assert shown["son"] == {"sos", "smoke"}
    assert shown["hotline"] == {"sos", "smoke", "duress"}


def test_duress_that_its_plan_has_nobody_for_is_heard_of_by_the_fallback(gateway: Gateway) -> None:
    gateway.apply_with_duress(roles=("police_110",))
    raised = gateway.raise_alarm(pressed("box", "sos", "duress"), worker=gateway.worker)
    assert "duress" in {kind for notice in raised.notices for kind in notice.case.kinds}


def test_whoever_stands_in_the_fallback_twice_is_told_once(gateway: Gateway) -> None:
    site = SITE.model_copy(update={"fallback": ("duty", "duty")})
    gateway.run(apply_site(gateway.pool, gateway.keyring, site, prune=False))
    raised = gateway.raise_alarm(pressed("drawer", "sos"), worker=gateway.worker)
    assert [notice.party.id for notice in raised.notices] == ["duty"]


def test_channels_and_people_do_not_wait_for_each_other(gateway: Gateway) -> None:
    """Attempts are recorded while parties answer and the case is closed: nobody ends in a deadlock."""

    async def all_at_once(raised: Raised) -> None:
        now = datetime.now(UTC)
        tried = [Tried(notice=one, started_at=now, answered_at=now, outcome=Sent(200)) for one in raised.notices]
        pool, directory = gateway.pool, gateway.directory
        await asyncio.gather(
            record_attempts(pool, directory, tried, worker=None, rng=Random(1)),
            answer_leg(pool, directory, raised.notices[0].leg_id, PartyAnswer("coming"), via="api"),
            close_case(pool, directory, raised.case_id, outcome="helped", confirmed_by="daughter", note="why"),
        )

    for seq in range(20):
        gateway.run(all_at_once(gateway.raise_alarm(pressed("box", "sos", boot=0, seq=seq), worker=gateway.worker)))


def test_pressing_on_without_numbers_is_heard_again_every_half_minute(gateway: Gateway) -> None:
    """Each repeat must not push the end of the window away: whoever presses on needs help the more."""
    gateway.raise_alarm(pressed("box", "sos"))
    gateway.admin.execute("UPDATE alarm SET stored_at = stored_at - interval '20 s'")
    assert gateway.raise_alarm(pressed("box", "sos")).how == "repeated"
    gateway.admin.execute("UPDATE alarm SET stored_at = stored_at - interval '11 s'")
    assert gateway.raise_alarm(pressed("box", "sos")).how == "joined"


def test_a_repeat_that_knows_where_moves_the_case(gateway: Gateway) -> None:
    case = gateway.raise_alarm(pressed("box", "sos", boot=0, seq=0)).case_id
    fix = {"lat": 32.1, "lon": 118.8, "datum": "wgs84", "source": "gnss", "accuracy_m": 5, "at": None}
    again = gateway.raise_alarm(pressed("box", "sos", boot=0, seq=0, fix=fix), worker=gateway.worker)
    assert (again.how, again.case_id) == ("repeated", case)
    assert {notice.reason for notice in again.notices} == {"location"}
    location = gateway.rows(f"SELECT location FROM cases WHERE id = '{case}'")[0].location
    assert (location["lat"], location["source"]) == (32.1, "gnss")


@pytest.mark.parametrize("copy", [True, False])
def test_after_the_closure_only_a_copy_of_the_broker_is_the_old_press(gateway: Gateway, copy: bool) -> None:
    press = pressed("box", "sos", boot=0, seq=0, pressed_at=datetime.now(UTC))
    case = gateway.raise_alarm(press).case_id
    gateway.run(
        close_case(gateway.pool, gateway.directory, case, outcome="helped", confirmed_by="daughter", note="why")
    )
    again = gateway.raise_alarm(replace(press, copy=copy))
    assert again.how == ("repeated" if copy else "opened")
    assert (again.case_id == case) == copy


LONG = timedelta(minutes=5)


def close(gateway: Gateway, case: UUID) -> None:
    gateway.run(
        close_case(gateway.pool, gateway.directory, case, outcome="helped", confirmed_by="daughter", note="why")
    )


def test_a_press_that_waited_while_another_gateway_was_quicker_opens_nothing(gateway: Gateway) -> None:
    press = pressed("box", "sos", boot=0, seq=0)
    case = gateway.raise_alarm(press).case_id
    close(gateway, case)
    again = gateway.raise_alarm(replace(press, waited=LONG))
    assert (again.how, again.case_id) == ("repeated", case)
    # It says more than what was stored: then it is heard.
    assert gateway.raise_alarm(replace(press, kinds=("fall",), waited=LONG)).how == "opened"


def test_what_waited_without_numbers_is_a_repeat_if_it_came_in_time(gateway: Gateway) -> None:
    press = pressed("box", "sos")
    case = gateway.raise_alarm(press).case_id
    gateway.admin.execute("UPDATE alarm SET stored_at = stored_at - interval '40 s'")
    assert gateway.raise_alarm(replace(press, waited=timedelta(seconds=20))).how == "repeated"
    again = gateway.raise_alarm(press)
    assert (again.how, again.case_id) == ("joined", case)


def test_the_bytes_of_a_former_life_are_no_copy(gateway: Gateway) -> None:
    press = pressed("box", "sos", boot=1, seq=1, pressed_at=datetime.now(UTC))
    close(gateway, gateway.raise_alarm(press).case_id)
    gateway.admin.execute("UPDATE terminal SET epoch = 2")
    gateway.admin.execute("UPDATE site SET revision = revision + 1")
    assert gateway.raise_alarm(replace(press, copy=True)).how == "opened"


def test_whoever_closes_ends_no_press_that_they_did_not_see(gateway: Gateway) -> None:
    case = gateway.raise_alarm(pressed("box", "sos", boot=0, seq=0)).case_id
    gateway.raise_alarm(pressed("box", "sos", boot=0, seq=1))
    pool, directory = gateway.pool, gateway.directory
    with pytest.raises(StateConflict, match="pressed again"):
        gateway.run(close_case(pool, directory, case, outcome="helped", confirmed_by="a", note="why", urgency=1))
    with pytest.raises(StateConflict, match="pressed again"):
        gateway.run(mark_safe(pool, directory, case, by="a", urgency=1))
    assert gateway.rows(f"SELECT state FROM cases WHERE id = '{case}'")[0].state == "open"
    gateway.run(close_case(pool, directory, case, outcome="helped", confirmed_by="a", note="why", urgency=2))


def test_an_answer_that_was_held_up_on_its_way_does_not_answer_the_new_press(gateway: Gateway) -> None:
    raised = gateway.raise_alarm(pressed("box", "sos", boot=0, seq=0), worker=gateway.worker)
    leg = raised.notices[0].leg_id
    gateway.raise_alarm(pressed("box", "sos", boot=0, seq=1))
    work = answer_leg(gateway.pool, gateway.directory, leg, PartyAnswer("coming"), via="api", number=1)
    answered = gateway.run(work)
    assert (answered.state, answered.counted) == ("pending", False)
    work = answer_leg(gateway.pool, gateway.directory, leg, PartyAnswer("coming"), via="api", number=2)
    assert gateway.run(work).counted


def test_a_second_terminal_of_the_household_moves_the_case_that_it_joined(gateway: Gateway) -> None:
    case = gateway.raise_alarm(pressed("box", "sos", boot=0, seq=0)).case_id
    assert gateway.raise_alarm(pressed("pendant", "sos", boot=0, seq=0)).case_id == case
    now = datetime.now(UTC)
    place = Fix(lat=32.2, lon=118.8, source="gnss", accuracy_m=5, at=now)
    told = Told("pendant", now, FixReport(v=1, fix=place))
    gateway.run(store_reports(gateway.pool, gateway.directory, [told], worker=None))
    assert gateway.rows(f"SELECT location FROM cases WHERE id = '{case}'")[0].location["lat"] == 32.2
