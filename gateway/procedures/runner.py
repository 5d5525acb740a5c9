"""The runner: looks at every case when it wants to be looked at, and sends terminals what they are asked to do.

Any number of replicas may run; each case is one transaction of whoever holds its row. A case that cannot be handled
is put off and keeps no other waiting (D12).
"""

import asyncio
import logging
from collections.abc import Callable, Iterable
from datetime import date, timedelta
from random import Random

import psycopg

from gateway.domain.outbox import DueNotice
from gateway.domain.plan import DURESS
from gateway.links.mqtt import LinkDown, MqttLink
from gateway.service.command_terminals import expire_commands
from gateway.service.complaints import advance_complaint
from gateway.service.drills import drive_drills
from gateway.service.run_procedures import advance_case, store_shipped
from gateway.store import procedures, work_orders
from gateway.store.directory import Directory
from gateway.store.pool import Pool
from gateway.store.procedures import CommandRow
from protocols.okc import Down, down_topic
from schemas.commands import Command, Progress

__all__ = ["Runner"]

_log = logging.getLogger(__name__)

_LOOK_EVERY_S = 0.25
_BATCH = 100
_FAULTY_FOR = timedelta(seconds=30)
_TELL_AGAIN_AFTER = (timedelta(seconds=5), timedelta(seconds=20))
_GIVES_WAY = timedelta(seconds=4)
"""How long a case waits while there is much to be stored or sent: first everybody hears of it."""
_AGAIN_AFTER = timedelta(seconds=5)
"""A command is sent with QoS 0, and again until it is answered or too old; terminals carry it out once."""


class Runner:
    """Runs procedures until cancelled."""

    def __init__(
        self,
        pool: Pool,
        directory: Directory,
        link: MqttLink,
        *,
        submit: Callable[[Iterable[DueNotice]], None],
        worker: Callable[[], int | None],
        is_working_day: Callable[[date], bool],
        rng: Random,
        busy: Callable[[], bool] = lambda: False,
    ) -> None:
        """`submit` sends notices committed in the name of `worker()`; `busy` says that it has much to send."""
        self._pool = pool
        self._directory = directory
        self._link = link
        self._submit = submit
        self._worker = worker
        self._is_working_day = is_working_day
        self._rng = rng
        self._busy = busy

    async def run(self) -> None:
        """Look, act, wait. A lost database is for whoever supervises this."""
        await store_shipped(self._pool)
        while True:
            busy = await self.advance_due()
            await self.advance_complaints()
            await self.send_commands()
            await self.send_progress()
            await self.drive_drills()
            if not busy:
                await asyncio.sleep(_LOOK_EVERY_S * self._rng.uniform(0.8, 1.2))

    async def drive_drills(self) -> None:
        """Make the presses of drills that are due. A drill that cannot go on stops nothing else."""
        try:
            self._submit(await drive_drills(self._pool, self._directory, worker=self._worker()))
        except (psycopg.OperationalError, psycopg.InterfaceError):
            raise
        except Exception:  # noqa: BLE001 # see above
            _log.exception("a drill cannot go on")

    async def advance_due(self) -> bool:
        """Advance the cases that are due; True when there may be more."""
        async with self._pool.connection() as conn:
            overdue = _GIVES_WAY if self._busy() else timedelta(0)
            due = await procedures.due_cases(conn, limit=_BATCH, overdue=overdue)
        for case_id in due:
            try:
                notices = await advance_case(
                    self._pool,
                    self._directory,
                    case_id,
                    is_working_day=self._is_working_day,
                    worker=self._worker(),
                )
            except (psycopg.OperationalError, psycopg.InterfaceError):
                raise
            except Exception:  # noqa: BLE001 # one case must not stop the others
                _log.exception("the procedures of a case cannot go on", extra={"case": case_id})
                async with self._pool.connection() as conn:
                    await procedures.put_off(conn, case_id, _FAULTY_FOR)
            else:
                self._submit(notices)
        return len(due) == _BATCH

    async def advance_complaints(self) -> None:
        """Advance complaints that have a procedure of their own."""
        async with self._pool.connection() as conn:
            due = await work_orders.due_orders(conn, limit=_BATCH)
        for order in due:
            try:
                await advance_complaint(self._pool, self._directory, order, is_working_day=self._is_working_day)
            except (psycopg.OperationalError, psycopg.InterfaceError):
                raise
            except Exception:  # noqa: BLE001 # one complaint must not stop the others
                _log.exception("the complaint of a work order cannot go on", extra={"work_order": order})
                async with self._pool.connection() as conn:
                    await work_orders.put_off(conn, order, _FAULTY_FOR)

    async def send_commands(self) -> None:
        """Send what terminals are to do; what is too old ends."""
        await expire_commands(self._pool, self._directory)
        async with self._pool.connection() as conn, conn.transaction():
            due = await procedures.due_commands(conn, again_after=_AGAIN_AFTER, limit=_BATCH)
        for command in due:
            try:
                await self._link.publish(down_topic(command.terminal_id, Down.COMMAND), _message(command))
            except LinkDown as exc:
                _log.warning("cannot send a command yet: %s", exc, extra={"terminal": command.terminal_id})
                return  # it is sent again after a while

    async def send_progress(self) -> None:
        """Tell the people on the floor what is new. The cases stay locked meanwhile: none is closed under it (I4)."""
        async with self._pool.connection() as conn, conn.transaction():
            due = await procedures.due_progress(conn, silent=DURESS, delays=_TELL_AGAIN_AFTER, limit=_BATCH)
            for row, terminals in due:
                told = Progress.model_validate(
                    {"case": row.case_id, "state": row.state, "role": row.role, "minutes": row.minutes, "n": row.id}
                )
                for terminal in terminals:
                    try:
                        payload = told.model_dump_json(exclude_none=True).encode()
                        await self._link.publish(down_topic(terminal, Down.PROGRESS), payload)
                    except LinkDown as exc:
                        _log.warning("cannot tell the person yet: %s", exc, extra={"terminal": terminal})


def _message(row: CommandRow) -> bytes:
    command = Command.model_validate(
        {"id": row.id, "name": row.name, "arguments": row.arguments, "expires_at": row.expires_at}
    )
    return command.model_dump_json(exclude_none=True).encode()
