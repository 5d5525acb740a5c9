"""How the modems are, for people and for other processes."""

from dataclasses import dataclass
from datetime import datetime, timedelta
from decimal import Decimal
from uuid import UUID

from psycopg.rows import class_row

from gateway.store.pool import Connection

__all__ = [
    "ModemRow",
    "begin_trouble",
    "end_trouble",
    "figures",
    "forget",
    "listing",
    "pin_refused",
    "remember_pin",
    "set_balance",
    "show",
]

_SEEN = timedelta(minutes=2)


@dataclass(frozen=True, slots=True)
class ModemRow:
    """A modem as it was seen last. ``sent_today`` counts messages; ``fresh``: somebody looks after it now."""

    id: str
    replica: str
    path: str
    state: str
    problem: str | None
    maker: str | None
    model: str | None
    operator: str | None
    signal_dbm: int | None
    busy: bool
    since: datetime
    seen_at: datetime
    heard_at: datetime | None
    balance: Decimal | None
    balance_at: datetime | None
    sent_today: int
    fresh: bool
    trouble: int
    case_id: UUID | None


async def show(
    conn: Connection,
    *,
    id: str,  # noqa: A002 # as the column is called
    replica: str,
    path: str,
    state: str,
    problem: str | None,
    maker: str,
    model: str,
    operator: str | None,
    signal_dbm: int | None,
    busy: bool,
    voice: bool,
    since: datetime,
    heard_at: datetime | None,
) -> bool:
    """Write down how a modem is; False: it is gone here, and another gateway has it now."""
    cursor = await conn.execute(
        """
        INSERT INTO modem (id, replica, path, state, problem, maker, model, operator, signal_dbm, busy, voice, since,
                           heard_at)
        VALUES (%(id)s, %(replica)s, %(path)s, %(state)s, %(problem)s, nullif(%(maker)s, ''), nullif(%(model)s, ''),
                %(operator)s, %(signal)s, %(busy)s, %(voice)s, %(since)s, %(heard)s)
        ON CONFLICT (id) DO UPDATE SET replica = excluded.replica, path = excluded.path, state = excluded.state,
            problem = excluded.problem, maker = coalesce(excluded.maker, modem.maker),
            model = coalesce(excluded.model, modem.model), operator = excluded.operator,
            signal_dbm = excluded.signal_dbm, busy = excluded.busy, voice = excluded.voice, since = excluded.since,
            heard_at = coalesce(excluded.heard_at, modem.heard_at), seen_at = clock_timestamp()
        WHERE modem.replica = excluded.replica OR excluded.state <> 'gone'
           OR modem.seen_at < clock_timestamp() - %(seen)s
        RETURNING id
        """,
        {
            "id": id,
            "replica": replica,
            "path": path,
            "state": state,
            "problem": problem,
            "maker": maker,
            "model": model,
            "operator": operator,
            "signal": signal_dbm,
            "busy": busy,
            "voice": voice,
            "since": since,
            "heard": heard_at,
            "seen": _SEEN,
        },
    )
    ours = await cursor.fetchone() is not None
    # What was shown under its port before it said which one it is.
    await conn.execute(
        "DELETE FROM modem WHERE path = %s AND replica = %s AND id = path || '@' || replica AND id <> %s "
        "AND case_id IS NULL",
        (path, replica, id),
    )
    return ours


async def listing(conn: Connection) -> list[ModemRow]:
    """Return every modem that was ever seen, by its port."""
    async with conn.cursor(row_factory=class_row(ModemRow)) as cursor:
        await cursor.execute(
            """
            SELECT m.id, replica, path, state, problem, maker, model, operator, signal_dbm, busy, since, seen_at,
                   heard_at, balance, balance_at, (
                       SELECT count(*) FROM phone_part p
                       WHERE p.modem = m.id AND p.sent_at > date_trunc('day', onekey_now())) AS sent_today,
                   seen_at > clock_timestamp() - %s AS fresh, trouble, case_id
            FROM modem m ORDER BY replica, path, m.id
            """,
            (_SEEN,),
        )
        return await cursor.fetchall()


async def figures(conn: Connection) -> tuple[dict[str, int], int, float]:
    """Return how many modems there are by state, how much waits for one, and for how many seconds at most."""
    cursor = await conn.execute(
        """
        SELECT coalesce((SELECT jsonb_object_agg(state, n) FROM (
                   SELECT CASE WHEN seen_at > clock_timestamp() - %s THEN state ELSE 'unknown' END AS state,
                          count(*) AS n
                   FROM modem GROUP BY 1) AS by_state), '{}'),
               count(*), coalesce(extract(epoch FROM onekey_now() - min(queued_at)), 0)::float8
        FROM phone_out WHERE state IN ('queued', 'sending')
        """,
        (_SEEN,),
    )
    row = await cursor.fetchone()
    assert row is not None
    return row[0], row[1], row[2]


async def pin_refused(conn: Connection, mac: bytes) -> bool:
    """Was this PIN tried with its SIM, in whichever modem, and not right? `mac` is made of both."""
    row = await (await conn.execute("SELECT EXISTS (SELECT FROM refused_pin WHERE mac = %s)", (mac,))).fetchone()
    return row == (True,)


async def remember_pin(conn: Connection, mac: bytes, *, refused: bool) -> None:
    """Remember a PIN that is tried as refused, until it was right."""
    if refused:
        await conn.execute("INSERT INTO refused_pin (mac) VALUES (%s) ON CONFLICT (mac) DO NOTHING", (mac,))
    else:
        await conn.execute("DELETE FROM refused_pin WHERE mac = %s", (mac,))


async def forget(conn: Connection, modem: str) -> None:
    """Forget a modem that nobody looks after."""
    await conn.execute("DELETE FROM modem WHERE id = %s", (modem,))


async def set_balance(conn: Connection, modem: str, amount: Decimal) -> None:
    """Note what is left on a SIM."""
    await conn.execute("UPDATE modem SET balance = %s, balance_at = onekey_now() WHERE id = %s", (amount, modem))


async def begin_trouble(conn: Connection, modem: str) -> tuple[int, UUID | None]:
    """Lock a modem; returns the number of a new trouble of it, and the case of one that is open already."""
    row = await (
        await conn.execute(
            "UPDATE modem SET trouble = trouble + CASE WHEN case_id IS NULL THEN 1 ELSE 0 END WHERE id = %s "
            "RETURNING trouble, case_id",
            (modem,),
        )
    ).fetchone()
    return (0, None) if row is None else (row[0], row[1])


async def end_trouble(conn: Connection, modem: str, case_id: UUID | None) -> None:
    """Note the case of a modem's trouble; None: it is over."""
    await conn.execute("UPDATE modem SET case_id = %s WHERE id = %s", (case_id, modem))
