"""Terminal linkage (呼叫终端联动, R9): what terminals are asked to do, and what they answer.

A command is sent until the terminal answers it or it is too old. That a line was picked up is no human's word: it ends
a step and sets no fact (I7).
"""

from collections.abc import Mapping
from datetime import timedelta
from typing import Any
from uuid import UUID, uuid4

from gateway.domain.case import NotFound, StateConflict
from gateway.domain.commands import check_arguments
from gateway.domain.plan import DURESS
from gateway.domain.supervision import Profile
from gateway.service.case_work import WorkingDay, locked
from gateway.service.run_procedures import advance_work, end_step_of
from gateway.store import cases, procedures, supervision
from gateway.store.directory import Directory
from gateway.store.pool import Pool
from gateway.store.procedures import CommandRow

__all__ = ["expire_commands", "give_command", "record_result"]

_STEP_RESULTS = {"done": "done", "failed": "failed", "refused": "failed"}
_BEATS = 3
"""How many reports in a row a terminal has to miss to be lost when its interval was set from here."""

_HEARD_IN_THE_ROOM = frozenset({"call_back", "dial", "play"})


async def give_command(
    pool: Pool,
    directory: Directory,
    terminal: str,
    *,
    name: str,
    arguments: Mapping[str, str | int | float | bool],
    life: timedelta,
    case_id: UUID | None,
    by: str,
) -> CommandRow:
    """Ask a terminal to do something; for a case it is on the case's record.

    Raises:
        NotFound: No such terminal or case.
        StateConflict: The arguments do not fit, the case is not about this terminal, or the person is threatened and
            the room must stay silent.
    """
    check_arguments(name, arguments)
    command = f"cmd_{uuid4().hex}"
    async with pool.connection() as conn, conn.transaction():
        if not await procedures.terminal_exists(conn, terminal):
            raise NotFound(f"There is no terminal {terminal}.")
        if name in _HEARD_IN_THE_ROOM and await procedures.under_duress(conn, terminal, DURESS):
            raise StateConflict("Somebody threatens the person: nothing may be heard in the room (duress).")
        work = None
        if case_id is not None:
            work = await locked(conn, directory, case_id)
            if terminal not in await procedures.terminals_of(conn, case_id):
                raise StateConflict(f"The case is not about the terminal {terminal}.")
        now = await procedures.the_time(conn)
        await procedures.add_command(
            conn,
            id=command,
            case=case_id,
            step=None,
            terminal=terminal,
            name=name,
            arguments=arguments,
            expires_at=now + life,
        )
        if work is not None:
            data = {"command": command, "name": name, "terminal": terminal}
            private = {"arguments": dict(arguments)}
            work.note("command.given", data, actor=f"operator:{by}", private=private)
            await work.flush()
        row = await procedures.command(conn, command)
    assert row is not None
    return row


async def record_result(
    pool: Pool,
    directory: Directory,
    terminal: str,
    command: str,
    state: str,
    *,
    detail: str | None,
    is_working_day: WorkingDay,
) -> None:
    """Record what a terminal answered to a command; one that nobody gave, or that is answered already, is nothing."""
    async with pool.connection() as conn, conn.transaction():
        asked = await procedures.command(conn, command)
        if asked is None or asked.terminal_id != terminal:
            return
        work = None if asked.case_id is None else await locked(conn, directory, asked.case_id)
        if state == "accepted":
            await procedures.accept_command(conn, command)
            return
        ended = await procedures.end_command(conn, command, state=state, detail=detail)
        beat_s = asked.arguments.get("heartbeat_s")
        if ended and state == "done" and asked.name == "configure" and isinstance(beat_s, int):
            # From now on it is to be heard that often, and missed accordingly.
            profile = Profile(silent_after=timedelta(seconds=beat_s) * _BEATS, heartbeat=timedelta(seconds=beat_s))
            await supervision.expect(
                conn,
                terminal,
                silent_after=profile.silent_after,
                late_after=profile.late_after,
                heartbeat_s=beat_s,
            )
        if not ended or work is None:
            return
        data = {"command": command, "name": asked.name, "terminal": terminal, "state": state}
        work.note("command.answered", data, actor=f"terminal:{terminal}", private={"detail": detail})
        if asked.step_id is not None:
            await end_step_of(work, asked.step_id, _STEP_RESULTS[state], by=f"terminal:{terminal}")
        await advance_work(work, is_working_day)
        await work.flush()


async def expire_commands(pool: Pool, directory: Directory) -> None:
    """End the commands that were never answered in time, each on the record of its case."""
    async with pool.connection() as conn:
        late = await procedures.late_commands(conn)
    for command in late:
        async with pool.connection() as conn, conn.transaction():
            case = None if command.case_id is None else await cases.lock_case(conn, command.case_id)
            if not await procedures.end_command(conn, command.id, state="expired", detail=None) or case is None:
                continue
            work = await locked(conn, directory, case.id)
            data: dict[str, Any] = {"command": command.id, "name": command.name, "terminal": command.terminal_id}
            work.note("command.expired", data, actor="gateway")
            await work.flush()
