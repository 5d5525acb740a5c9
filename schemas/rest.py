"""The two kinds of bodies of the REST contract, and the fields that many of them share."""

from typing import Annotated

from pydantic import BaseModel, ConfigDict, Field

__all__ = ["FreeText", "In", "Out", "Who"]

Who = Annotated[str, Field(pattern=r"^[A-Za-z0-9._:@-]{1,64}$")]
"""A seat or staff number, a role, or the id of a party: never a person's name, which could not be erased."""

FreeText = Annotated[str, Field(min_length=1, max_length=4000)]


class In(BaseModel):
    """What clients send: a misspelt field is refused and not ignored."""

    model_config = ConfigDict(frozen=True, extra="forbid")


class Out(BaseModel):
    """What clients receive. It may grow: ignore fields that you do not know."""

    model_config = ConfigDict(frozen=True, from_attributes=True)
