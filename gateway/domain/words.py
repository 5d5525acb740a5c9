"""Names of events with which a terminal says something about an alarm of its own."""

__all__ = ["CANCEL", "HEARD", "RESTORES"]

CANCEL = "cancel"
"""The person pressed the cancel key. Its value may be the ``seq`` of the alarm that is meant."""

HEARD = "key.ok"
"""The person pressed a key that only says that they are there: they were heard, whatever else is the matter (I7)."""

RESTORES = {"power_restored": "power_lost", "battery_ok": "low_battery", "tamper_cleared": "tamper"}
"""Which technical kind each of these ends."""
