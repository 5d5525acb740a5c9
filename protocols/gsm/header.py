"""The header in front of a text: parts of a longer one, ports, national tables (3GPP TS 23.040, 9.2.3.24)."""

from dataclasses import dataclass
from typing import NamedTuple

__all__ = ["NO_HEADER", "Concat", "Header", "Ports"]

_CONCAT_8, _CONCAT_16 = 0x00, 0x08
_PORTS_8, _PORTS_16 = 0x04, 0x05
_SINGLE, _LOCKING = 0x24, 0x25


class Concat(NamedTuple):
    """One part of several. ``seq`` counts from 1 to ``total``; ``bits`` is the length of the reference, 8 or 16."""

    reference: int
    total: int
    seq: int
    bits: int = 8


class Ports(NamedTuple):
    """For which application a message is, and from which."""

    to: int
    sender: int
    bits: int = 16


@dataclass(frozen=True, slots=True)
class Header:
    """The elements of a header, each an identifier and its octets, in their order; those unknown here are kept."""

    elements: tuple[tuple[int, bytes], ...] = ()

    @classmethod
    def parse(cls, octets: bytes) -> "Header":
        """Read what follows the length of a header. An element that runs past its end is left out with what follows."""
        found: list[tuple[int, bytes]] = []
        at = 0
        while at + 2 <= len(octets):
            end = at + 2 + octets[at + 1]
            if end > len(octets):
                break
            found.append((octets[at], octets[at + 2 : end]))
            at = end
        return cls(tuple(found))

    @classmethod
    def of(cls, *, concat: Concat | None = None, ports: Ports | None = None) -> "Header":
        """Return the header that says this."""
        elements: list[tuple[int, bytes]] = []
        if concat is not None:
            wide = concat.bits == 16
            reference = concat.reference.to_bytes(2 if wide else 1, "big")
            elements.append((_CONCAT_16 if wide else _CONCAT_8, reference + bytes((concat.total, concat.seq))))
        if ports is not None:
            size = ports.bits // 8
            both = ports.to.to_bytes(size, "big") + ports.sender.to_bytes(size, "big")
            elements.append((_PORTS_16 if size == 2 else _PORTS_8, both))
        return cls(tuple(elements))

    def build(self) -> bytes:
        """Return the octets, with the length in front; nothing for a header without elements."""
        if not self.elements:
            return b""
        body = b"".join(bytes((kind, len(value))) + value for kind, value in self.elements)
        return bytes((len(body),)) + body

    @property
    def concat(self) -> Concat | None:
        """Which part of a longer message it is; None for the only one, and for numbers that cannot be."""
        found = None
        for kind, value in self.elements:
            if kind == _CONCAT_8 and len(value) == 3:
                found = Concat(value[0], value[1], value[2])
            elif kind == _CONCAT_16 and len(value) == 4:
                found = Concat(int.from_bytes(value[:2], "big"), value[2], value[3], 16)
        return found if found is not None and 1 <= found.seq <= found.total else None

    @property
    def ports(self) -> Ports | None:
        """For which application it is."""
        found = None
        for kind, value in self.elements:
            if kind == _PORTS_8 and len(value) == 2:
                found = Ports(value[0], value[1], 8)
            elif kind == _PORTS_16 and len(value) == 4:
                found = Ports(int.from_bytes(value[:2], "big"), int.from_bytes(value[2:], "big"))
        return found

    @property
    def languages(self) -> tuple[int, int]:
        """The national tables: the locking one, and the one behind an escape; 0 is the default one."""
        last = {kind: value[0] for kind, value in self.elements if kind in (_SINGLE, _LOCKING) and len(value) == 1}
        return last.get(_LOCKING, 0), last.get(_SINGLE, 0)


NO_HEADER = Header()
