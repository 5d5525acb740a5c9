"""Lists page by page: a cursor says where the next part begins, to us and to nobody else."""

import base64
import binascii
from collections.abc import Callable
from dataclasses import dataclass
from typing import Generic, TypeVar

from gateway.domain.case import DomainError

__all__ = ["NOT_OURS", "BadCursor", "Page", "page_of", "read_cursor", "write_cursor"]

T = TypeVar("T")

NOT_OURS = "The cursor was not made by this gateway: begin without one."


class BadCursor(DomainError):
    """A cursor that we did not make."""


@dataclass(frozen=True, slots=True)
class Page(Generic[T]):
    """Part of a list; ``cursor`` asks for the next part, None at the end."""

    items: list[T]
    cursor: str | None


def write_cursor(text: str) -> str:
    """Return a cursor that says `text` to us and nothing to others."""
    return base64.urlsafe_b64encode(text.encode()).rstrip(b"=").decode()


def read_cursor(cursor: str | None) -> str | None:
    """Return what `write_cursor` wrote, None without a cursor.

    Raises:
        BadCursor: Not a cursor of ours.
    """
    if cursor is None:
        return None
    try:
        text = base64.urlsafe_b64decode(cursor + "=" * (-len(cursor) % 4)).decode("ascii")
    except (binascii.Error, ValueError) as exc:
        raise BadCursor(NOT_OURS) from exc
    if not text.isprintable():
        raise BadCursor(NOT_OURS)
    return text


def page_of(items: list[T], limit: int, mark: Callable[[T], str]) -> Page[T]:
    """Make a page of up to `limit` of `items`, which were read with one more to see whether there are any."""
    return Page(items[:limit], write_cursor(mark(items[limit - 1])) if len(items) > limit else None)
