"""Checkpoints: the heads of the chains, signed, so that who can write the whole database cannot write history (D15).

    {"v":1,"number":7,"at":"2026-11-22T06:32:00.000000Z","prev":"…","heads":[["CASE",12,"HEAD"],…],"key":"…",
     "signature":"…"}

One line of JSON without spaces. ``heads`` names every case whose chain grew since the checkpoint before, with the
number and the hash (hex) of its newest entry. ``prev`` is the SHA-256 (hex) of the whole line before, 64 zeros in the
first. The signature (Ed25519, base64) is over the bytes in front of ``,"signature":``; ``key`` tells which key made it.
"""

import base64
import binascii
import hashlib
import json
from collections.abc import Callable, Collection, Iterable, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime
from typing import Any
from uuid import UUID

__all__ = ["FIRST", "Checkpoint", "Examiner", "Heads", "Signed", "digest", "parse", "seal", "unsigned"]

FIRST = "0" * 64
"""What the first checkpoint names as the line before it."""

_MARK = b',"signature":"'

Signed = Callable[[bytes, bytes, str], bool]
"""Does this signature (second) of these bytes (first) come from our key, which the line calls so (third)?"""


@dataclass(frozen=True, slots=True, kw_only=True)
class Checkpoint:
    """One checkpoint as its line says. ``heads`` are case, number of the newest entry, its hash."""

    number: int
    at: datetime
    prev: str
    heads: tuple[tuple[UUID, int, bytes], ...]
    key: str
    line: bytes

    def signed(self, check: Signed) -> bool:
        """Is the signature right?"""
        text, _, rest = self.line.rpartition(_MARK)
        try:
            signature = base64.b64decode(rest.removesuffix(b'"}'), validate=True)
        except binascii.Error:
            return False
        # The last letter of base64 has bits that mean nothing: only one way to write a line is ours.
        return seal(text, signature) == self.line and check(text, signature, self.key)


def digest(line: bytes) -> str:
    """Return what the checkpoint after `line` names as the one before it."""
    return hashlib.sha256(line).hexdigest()


def unsigned(*, number: int, at: datetime, prev: str, heads: Sequence[tuple[UUID, int, bytes]], key: str) -> bytes:
    """Return the bytes of a checkpoint that are signed."""
    value = {
        "v": 1,
        "number": number,
        "at": at.astimezone(UTC).isoformat(timespec="microseconds").replace("+00:00", "Z"),
        "prev": prev,
        "heads": [[str(case), n, head.hex()] for case, n, head in heads],
        "key": key,
    }
    return json.dumps(value, separators=(",", ":")).encode()[:-1]


def seal(text: bytes, signature: bytes) -> bytes:
    """Return the whole line, without its end."""
    return text + _MARK + base64.b64encode(signature) + b'"}'


def parse(line: bytes) -> Checkpoint:
    """Read a line. Whether it is genuine is another question.

    Raises:
        ValueError: Not a checkpoint.
    """
    try:
        value: Any = json.loads(line)
        if value["v"] != 1 or list(value)[-1] != "signature" or line.count(_MARK) != 1:
            raise ValueError("not in the form of version 1")
        return Checkpoint(
            number=int(value["number"]),
            at=datetime.fromisoformat(value["at"]),
            prev=str(value["prev"]),
            heads=tuple((UUID(case), int(n), bytes.fromhex(head)) for case, n, head in value["heads"]),
            key=str(value["key"]),
            line=line,
        )
    except (ValueError, TypeError, KeyError, AttributeError, IndexError, RecursionError) as exc:
        raise ValueError("not a checkpoint") from exc


class Heads:
    """What signed checkpoints say of many chains, packed: there may be millions."""

    _SIZE = 48

    def __init__(self) -> None:
        """Begin with nothing."""
        self._packed: dict[UUID, bytearray] = {}

    def add(self, checkpoint: Checkpoint, *, only: Collection[UUID] | None = None) -> None:
        """Take what a genuine checkpoint says, of every case or of those in `only`."""
        for case, n, head in checkpoint.heads:
            if (only is None or case in only) and len(head) == 32:
                packed = self._packed.setdefault(case, bytearray())
                packed += n.to_bytes(8, "big", signed=True) + checkpoint.number.to_bytes(8, "big", signed=True) + head

    def cases(self) -> Collection[UUID]:
        """Return every case that is named."""
        return self._packed.keys()

    def of(self, case: UUID) -> list[tuple[int, bytes, int]]:
        """Return of a case what is known: number of the entry, its hash, number of the checkpoint; each once."""
        packed = bytes(self._packed.get(case, b""))
        parts = {packed[start : start + self._SIZE] for start in range(0, len(packed), self._SIZE)}
        return sorted(
            (int.from_bytes(part[:8], "big", signed=True), part[16:], int.from_bytes(part[8:16], "big", signed=True))
            for part in parts
        )


@dataclass(slots=True)
class Examiner:
    """Reads the checkpoints of one place in their order and finds what was removed, altered, reordered or forged.

    Whatever is genuine is told to `heads`, also behind a flaw: one bad line does not take away the proof of the others.
    `whole` says that the place holds all of them from the first on, and not only a part.
    """

    place: str
    check: Signed
    heads: Heads
    only: Collection[UUID] | None = None
    whole: bool = True
    flaws: list[str] = field(default_factory=list)
    known: dict[int, str] = field(default_factory=dict)
    newest: Checkpoint | None = None
    _number: int = 0
    _digest: str = FIRST
    _genuine: bool = True

    def read(self, lines: Iterable[bytes]) -> None:
        """Examine the next lines. A flaw ends nothing."""
        for line in lines:
            try:
                self._follow(parse(line))
            except ValueError:
                self._flaw(f"a line behind checkpoint {self._number} is no checkpoint")

    def _flaw(self, what: str) -> None:
        self.flaws.append(f"{self.place}: {what}")

    def _follow(self, new: Checkpoint) -> None:
        genuine = new.signed(self.check)
        expected = self._number + 1
        if self._number == 0 and not self.whole:
            expected, self._digest = new.number, new.prev
        if not genuine:
            self._flaw(f"checkpoint {new.number} was altered or is not ours: its signature is wrong")
        elif new.number > expected:
            gap = f"s {expected} to {new.number - 1} are" if new.number > expected + 1 else f" {expected} is"
            self._flaw(f"checkpoint{gap} missing")
        elif new.number < expected:
            self._flaw(f"checkpoint {new.number} stands behind checkpoint {self._number}: the order was changed")
        elif new.prev != self._digest and self._genuine:
            self._flaw(f"checkpoint {new.number} does not follow the one before it: another one stood there")
        if genuine:
            self.known.setdefault(new.number, digest(new.line))
            self.heads.add(new, only=self.only)
        if not genuine or new.number >= expected:
            self._number = new.number if genuine else expected
            self._digest, self._genuine = digest(new.line), genuine
            self.newest = new if genuine else self.newest
