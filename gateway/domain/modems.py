"""What a modem can be in, and how far a call is."""

from enum import StrEnum

__all__ = ["CallState", "ModemState"]


class ModemState(StrEnum):
    """``READY`` alone can send. ``STOPPED``: somebody has to come, as for a wrong PIN."""

    GONE = "gone"
    STARTING = "starting"
    SEARCHING = "searching"
    READY = "ready"
    RECOVERING = "recovering"
    STOPPED = "stopped"
    DEAD = "dead"


class CallState(StrEnum):
    """How far a call is, and how it ended. Picked up is not heard (I7): a machine may have done it."""

    DIALLING = "dialling"
    RINGING = "ringing"
    PICKED_UP = "picked_up"
    HUNG_UP = "hung_up"
    BUSY = "busy"
    NO_ANSWER = "no_answer"
    FAILED = "failed"
