"""Logs: one line an entry, fields at the end, never a name, a phone number, a secret or a message's text."""

import logging
import sys

__all__ = ["set_up"]

_STANDARD = frozenset(vars(logging.makeLogRecord({}))) | {"message", "asctime", "taskName"}


class _Fields(logging.Formatter):
    def format(self, record: logging.LogRecord) -> str:
        line = super().format(record)
        fields = {name: value for name, value in vars(record).items() if name not in _STANDARD}
        return line + "".join(f" {name}={value}" for name, value in fields.items())


def set_up(level: str) -> None:
    """Log to standard error from `level` on."""
    handler = logging.StreamHandler(sys.stderr)
    handler.setFormatter(_Fields("%(asctime)s.%(msecs)03d %(levelname)s %(name)s %(message)s", "%Y-%m-%dT%H:%M:%S"))
    logging.basicConfig(level=level.upper(), handlers=[handler], force=True)
    for noisy in ("asyncio", "aiomqtt", "mqtt", "psycopg.pool"):
        logging.getLogger(noisy).setLevel(logging.WARNING)
