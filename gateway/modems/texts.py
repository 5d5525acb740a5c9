"""A text as a modem takes it."""

from datetime import timedelta

from protocols.gsm.address import Address
from protocols.gsm.coding import DataCoding
from protocols.gsm.tpdu import Submit, write_pdu
from protocols.gsm.userdata import split

__all__ = ["pdus"]

_VALID = timedelta(hours=6)


def pdus(number: str, text: str, *, reference: int, report: bool = True) -> list[tuple[str, int]]:
    """Return a text for a number as the modem takes it, part by part.

    Raises:
        ValueError: No such number, or a text that is too long.
    """
    recipient = Address.parse(number)
    return [
        write_pdu(
            Submit(
                recipient=recipient,
                user=user,
                coding=DataCoding.of(user.alphabet),
                validity=_VALID,
                report=report,
            )
        )
        for user in split(text, reference=reference)
    ]
