"""What came over the phone network: how it is kept, and how it is dealt with (R1, R17, I1, I2).

Each thing is dealt with in one transaction together with the mark that it was: whoever is killed in the midst has done
nothing, and it is dealt with again.
"""

import hashlib
from collections.abc import Sequence
from typing import Any

from gateway.keyring import KeyringError
from gateway.service.phone.cries import look_at, take_message, take_ring
from gateway.service.phone.message import PARTS_COME_WITHIN, whole
from gateway.service.phone.reports import take_report
from gateway.service.phone.turn import Handled, Turn
from gateway.store import phone_book, phone_in
from gateway.store.directory import Directory
from gateway.store.phone_in import Came, NewArrival
from gateway.store.pool import Connection, Pool
from protocols.errors import FrameError
from protocols.gsm.tpdu import Deliver, StatusReport, read_pdu

__all__ = ["arrival", "give_up", "handle", "ring"]

_SEAL = "phone_in"


def arrival(directory: Directory, key: Any, *, modem: str, pdu: str, length: int | None) -> NewArrival:
    """Return a message as it is kept. One that cannot be read is kept as well: it may be a call for help."""
    kind, peer, parts, part, reference = "message", None, 1, 1, None
    try:
        _, message = read_pdu(pdu, from_phone=False, length=length)
    except FrameError:
        message = None
    if isinstance(message, StatusReport):
        kind, peer = "report", phone_book.peer(directory.keyring, str(message.recipient))
    elif isinstance(message, Deliver):
        peer = phone_book.peer(directory.keyring, str(message.sender))
        if (concat := message.user.header.concat) is not None:
            parts, part, reference = concat.total, concat.seq, concat.reference
    digest = hashlib.sha256(b"pdu " + pdu.upper().encode()).digest()
    sealed = key.seal({"pdu": pdu, "length": length}, about=_SEAL)
    return NewArrival(
        kind=kind, modem=modem, peer=peer, sealed=sealed, digest=digest, parts=parts, part=part, reference=reference
    )


def ring(directory: Directory, key: Any, *, modem: str, number: str | None, call: str) -> NewArrival:
    """Return a call that came as it is kept; `call` tells it from other calls."""
    return NewArrival(
        kind="ring",
        modem=modem,
        peer=None if number is None else phone_book.peer(directory.keyring, number),
        sealed=key.seal({"number": number}, about=_SEAL),
        digest=hashlib.sha256(f"ring {call}".encode()).digest(),
    )


async def handle(pool: Pool, directory: Directory, came: Came, *, worker: int | None) -> Handled | None:
    """Deal with something that came; None: it waits for its other parts, or somebody else has dealt with it.

    Raises:
        NoSite: It is a call for help, and no site is set up.
    """
    async with pool.connection() as conn, conn.transaction():
        parts = await phone_in.parts_of(conn, came)
        if came.id not in {part.id for part in parts}:
            return None
        said = await _opened(conn, directory, parts)
        turn = Turn(conn, directory, came, worker)
        used: Sequence[int] = [came.id]
        match came.kind:
            case "report":
                done = await take_report(turn, said[0])
            case "ring":
                done = await take_ring(turn, said[0])
            case _:
                message = whole(parts, said)
                if message is None:
                    await phone_in.wait(conn, [part.id for part in parts], longest=PARTS_COME_WITHIN)
                    return None
                used = message.used
                done = await take_message(turn, message)
        if done.outcome == "flood":
            await phone_in.count_only(conn, came)
        else:
            await phone_in.handled(conn, used, outcome=done.outcome, case_id=done.case_id)
        return done


async def give_up(pool: Pool, directory: Directory, came: Came, *, worker: int | None) -> Handled:
    """Open a case for something that we fail on again and again: it may be a call for help (I2, D12).

    Raises:
        NoSite: Nobody could be told, because no site is set up.
    """
    async with pool.connection() as conn, conn.transaction():
        said = (await _opened(conn, directory, [came]))[0]
        reason = "the gateway fails on something that came by phone"
        raised = await look_at(Turn(conn, directory, came, worker), str(said).encode(), reason)
        await phone_in.handled(conn, [came.id], outcome="given up", case_id=raised.case_id)
        return Handled(outcome="given up", case_id=raised.case_id, notices=raised.notices)


async def _opened(conn: Connection, directory: Directory, parts: Sequence[Came]) -> list[dict[str, Any]]:
    key = await phone_in.own_key(conn, directory.keyring)
    found: list[dict[str, Any]] = []
    for part in parts:
        try:
            value: Any = {} if part.sealed is None else key.open(bytes(part.sealed), about=_SEAL)
        except KeyringError:
            value = {}
        found.append(value)
    return found
