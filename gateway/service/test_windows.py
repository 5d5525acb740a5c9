"""Windows in which a terminal's test flag is believed (D11): opened by us, and they expire."""

from datetime import datetime, timedelta

from gateway.domain.case import NotFound
from gateway.store import events
from gateway.store.pool import Pool

__all__ = ["open_window"]


async def open_window(pool: Pool, terminal: str, *, minutes: int, reason: str, by: str) -> datetime:
    """Believe test presses of `terminal` from now on, and return until when.

    Raises:
        NotFound: No such terminal.
    """
    async with pool.connection() as conn, conn.transaction():
        cursor = await conn.execute(
            """
            INSERT INTO test_window (terminal_uid, opens_at, closes_at, reason, opened_by)
            SELECT uid, onekey_now(), onekey_now() + %s, %s, %s FROM terminal WHERE public_id = %s
            RETURNING closes_at, (SELECT district FROM terminal WHERE public_id = %s)
            """,
            (timedelta(minutes=minutes), reason, by, terminal, terminal),
        )
        row = await cursor.fetchone()
        if row is None:
            raise NotFound(f"There is no terminal {terminal}.")
        closes_at: datetime = row[0]
        await events.emit(
            conn,
            "terminal.test_window",
            district=row[1],
            case_id=None,
            data={"terminal": terminal, "closes_at": closes_at.isoformat(), "reason": reason},
        )
        return closes_at
