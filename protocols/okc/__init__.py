"""The gateway's own MQTT dialect: topic grammar. Payloads are JSON, see ``schemas.reports``."""

from protocols.okc.topics import (
    ID_PATTERN,
    Down,
    Up,
    down_topic,
    echo_topics,
    notice_topic,
    parse_up,
    party_user,
    terminal_publish_topics,
    terminal_subscribe_filters,
    up_filter,
    up_topic,
)

__all__ = [
    "ID_PATTERN",
    "Down",
    "Up",
    "down_topic",
    "echo_topics",
    "notice_topic",
    "parse_up",
    "party_user",
    "terminal_publish_topics",
    "terminal_subscribe_filters",
    "up_filter",
    "up_topic",
]
