"""Working days in China: the holidays library, and what a site's own calendar says instead (R21)."""

import json
from collections.abc import Mapping
from datetime import date
from pathlib import Path

import holidays

__all__ = ["Workdays"]


class Workdays:
    """Says which days are worked. The State Council moves days each year; a file can bring that before a release does.

    The file is JSON: a date to true (worked) or false (off), as ``{"2027-02-06": true, "2027-02-08": false}``.
    """

    def __init__(self, country: str = "CN", *, changes: Mapping[date, bool] | None = None) -> None:
        """Use the calendar of `country`, with `changes` before it."""
        self._calendar = holidays.country_holidays(country)
        self._changes = dict(changes or {})

    @classmethod
    def load(cls, file: Path | None) -> "Workdays":
        """Return the calendar with what `file` says, if there is one.

        Raises:
            ValueError: The file is not what it should be.
        """
        if file is None:
            return cls()
        try:
            told = json.loads(file.read_text(encoding="utf-8"))
            changes = {date.fromisoformat(day): worked for day, worked in told.items()}
        except (OSError, ValueError, AttributeError, TypeError) as exc:
            raise ValueError(f"{file} is not a calendar, a JSON object of dates to true or false: {exc}") from exc
        if not all(isinstance(worked, bool) for worked in changes.values()):
            raise ValueError(f"{file} is not a calendar: every date has true (worked) or false (off)")
        return cls(changes=changes)

    def is_working_day(self, day: date) -> bool:
        """Is this day worked?"""
        return self._changes.get(day, self._calendar.is_working_day(day))
