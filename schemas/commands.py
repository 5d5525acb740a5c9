"""What the gateway publishes to a terminal: ack, command, progress."""

from typing import Annotated, Literal
from uuid import UUID

from pydantic import BaseModel, ConfigDict, Field

from schemas.units import UInt32, UtcDatetime

__all__ = ["Ack", "Command", "Progress"]


class Ack(BaseModel):
    """The alarm is on disk and people are being told.

    Comes on ``okc/v1/{terminal}/down/ack`` with QoS 0 within milliseconds; a repeat of the same press gets the
    same answer. Stop repeating, and light the lamp "received". ``boot`` and ``seq`` are those of the alarm, null
    when it had none.
    """

    model_config = ConfigDict(
        frozen=True,
        extra="ignore",
        json_schema_extra={
            "examples": [
                {"v": 1, "boot": 3, "seq": 17, "state": "received", "case": "0b0f3f0c-6a52-5f0e-8a55-3f1f0a6f2d11"}
            ]
        },
    )

    v: Annotated[Literal[1], Field(description="Version of this contract.")] = 1
    boot: Annotated[UInt32 | None, Field(description="Restart count of the alarm.")] = None
    seq: Annotated[UInt32 | None, Field(description="Number of the alarm.")] = None
    state: Annotated[Literal["received"], Field(description="More words may follow in later versions.")] = "received"
    case: Annotated[UUID | None, Field(description="The case that this alarm belongs to.")] = None


class Command(BaseModel):
    """The gateway asks the terminal to do something.

    Comes on ``okc/v1/{terminal}/down/command`` with QoS 0 and may come twice. Answer every one on
    ``okc/v1/{terminal}/up/result`` with the same ``id`` (R9); ``refused`` for a name that is not known.
    """

    model_config = ConfigDict(
        frozen=True,
        extra="ignore",
        json_schema_extra={
            "examples": [
                {"v": 1, "id": "c-42", "name": "locate"},
                {
                    "v": 1,
                    "id": "c-43",
                    "name": "configure",
                    "arguments": {"heartbeat_s": 60},
                    "expires_at": "2026-11-22T06:41:00Z",
                },
            ]
        },
    )

    v: Annotated[Literal[1], Field(description="Version of this contract.")] = 1
    id: Annotated[str, Field(max_length=64, description="To be repeated in the result.")]
    name: Annotated[
        Literal["call_back", "dial", "play", "locate", "configure", "self_test"], Field(description="What to do.")
    ]
    arguments: Annotated[
        dict[str, str | int | float | bool], Field(description="What the command needs to know, by name.")
    ] = Field(default_factory=dict)
    expires_at: Annotated[UtcDatetime | None, Field(description="Refuse it later than this. Null: never.")] = None


class Progress(BaseModel):
    """How far help is, for a lamp or a voice at the terminal. Never sent for duress.

    Comes on ``okc/v1/{terminal}/down/progress`` with QoS 0, up to three times; ``n`` tells a repeat from news, and
    what has a smaller one than was seen is old. After ``closed`` nothing follows for this case.
    """

    model_config = ConfigDict(
        frozen=True,
        extra="ignore",
        json_schema_extra={
            "examples": [
                {
                    "v": 1,
                    "case": "0b0f3f0c-6a52-5f0e-8a55-3f1f0a6f2d11",
                    "n": 4711,
                    "state": "coming",
                    "role": "guardian",
                    "minutes": 6,
                }
            ]
        },
    )

    v: Annotated[Literal[1], Field(description="Version of this contract.")] = 1
    case: Annotated[UUID, Field(description="The case that the ack named.")]
    n: Annotated[int, Field(ge=0, description="Grows from one message to the next; a repeat keeps it.")] = 0
    state: Annotated[
        Literal["told", "coming", "arrived", "closed"],
        Field(description="told: somebody knows; coming: somebody is on the way; arrived: is there; closed: over."),
    ]
    role: Annotated[str | None, Field(description="Who is meant, for example guardian.")] = None
    minutes: Annotated[
        int | None, Field(ge=0, le=1440, description="Until arrival.", json_schema_extra={"unit": "min"})
    ] = None
