"""Topics of the gateway's own MQTT dialect.

    okc/v1/{terminal}/up/alarm | heartbeat | fix | event | result     terminal -> gateway
    okc/v1/{terminal}/down/ack | command | progress                   gateway -> terminal
    okp/v1/{party}/notice                                             gateway -> party's platform

The user name of a terminal is its id, that of a party's platform is ``party~{id}``: a tilde cannot
stand in an id, so the two never meet. Terminals and parties live under different roots for the same reason.
"""

import re
from enum import StrEnum

from protocols.errors import FrameError

ID_PATTERN = r"[A-Za-z0-9_-]{1,64}"
_UP = re.compile(rf"okc/v1/({ID_PATTERN})/up/([a-z]+)")


class Up(StrEnum):
    """What a terminal publishes."""

    ALARM = "alarm"
    HEARTBEAT = "heartbeat"
    FIX = "fix"
    EVENT = "event"
    RESULT = "result"


class Down(StrEnum):
    """What a terminal listens to."""

    ACK = "ack"
    COMMAND = "command"
    PROGRESS = "progress"


_ECHO = "~echo"
_KINDS = {kind.value: kind for kind in Up}


def up_topic(terminal: str, kind: Up) -> str:
    """Return the topic on which `terminal` publishes `kind`."""
    return f"okc/v1/{terminal}/up/{kind.value}"


def down_topic(terminal: str, kind: Down) -> str:
    """Return the topic on which `terminal` hears `kind`."""
    return f"okc/v1/{terminal}/down/{kind.value}"


def up_filter(kind: Up) -> str:
    """Return the subscription filter for `kind` of every terminal."""
    return f"okc/v1/+/up/{kind.value}"


def echo_topic(kind: Up, share: int = 0) -> str:
    """Return the topic on which a gateway speaks to itself: the way of a kind of report, in one of its shares.

    A tilde cannot stand in an id, so no terminal can be there.
    """
    return f"okc/v1/{_ECHO}{f'-{share}' if share else ''}/up/{kind.value}"


def is_echo(topic: str) -> bool:
    """Is `topic` one on which a gateway speaks to itself?"""
    return topic.startswith(f"okc/v1/{_ECHO}")


def shared(topic_filter: str, group: str) -> str:
    """Return the filter under which a broker deals messages out among the sessions of `group`."""
    return f"$share/{group}/{topic_filter}"


def notice_topic(party: str) -> str:
    """Return the topic on which the platform of `party` hears notices."""
    return f"okp/v1/{party}/notice"


def party_user(party: str) -> str:
    """Return the broker's user name for the platform of `party`."""
    return f"party~{party}"


def terminal_publish_topics(terminal: str) -> list[str]:
    """Return every topic that `terminal` may publish to."""
    return [up_topic(terminal, kind) for kind in Up]


def terminal_subscribe_filters(terminal: str) -> list[str]:
    """Return every topic that `terminal` may subscribe to."""
    return [down_topic(terminal, kind) for kind in Down]


def parse_up(topic: str) -> tuple[str, Up]:
    """Split a topic into terminal id and kind of report.

    Raises:
        FrameError: Not a topic on which a terminal may publish.
    """
    match = _UP.fullmatch(topic)
    if match is None or (kind := _KINDS.get(match[2])) is None:
        raise FrameError(f"not a topic of a terminal: {topic[:200]!r}")
    return match[1], kind
