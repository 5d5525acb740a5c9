"""A text of one or several parts, put together from what has come of it."""

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import timedelta
from typing import Any

from gateway.store.phone_in import Came
from protocols.errors import FrameError
from protocols.gsm.tpdu import Deliver, read_pdu
from protocols.gsm.userdata import UserData, joined
from protocols.oks import SmsReport, binary, text

__all__ = ["PARTS_COME_WITHIN", "Message", "alarm_of", "whole"]

PARTS_COME_WITHIN = timedelta(seconds=90)


@dataclass(frozen=True, slots=True)
class Message:
    """A message as far as it is there. ``octets`` are what is kept of it where nobody understands it.

    ``used`` are the rows that it is made of, copies included; ``begins``: its first part is there.
    """

    sender: str
    user: UserData | None
    octets: bytes
    missing: int
    begins: bool
    used: Sequence[int]

    @property
    def text(self) -> str:
        """Its words; octets have none."""
        return "" if self.user is None else self.user.text or ""


def whole(parts: Sequence[Came], said: Sequence[dict[str, Any]]) -> Message | None:
    """Put the parts together that are there; None: others may still come.

    A beginning that calls for help is not kept waiting: the rest only says more of it (I2).
    """
    users: dict[int, UserData] = {}
    used: list[int] = []
    sender, octets = "", b""
    for part, value in zip(parts, said, strict=True):
        pdu = str(value.get("pdu", ""))
        try:
            _, message = read_pdu(pdu, from_phone=False, length=value.get("length"))
        except FrameError:
            message = None
        if isinstance(message, Deliver):
            # Another text may have the same reference: its parts differ, and have their turn afterwards.
            if users.setdefault(part.part, message.user) != message.user:
                continue
            sender = str(message.sender)
        octets += pdu.encode()
        used.append(part.id)
    total = parts[0].parts
    missing = total - len(users)
    user = joined([users[place] for place in sorted(users)]) if users else None
    gathered = Message(sender, user, octets, missing, 1 in users or total == 1, used)
    late = max(part.age_s for part in parts) >= PARTS_COME_WITHIN.total_seconds()
    if missing and total > 1 and not late and alarm_of(gathered) is None:
        return None
    return gathered


def alarm_of(message: Message) -> SmsReport | None:
    """Return the call for help that a text or octets of a terminal are, if they are one."""
    if message.user is None:
        return None
    if (said := message.user.text) is not None:
        return text.read(said)
    try:
        return binary.read(message.user.payload)
    except FrameError:
        return None
