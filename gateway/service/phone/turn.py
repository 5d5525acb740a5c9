"""One thing that came over the phone network while it is dealt with, and what came of it."""

from collections.abc import Sequence
from dataclasses import dataclass, field
from uuid import UUID

from gateway.domain.outbox import DueNotice
from gateway.store.directory import Directory
from gateway.store.phone_in import Came
from gateway.store.pool import Connection
from gateway.store.telemetry import StateRow

__all__ = ["Handled", "Reply", "Turn"]


@dataclass(frozen=True, slots=True)
class Turn:
    """What is being dealt with, in which transaction, and in whose name what it makes due is sent."""

    conn: Connection
    directory: Directory
    came: Came
    worker: int | None

    @property
    def peer(self) -> bytes | None:
        """Keyed hash of the number that it came from."""
        return None if self.came.peer is None else bytes(self.came.peer)


@dataclass(frozen=True, slots=True)
class Reply:
    """What somebody is to be written back."""

    number: str
    text: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Handled:
    """What came of something that came. ``notices`` have to be sent now; ``state`` is of a terminal that was heard."""

    outcome: str
    case_id: UUID | None = None
    notices: Sequence[DueNotice] = ()
    replies: Sequence[Reply] = field(default=())
    state: StateRow | None = None
    words: tuple[str, str] | None = None
    """Number and text, where nobody knows whose they are."""
