"""Why a modem or the network did not do something, and what is to be done about it.

Numbers and meanings: 3GPP TS 27.007, 9.2 (CME); TS 27.005, 3.2.5, TS 24.011, annex E, and TS 23.040, 9.2.3.22 (CMS);
TS 23.040, 9.2.3.15 (status of a message). What modules do beside that is from their manuals.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from enum import Enum, auto

from protocols.gsm.at import Final, Outcome

__all__ = ["Action", "Cause", "Status", "cause_of", "status_of"]


class Action(Enum):
    """What is to be done."""

    STOP = auto()
    """Somebody has to come: trying again makes it worse, as with a wrong PIN."""

    NO_SIM = auto()
    """Look again now and then: there is no SIM, or it does not work."""

    WAIT = auto()
    """The same again a little later, on this modem."""

    ELSEWHERE = auto()
    """The same again on another modem, and on this one later."""

    OTHER_SIM = auto()
    """Not with this SIM: another modem, and somebody should know."""

    RECIPIENT = auto()
    """Nobody can send to this number."""

    CLEAR_STORE = auto()
    """Read and delete what is stored, then again."""

    SET_CENTRE = auto()
    """The service centre is missing."""

    DONE = auto()
    """It was done before, or there was nothing to do."""

    OURS = auto()
    """We wrote something that is wrong: trying the same again is of no use."""


@dataclass(frozen=True, slots=True)
class Cause:
    """``text`` is for people at the rack."""

    text: str
    action: Action


_CME: Mapping[int, Cause] = {
    3: Cause("the modem does not allow it", Action.WAIT),
    4: Cause("the modem does not know the command", Action.OURS),
    10: Cause("no SIM is in the modem", Action.NO_SIM),
    11: Cause("the SIM wants its PIN", Action.STOP),
    12: Cause("the SIM is locked and wants its PUK", Action.STOP),
    13: Cause("the SIM does not work", Action.NO_SIM),
    14: Cause("the SIM is busy", Action.WAIT),
    15: Cause("the SIM is a wrong one", Action.STOP),
    16: Cause("the PIN is wrong: after three times the SIM is locked", Action.STOP),
    17: Cause("the SIM wants its second PIN", Action.STOP),
    18: Cause("the SIM wants its second PUK", Action.STOP),
    20: Cause("the store is full", Action.CLEAR_STORE),
    21: Cause("there is no such place in the store", Action.DONE),
    22: Cause("nothing was found", Action.DONE),
    23: Cause("the store does not work", Action.WAIT),
    30: Cause("no network", Action.ELSEWHERE),
    31: Cause("the network did not answer", Action.ELSEWHERE),
    32: Cause("the network allows emergency calls only", Action.OTHER_SIM),
    50: Cause("the modem does not understand the parameters", Action.OURS),
    100: Cause("an error that the modem has no name for", Action.WAIT),
    103: Cause("the network refuses this SIM", Action.OTHER_SIM),
    106: Cause("the network refuses this SIM", Action.OTHER_SIM),
    107: Cause("the network refuses its services to this SIM", Action.OTHER_SIM),
    111: Cause("the network is not allowed for this SIM", Action.OTHER_SIM),
    112: Cause("the area is not allowed for this SIM", Action.OTHER_SIM),
    113: Cause("roaming is not allowed for this SIM", Action.OTHER_SIM),
    515: Cause("the modem is busy", Action.WAIT),
}

_CMS: Mapping[int, Cause] = {
    1: Cause("there is no such number", Action.RECIPIENT),
    8: Cause("the operator bars this SIM", Action.OTHER_SIM),
    10: Cause("calls are barred", Action.OTHER_SIM),
    21: Cause("the network refused the message", Action.ELSEWHERE),
    27: Cause("the recipient cannot be reached", Action.ELSEWHERE),
    28: Cause("the network does not know this SIM", Action.OTHER_SIM),
    29: Cause("the network refused the facility", Action.ELSEWHERE),
    30: Cause("the network does not know this SIM", Action.OTHER_SIM),
    38: Cause("the network is out of order", Action.ELSEWHERE),
    41: Cause("the network failed for a moment", Action.ELSEWHERE),
    42: Cause("the network is congested", Action.ELSEWHERE),
    47: Cause("the network has no resources", Action.ELSEWHERE),
    50: Cause("this SIM may not send messages", Action.OTHER_SIM),
    69: Cause("the network does not offer that", Action.OTHER_SIM),
    81: Cause("an invalid reference", Action.WAIT),
    127: Cause("the network does not say why", Action.ELSEWHERE),
    0x90: Cause("the recipient's phone does not know this coding", Action.OURS),
    0xC0: Cause("the service centre is busy", Action.ELSEWHERE),
    0xC1: Cause("the service centre does not serve this SIM", Action.OTHER_SIM),
    0xC2: Cause("the service centre failed", Action.ELSEWHERE),
    0xC3: Cause("the service centre does not know the number", Action.RECIPIENT),
    0xC4: Cause("the number is barred", Action.RECIPIENT),
    0xC5: Cause("the service centre has this message already", Action.DONE),
    0xD0: Cause("the SIM is full", Action.CLEAR_STORE),
    0xD3: Cause("the store is full", Action.CLEAR_STORE),
    300: Cause("the modem failed", Action.WAIT),
    301: Cause("the modem keeps its message service for itself", Action.ELSEWHERE),
    302: Cause("the modem does not allow it", Action.WAIT),
    303: Cause("the modem cannot do it", Action.OURS),
    304: Cause("the modem does not understand the message: its length is wrong", Action.OURS),
    305: Cause("the modem does not understand the parameters", Action.OURS),
    310: Cause("no SIM is in the modem", Action.NO_SIM),
    311: Cause("the SIM wants its PIN", Action.STOP),
    312: Cause("the SIM wants the code of its phone", Action.STOP),
    313: Cause("the SIM does not work", Action.NO_SIM),
    314: Cause("the SIM is busy", Action.WAIT),
    315: Cause("the SIM is a wrong one", Action.STOP),
    316: Cause("the SIM is locked and wants its PUK", Action.STOP),
    320: Cause("the store does not work", Action.WAIT),
    321: Cause("there is no such place in the store", Action.DONE),
    322: Cause("the store is full", Action.CLEAR_STORE),
    330: Cause("the number of the service centre is missing", Action.SET_CENTRE),
    331: Cause("no network", Action.ELSEWHERE),
    332: Cause("the network did not answer", Action.ELSEWHERE),
    340: Cause("nothing was waiting to be acknowledged", Action.DONE),
    500: Cause("an error that the modem has no name for: no credit, too fast, or refused", Action.ELSEWHERE),
    512: Cause("the modem broke off", Action.ELSEWHERE),
    513: Cause("the modem cannot store it", Action.CLEAR_STORE),
    514: Cause("the state of the message is wrong", Action.OURS),
    515: Cause("the modem is busy", Action.WAIT),
    516: Cause("the length of the message is wrong", Action.OURS),
    517: Cause("the message has a wrong character", Action.OURS),
    521: Cause("the modem took too long", Action.WAIT),
    522: Cause("not allowed for the moment", Action.WAIT),
    532: Cause("the SIM is not ready", Action.WAIT),
    535: Cause("the modem is busy", Action.WAIT),
    538: Cause("an invalid parameter", Action.OURS),
}
_BUGS = frozenset({95, 96, 97, 98, 99, 111})
"""Of the network: the message is not as it should be."""

_WORDS = (
    ("sim not inserted", 10),
    ("sim pin required", 11),
    ("sim puk required", 12),
    ("sim failure", 13),
    ("sim busy", 14),
    ("sim wrong", 15),
    ("incorrect password", 16),
    ("memory full", 20),
    ("invalid index", 21),
    ("not found", 22),
    ("no network service", 30),
    ("network timeout", 31),
    ("emergency calls only", 32),
)


def cause_of(final: Final) -> Cause:
    """Return why a command was not done."""
    table = _CMS if final.area == "CMS" else _CME
    if final.code is not None:
        known = table.get(final.code)
        if known is not None:
            return known
        if final.area == "CMS" and final.code in _BUGS:
            return Cause(f"the network does not understand the message ({final.code})", Action.OURS)
        return Cause(f"{final.area} error {final.code}", Action.ELSEWHERE if final.area == "CMS" else Action.WAIT)
    text = final.text.lower()
    for words, code in _WORDS:
        if words in text:
            return _CME[code]
    if final.outcome is Outcome.ERROR:
        return Cause(final.text or "the modem only says ERROR", Action.WAIT)
    return Cause(final.outcome.name.lower().replace("_", " "), Action.WAIT)


class Status(Enum):
    """How far a message is."""

    DELIVERED = auto()
    UNCONFIRMED = auto()
    TRYING = auto()
    FAILED = auto()


_ENDED_WELL, _TRYING, _ENDED_FROM, _FOR_NOW_FROM, _CENTRES_OWN = 0x20, 0x20, 0x40, 0x60, 0x80


def status_of(octet: int) -> tuple[Status, str]:
    """Return what the status of a report means: how far the message is, and words for it."""
    if octet == 0:
        return Status.DELIVERED, "it is on the phone"
    if octet < _ENDED_WELL:
        words = {1: "it was passed on, and nobody says whether it arrived", 2: "another message took its place"}
        return Status.UNCONFIRMED, words.get(octet, "it came to an end of the service centre's own")
    if octet < _ENDED_FROM:
        return Status.TRYING, f"the service centre goes on trying: {_STATUS.get(octet & 0x1F, 'it does not say why')}"
    if octet < _FOR_NOW_FROM:
        return Status.FAILED, _PERMANENT.get(octet, "it cannot be delivered")
    if octet < _CENTRES_OWN:
        return Status.FAILED, f"the service centre has given up: {_STATUS.get(octet & 0x1F, 'it does not say why')}"
    return Status.FAILED, "a status that is reserved"


_STATUS = {
    0: "congestion",
    1: "the phone is busy",
    2: "the phone does not answer",
    3: "the service was refused",
    4: "the quality is not available",
    5: "the phone failed",
}
_PERMANENT = {
    0x40: "the phone failed",
    0x41: "the destination does not fit",
    0x42: "the phone refused it",
    0x43: "it cannot be had",
    0x44: "the quality is not available",
    0x45: "the networks do not work together",
    0x46: "its time was over before the phone could be reached",
    0x47: "it was deleted by its sender",
    0x48: "it was deleted by the service centre",
    0x49: "the message does not exist",
}
