"""The REST contract of modems."""

from typing import Annotated, Literal

from pydantic import Field

from schemas.rest import Out
from schemas.units import Dbm, UtcDatetime

__all__ = ["ModemOut"]


class ModemOut(Out):
    """A GSM modem of a gateway."""

    id: Annotated[str, Field(description="Its IMEI, or its port and gateway while that is not known.")]
    gateway: Annotated[str, Field(description="Which gateway looks after it.")]
    state: Annotated[
        Literal["gone", "starting", "searching", "ready", "recovering", "stopped", "dead", "unknown"],
        Field(description="Only a ready one sends. stopped: somebody has to come. unknown: no gateway looks after it."),
    ]
    problem: Annotated[str | None, Field(description="What is wrong, in words.")] = None
    model: str | None = None
    operator: Annotated[str | None, Field(description="The network that it is registered in.")] = None
    signal_dbm: Dbm | None = None
    since: Annotated[UtcDatetime, Field(description="Since when it is in this state.")]
    heard_at: Annotated[UtcDatetime | None, Field(description="When its stored messages were last read.")] = None
    sent_today: Annotated[int, Field(description="Messages that it sent today.")]
    balance: Annotated[float | None, Field(description="What was left on its SIM, in yuan (R24).")] = None
    balance_at: UtcDatetime | None = None
    case_id: Annotated[str | None, Field(description="The technical case of its trouble.")] = None
