"""The gateway's own MQTT dialect: topic grammar. Payloads are JSON, see ``schemas.reports``."""

from protocols.okc.topics import (
    ID_PATTERN,
    Down,
    Up,
    down_topic,
    echo_topic,
    is_echo,
    notice_topic,
    parse_up,
    party_user,
    shared,
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
    "echo_topic",
    "is_echo",
    "notice_topic",
    "parse_up",
    "party_user",
    "shared",
    "terminal_publish_topics",
    "terminal_subscribe_filters",
    "up_filter",
    "up_topic",
]
