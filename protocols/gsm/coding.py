"""How the text of a message is written: the data coding scheme (3GPP TS 23.038, section 4)."""

from dataclasses import dataclass
from enum import StrEnum

__all__ = ["PLAIN", "Alphabet", "DataCoding", "Waiting"]


class Alphabet(StrEnum):
    """What an octet or septet stands for."""

    GSM7 = "gsm7"
    DATA = "8bit"
    UCS2 = "ucs2"


_ALPHABETS = (Alphabet.GSM7, Alphabet.DATA, Alphabet.UCS2, Alphabet.GSM7)
_WAITING = range(0xC0, 0xF0)
_WAITING_UCS2 = 0xE0
_CLASSES = 0xF0


@dataclass(frozen=True, slots=True)
class Waiting:
    """That something waits at the network. ``kind``: 0 voice mail, 1 fax, 2 e-mail, 3 other."""

    active: bool
    kind: int
    store: bool


@dataclass(frozen=True, slots=True)
class DataCoding:
    """The octet, and what it says."""

    octet: int = 0

    @classmethod
    def of(cls, alphabet: Alphabet, *, message_class: int | None = None) -> "DataCoding":
        """Return the octet for an alphabet; class 0 is shown at once and may not be kept."""
        octet = _ALPHABETS.index(alphabet) << 2
        return cls(octet if message_class is None else octet | 0x10 | message_class)

    @property
    def alphabet(self) -> Alphabet:
        """The alphabet; what is reserved counts as the default one."""
        if self.octet < 0x80:
            return _ALPHABETS[self.octet >> 2 & 3]
        if self.octet >= _CLASSES:
            return Alphabet.DATA if self.octet & 4 else Alphabet.GSM7
        return Alphabet.UCS2 if self.octet >= _WAITING_UCS2 else Alphabet.GSM7

    @property
    def message_class(self) -> int | None:
        """0 shown at once, 1 for the phone, 2 for the SIM, 3 for what is connected to the phone; None: not said."""
        if self.octet >= _CLASSES or (self.octet < 0x80 and self.octet & 0x10):
            return self.octet & 3
        return None

    @property
    def compressed(self) -> bool:
        """Is the text compressed, so that nobody here can read it?"""
        return self.octet < 0x80 and bool(self.octet & 0x20)

    @property
    def waiting(self) -> Waiting | None:
        """What waits at the network, if that is what the message is about."""
        if self.octet not in _WAITING:
            return None
        return Waiting(active=bool(self.octet & 8), kind=self.octet & 3, store=self.octet >= 0xD0)


PLAIN = DataCoding()
"""Text in the default alphabet, of no class."""
