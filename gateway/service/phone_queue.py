"""Queueing what is to go out over the phone network: messages of notices, and messages of our own."""

from collections.abc import Callable
from dataclasses import dataclass
from uuid import UUID, uuid4

from gateway.domain.answers import free_code
from gateway.keyring import DataKey, ErasedKey
from gateway.store import phone_book, phone_in, phone_out
from gateway.store.directory import Directory
from gateway.store.phone_out import NewJob
from gateway.store.pool import Connection, Pool

__all__ = ["Letter", "about", "enqueue_call", "enqueue_notice", "enqueue_own"]

_SMS, _CALL = "sms", "call"
_URGENT = 1
"""The last rank of calls for help."""


def about(job: str) -> str:
    """Return what a sealed number and text are bound to."""
    return f"phone_out {job}"


@dataclass(frozen=True, slots=True)
class Letter:
    """By which an answer names this case; ``needed``: others are open for the same number."""

    letter: str
    needed: bool


async def _letter(conn: Connection, peer: bytes, case_id: UUID, *, urgent: bool) -> Letter:
    """Return the letter of a case for a number: the same in all messages about it, and no other case's."""
    # Two cases that are told at the same moment must not get the same one.
    await conn.execute("SELECT pg_advisory_xact_lock(%s)", (int.from_bytes(peer[:8], "big", signed=True),))
    used = await phone_out.codes_in_use(conn, peer)
    letter = used.get(case_id)
    others = {code for case, code in used.items() if case != case_id}
    return Letter(letter or free_code(others, urgent=urgent), bool(others))


async def enqueue_notice(
    pool: Pool,
    directory: Directory,
    *,
    job: str,
    kind: str,
    notice_id: str,
    leg_id: UUID,
    case_id: UUID,
    number: int,
    to: str,
    rank: int,
    compose: Callable[[Letter], str] | None,
    parts_of: Callable[[str], int] = lambda _: 1,
) -> bool:
    """Queue the message, or the call, of a notice under its own id; False: its case cannot be read any more.

    `compose` makes the text, in which the letter of the case may stand; None: it is a call.
    """
    async with pool.connection() as conn, conn.transaction():
        row = await (
            await conn.execute(
                "SELECT k.id, k.wrapped FROM cases c JOIN data_key k ON k.id = c.key_id WHERE c.id = %s", (case_id,)
            )
        ).fetchone()
        assert row is not None, "cases are never deleted"
        try:
            key = directory.keyring.unwrap(row[0], row[1])
        except ErasedKey:
            return False
        peer = phone_book.peer(directory.keyring, to)
        # Whoever was called may write back as well.
        letter = await _letter(conn, peer, case_id, urgent=rank <= _URGENT)
        text = "" if compose is None else compose(letter)
        await phone_out.add(
            conn,
            NewJob(
                id=job,
                kind=kind,
                peer=peer,
                sealed=key.seal({"number": to, "text": text}, about=about(job)),
                key_id=key.id,
                rank=rank,
                parts=parts_of(text),
                notice_id=notice_id,
                leg_id=leg_id,
                case_id=case_id,
                number=number,
                code=letter.letter,
            ),
        )
    return True


async def enqueue_own(conn: Connection, directory: Directory, to: str, text: str, *, rank: int) -> str:
    """Queue a message that belongs to no case; returns its id."""
    key = await phone_in.own_key(conn, directory.keyring)
    job = f"own-{uuid4()}"
    await phone_out.add(
        conn,
        NewJob(
            id=job,
            kind=_SMS,
            peer=phone_book.peer(directory.keyring, to),
            sealed=key.seal({"number": to, "text": text}, about=about(job)),
            key_id=key.id,
            rank=rank,
        ),
    )
    return job


async def enqueue_call(
    conn: Connection, directory: Directory, *, to: str, case_id: UUID, step_id: UUID, key: DataKey
) -> str | None:
    """Queue the call of a step to the person of a case, before all other calls; None: no modem is there that could.

    Returns the id of the job.
    """
    if not await phone_out.can_call(conn):
        return None
    job = f"step-{step_id}"
    await phone_out.add(
        conn,
        NewJob(
            id=job,
            kind=_CALL,
            peer=phone_book.peer(directory.keyring, to),
            sealed=key.seal({"number": to}, about=about(job)),
            key_id=key.id,
            rank=0,
            case_id=case_id,
            step_id=step_id,
        ),
    )
    return job
