"""The REST contract: how the journal of a case stands, and the signed checkpoints that vouch for it."""

from typing import Annotated
from uuid import UUID

from pydantic import BaseModel, ConfigDict, Field

from schemas.units import UtcDatetime

__all__ = ["BreakOut", "CheckpointOut", "CoverOut", "JournalKeyOut", "ProofOut"]

_LINE = (
    '{"v":1,"number":7,"at":"2026-11-22T06:32:00.000000Z","prev":"6fd0…","heads":'
    '[["0b0f3f0c-6a52-5f0e-8a55-3f1f0a6f2d11",14,"9a1c…"]],"key":"5a0e…","signature":"kJ0…"}'
)


class _Out(BaseModel):
    model_config = ConfigDict(frozen=True, from_attributes=True)


class CheckpointOut(_Out):
    """A checkpoint of the journal. Keep ``line`` as it is, byte for byte: it is what was signed."""

    model_config = ConfigDict(
        json_schema_extra={"examples": [{"number": 7, "at": "2026-11-22T06:32:00.000000Z", "line": _LINE}]}
    )

    number: Annotated[int, Field(ge=1)]
    at: UtcDatetime
    line: Annotated[str, Field(description="JSON: the heads of the chains that grew, and the signature.")]


class JournalKeyOut(_Out):
    """The key with which anybody can check the signatures of checkpoints."""

    algorithm: Annotated[str, Field(description="Ed25519 (RFC 8032).")] = "ed25519"
    name: Annotated[str, Field(description="What checkpoints call it: the first 8 bytes of its SHA-256, in hex.")]
    public_key: Annotated[str, Field(description="The 32 bytes of the key, in base64.")]
    pem: str


class BreakOut(_Out):
    """One place where a chain does not hold."""

    entry: Annotated[int, Field(ge=1, description="Number of the entry.")]
    what: Annotated[str, Field(description="What is wrong with it.")]


class CoverOut(_Out):
    """The newest checkpoint that names the case."""

    number: int
    at: UtcDatetime
    entries: Annotated[int, Field(description="Entries that it vouches for; later ones wait for the next.")]
    line: str


class ProofOut(_Out):
    """How the journal of a case stands."""

    case: UUID
    entries: int
    head: Annotated[str, Field(description="SHA-256 of the newest entry, in hex.")]
    erased: Annotated[int, Field(description="Entries that nobody can read any more; they prove all the same.")]
    intact: bool
    breaks: list[BreakOut]
    checkpoint: CoverOut | None = None
    checkpoint_flaws: Annotated[
        list[str],
        Field(description="What was done to the checkpoints in the database, as far as they concern the case."),
    ]
