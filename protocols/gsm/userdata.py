"""What a message carries: a header, and text or data behind it (3GPP TS 23.040, 9.2.3.16 and .24; TS 23.038)."""

from collections.abc import Sequence
from dataclasses import dataclass

from protocols.gsm import alphabet
from protocols.gsm.coding import Alphabet, DataCoding
from protocols.gsm.header import NO_HEADER, Concat, Header, Ports

__all__ = ["MOST_OCTETS", "UserData", "joined", "split", "split_data"]

MOST_OCTETS = 140
"""Octets of user data in one message, header included."""

_MOST_PARTS = 255
_MARK = "\ufeff"


@dataclass(frozen=True, slots=True)
class UserData:
    """Payload of one message. ``payload`` holds septets, one in an octet, with `Alphabet.GSM7`, else octets."""

    alphabet: Alphabet
    payload: bytes
    header: Header = NO_HEADER

    @classmethod
    def parse(cls, octets: bytes, length: int, *, coding: DataCoding, has_header: bool) -> "UserData":
        """Read user data. There may be less than `length` says, or more; both happen.

        `length` counts septets with the 7-bit alphabet, else octets.
        """
        septets = coding.alphabet is Alphabet.GSM7 and not coding.compressed
        header, begin = NO_HEADER, 0
        if not septets:
            octets = octets[:length]
        if has_header and octets and length:
            begin = octets[0] + 1
            header = Header.parse(octets[1:begin])
        kind = Alphabet.DATA if coding.compressed else coding.alphabet
        if not septets:
            return cls(kind, octets[begin:], header)
        skip, fill = _before(begin)
        return cls(kind, alphabet.unpack(octets[begin:], length - skip, fill=fill), header)

    def build(self) -> tuple[int, bytes]:
        """Return length and octets as they stand in a TPDU.

        Raises:
            ValueError: It does not fit into one message.
        """
        header = self.header.build()
        if self.alphabet is Alphabet.GSM7:
            skip, fill = _before(len(header))
            length, octets = skip + len(self.payload), header + alphabet.pack(self.payload, fill=fill)
        else:
            octets = header + self.payload
            length = len(octets)
        if len(octets) > MOST_OCTETS:
            raise ValueError(f"{len(octets)} octets in one message: {MOST_OCTETS} may be")
        return length, octets

    @property
    def text(self) -> str | None:
        """The text as far as it is one; half a character is U+FFFD. None: these are data."""
        match self.alphabet:
            case Alphabet.GSM7:
                locking, single = self.header.languages
                return alphabet.text_of(self.payload, locking=locking, single=single)
            case Alphabet.UCS2:
                return _ucs2(self.payload)
            case Alphabet.DATA:
                return None


def _before(octets: int) -> tuple[int, int]:
    """Return how many septets a header of so many octets takes, and the bits between it and the text."""
    return -(-8 * octets // 7), -8 * octets % 7


def _ucs2(payload: bytes) -> str:
    whole = payload[: len(payload) // 2 * 2]
    # UTF-16 in truth. What stands alone of a pair would break whoever writes it as UTF-8 or JSON.
    text = whole.decode("utf-16-be", errors="surrogatepass")
    repaired = "".join("\ufffd" if 0xD800 <= ord(char) <= 0xDFFF else char for char in text)
    return repaired.removeprefix(_MARK).rstrip("\0")


def joined(parts: Sequence[UserData]) -> UserData:
    """Put the parts of one message together, in their order; a character may be cut anywhere.

    Tables that differ from part to part are applied part by part; the result is UCS-2 then.
    """
    first = parts[0]
    if all(part.alphabet == first.alphabet and part.header.languages == first.header.languages for part in parts):
        return UserData(first.alphabet, b"".join(part.payload for part in parts), first.header)
    if any(part.alphabet is Alphabet.DATA for part in parts):
        return UserData(Alphabet.DATA, b"".join(part.payload for part in parts), first.header)
    return UserData(Alphabet.UCS2, "".join(part.text or "" for part in parts).encode("utf-16-be"))


def split(text: str, *, reference: int, bits: int = 8, ports: Ports | None = None) -> list[UserData]:
    """Write `text` in as few messages as it takes, in the 7-bit alphabet if that has all of it, else as UTF-16.

    No character is cut in two, nor an escape from what it escapes. `reference` tells the parts of one text from those
    of another. Line ends become single line feeds.

    Raises:
        ValueError: It takes more than 255 messages.
    """
    text = text.replace("\r\n", "\n")
    if alphabet.fits(text):
        kind, units = Alphabet.GSM7, [alphabet.cost(char) for char in text]
    else:
        text = text.encode("utf-16-be", errors="surrogatepass").decode("utf-16-be", errors="replace")
        kind, units = Alphabet.UCS2, [1 + (ord(char) > 0xFFFF) for char in text]
    alone = Header.of(ports=ports)
    if sum(units) <= _room(kind, alone):
        return [UserData(kind, _payload(kind, text), alone)]
    room = _room(kind, Header.of(concat=Concat(0, 0, 0, bits), ports=ports))
    pieces: list[str] = []
    begin = used = 0
    for place, unit in enumerate(units):
        if used + unit > room:
            pieces.append(text[begin:place])
            begin, used = place, 0
        used += unit
    pieces.append(text[begin:])
    return _parts(kind, [_payload(kind, piece) for piece in pieces], reference=reference, bits=bits, ports=ports)


def split_data(data: bytes, *, reference: int, bits: int = 8, ports: Ports | None = None) -> list[UserData]:
    """Write octets in as few messages as it takes.

    Raises:
        ValueError: It takes more than 255 messages.
    """
    alone = Header.of(ports=ports)
    if len(data) <= _room(Alphabet.DATA, alone):
        return [UserData(Alphabet.DATA, data, alone)]
    room = _room(Alphabet.DATA, Header.of(concat=Concat(0, 0, 0, bits), ports=ports))
    pieces = [data[begin : begin + room] for begin in range(0, len(data), room)]
    return _parts(Alphabet.DATA, pieces, reference=reference, bits=bits, ports=ports)


def _parts(
    kind: Alphabet, payloads: Sequence[bytes], *, reference: int, bits: int, ports: Ports | None
) -> list[UserData]:
    total = len(payloads)
    if total > _MOST_PARTS:
        raise ValueError(f"a text in {total} messages: {_MOST_PARTS} may be")
    reference %= 1 << bits
    return [
        UserData(kind, payload, Header.of(concat=Concat(reference, total, seq, bits), ports=ports))
        for seq, payload in enumerate(payloads, start=1)
    ]


def _room(kind: Alphabet, header: Header) -> int:
    """Return how many septets, octets or code units of two octets fit behind a header."""
    octets = len(header.build())
    match kind:
        case Alphabet.GSM7:
            return MOST_OCTETS * 8 // 7 - _before(octets)[0]
        case Alphabet.DATA:
            return MOST_OCTETS - octets
        case Alphabet.UCS2:
            return (MOST_OCTETS - octets) // 2


def _payload(kind: Alphabet, text: str) -> bytes:
    return alphabet.septets_of(text) if kind is Alphabet.GSM7 else text.encode("utf-16-be")
