"""What a terminal can be asked to do, and with which arguments (R9)."""

import re
from collections.abc import Mapping

from gateway.domain.case import StateConflict

__all__ = ["check_arguments"]

_NUMBER = re.compile(r"\+?[0-9]{3,15}")
_SECONDS = {"heartbeat_s": (10, 86_400), "fix_s": (5, 86_400)}


def check_arguments(name: str, arguments: Mapping[str, str | int | float | bool]) -> None:
    """Refuse what no terminal could carry out.

    Raises:
        StateConflict: An argument is missing, unknown or out of range.
    """
    known = {"dial": {"number"}, "play": {"text"}, "configure": set(_SECONDS)}.get(name, set())
    if unknown := set(arguments) - known:
        raise StateConflict(f"{name} knows no argument {min(unknown)}; it takes {', '.join(sorted(known)) or 'none'}.")
    match name:
        case "dial" if not _NUMBER.fullmatch(str(arguments.get("number", ""))):
            raise StateConflict("dial needs a number of 3 to 15 digits.")
        case "play" if not 0 < len(str(arguments.get("text", ""))) <= 500:
            raise StateConflict("play needs a text of 1 to 500 characters.")
        case "configure" if not arguments:
            raise StateConflict(f"configure needs at least one of {', '.join(_SECONDS)}.")
        case "configure":
            for argument, value in arguments.items():
                lowest, highest = _SECONDS[argument]
                if isinstance(value, bool) or not isinstance(value, int) or not lowest <= value <= highest:
                    raise StateConflict(f"{argument} is a whole number from {lowest} to {highest}.")
