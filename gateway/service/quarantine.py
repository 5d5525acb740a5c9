"""Messages that could not be read: kept, and for an alarm a case beside them (I2, D13)."""

import hashlib
from dataclasses import dataclass
from datetime import datetime
from uuid import UUID

from gateway.domain.case import NotFound, StateConflict
from gateway.domain.kinds import UNREADABLE
from gateway.service.raise_alarm import Press, Raised, raise_alarm_in
from gateway.service.telemetry import Told, fix_record, store_reports_in
from gateway.store import events, quarantine
from gateway.store.directory import Directory
from gateway.store.pool import Connection, Pool
from gateway.store.quarantine import Kept
from protocols.errors import FrameError
from protocols.okc import Up, parse_up
from schemas.tolerance import ReadAlarm, Unreadable, read_alarm, read_reports

__all__ = ["Misread", "ReplayResult", "dismiss", "keep", "keep_alarm", "keep_alarm_in", "press_of", "replay"]


_EARLIEST, _LATEST = 1990, 2200
"""Years between which a clock that a terminal shows is at all a clock."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Misread:
    """A message that nothing could be made of. ``reason`` quotes at most a little of it, never all.

    ``household`` and ``caller``: of whom, where no terminal said it (`Press`).
    """

    transport: str
    topic: str
    terminal: str | None
    payload: bytes
    received_at: datetime
    reason: str
    copy: bool = False
    household: str | None = None
    caller: bytes | None = None

    @property
    def digest(self) -> bytes:
        """SHA-256 of the payload."""
        return hashlib.sha256(self.payload).digest()

    @property
    def kept_topic(self) -> str:
        """The topic as the database can hold it, and under which the message is found again."""
        return self.topic.replace("\x00", "�")[:300]


@dataclass(frozen=True, slots=True, kw_only=True)
class ReplayResult:
    """What a replay led to. Its notices are queued for whichever gateway takes them first."""

    state: str
    case_id: UUID | None
    detail: str


def press_of(
    alarm: ReadAlarm, *, terminal: str, transport: str, payload: bytes, received_at: datetime, copy: bool
) -> Press:
    """Return the press that a readable alarm stands for."""
    return Press(
        terminal=terminal,
        transport=transport,
        kinds=alarm.kinds,
        received_at=received_at,
        payload=payload,
        digest=hashlib.sha256(payload).digest(),
        boot=alarm.boot,
        seq=alarm.seq,
        pressed_at=alarm.at if alarm.at is not None and _EARLIEST < alarm.at.year < _LATEST else None,
        fix=None if alarm.fix is None else fix_record(alarm.fix, alarm.at, received_at),
        battery_pct=alarm.battery_pct,
        signal_dbm=alarm.signal_dbm,
        test=alarm.test,
        copy=copy,
        problems=alarm.problems,
    )


async def keep(pool: Pool, misread: Misread) -> int:
    """Keep a message of telemetry, or of a topic nobody may use; the same bytes again only count. Returns a number."""
    async with pool.connection() as conn, conn.transaction():
        known = await quarantine.seen(conn, misread.kept_topic, misread.digest)
        return known[0] if known is not None else await _keep(conn, misread, case_id=None, district=None)


async def keep_alarm(pool: Pool, directory: Directory, misread: Misread, *, worker: int | None) -> Raised:
    """Keep an alarm that could not be read, and open a case for it: somebody may lie on the floor.

    Raises:
        NoSite: Nobody could be told, because no site is set up.
    """
    async with pool.connection() as conn, conn.transaction():
        return await keep_alarm_in(conn, directory, misread, worker=worker)


async def keep_alarm_in(conn: Connection, directory: Directory, misread: Misread, *, worker: int | None) -> Raised:
    """Do the work of `keep_alarm` in the caller's transaction."""
    press = Press(
        terminal=misread.terminal,
        transport=misread.transport,
        kinds=(UNREADABLE,),
        received_at=misread.received_at,
        payload=misread.payload,
        digest=misread.digest,
        copy=misread.copy,
        household=misread.household,
        caller=misread.caller,
        problems=(f"alarm that could not be read: {misread.reason}",),
    )
    raised = await raise_alarm_in(conn, directory, press, worker=worker)
    if await quarantine.seen(conn, misread.kept_topic, misread.digest) is None:
        await _keep(conn, misread, case_id=raised.case_id, district=raised.district)
    return raised


async def _keep(conn: Connection, misread: Misread, *, case_id: UUID | None, district: str | None) -> int:
    number = await quarantine.keep(
        conn,
        received_at=misread.received_at,
        transport=misread.transport,
        topic=misread.kept_topic,
        terminal=misread.terminal,
        district=district,
        payload=misread.payload,
        digest=misread.digest,
        reason=misread.reason.replace("\x00", "�")[:1000],
        case_id=case_id,
    )
    await events.emit(
        conn,
        "quarantine.added",
        district=district,
        case_id=case_id,
        data={"quarantine": number, "terminal": misread.terminal, "transport": misread.transport},
    )
    return number


async def replay(pool: Pool, directory: Directory, number: int, *, by: str) -> ReplayResult:
    """Read a kept message again, with the rules of today, and do what would have been done.

    Raises:
        NotFound: No such message.
        StateConflict: It is settled already, or still cannot be read.
    """
    async with pool.connection() as conn, conn.transaction():
        kept = await quarantine.one(conn, number, lock=True)
        if kept is None:
            raise NotFound(f"There is no message {number} in quarantine.")
        if kept.state != "kept":
            raise StateConflict(f"Message {number} was {kept.state} already.")
        result = await _replay(conn, directory, kept)
        await quarantine.settle(conn, number, state="replayed", by=by)
        return result


async def _replay(conn: Connection, directory: Directory, kept: Kept) -> ReplayResult:
    try:
        terminal, kind = parse_up(kept.topic)
    except FrameError as exc:
        raise StateConflict(f"Message {kept.id} still cannot be read: {exc}.") from exc
    if kind is not Up.ALARM:
        told = []
        for report, _ in read_reports(kind.value, kept.payload):
            if isinstance(report, Unreadable):
                raise StateConflict(f"Message {kept.id} still cannot be read: {report.reason}.")
            told.append(Told(terminal, kept.received_at, report, late=True))
        await store_reports_in(conn, directory, told, worker=None)
        return ReplayResult(state="replayed", case_id=None, detail=f"{kind.value} stored")
    alarm = read_alarm(kept.payload)
    if isinstance(alarm, Unreadable):
        raise StateConflict(f"Message {kept.id} still cannot be read: {alarm.reason}.")
    press = press_of(
        alarm,
        terminal=terminal,
        transport=kept.transport,
        payload=kept.payload,
        received_at=kept.received_at,
        copy=False,
    )
    raised = await raise_alarm_in(conn, directory, press, worker=None)
    return ReplayResult(state="replayed", case_id=raised.case_id, detail=f"alarm {raised.how}")


async def dismiss(pool: Pool, number: int, *, by: str) -> None:
    """Settle a kept message without doing anything.

    Raises:
        NotFound: No such message.
        StateConflict: It is settled already.
    """
    async with pool.connection() as conn, conn.transaction():
        kept = await quarantine.one(conn, number, lock=True)
        if kept is None:
            raise NotFound(f"There is no message {number} in quarantine.")
        if kept.state != "kept":
            raise StateConflict(f"Message {number} was {kept.state} already.")
        await quarantine.settle(conn, number, state="dismissed", by=by)
