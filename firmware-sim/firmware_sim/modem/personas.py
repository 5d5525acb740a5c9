"""What modules of different makers say of themselves, and how they differ."""

from dataclasses import dataclass, field

__all__ = ["A7670", "EC25", "PERSONAS", "SIM800", "Persona"]


@dataclass(frozen=True, slots=True, kw_only=True)
class Persona:
    """One kind of module.

    Attributes:
        booting: What it says of itself after power or a reset, with the seconds after which it does.
        notify: Numbers that +CNMI allows for its five parameters.
        stores: Stores and how many messages each holds.
        empty_place: Does reading an empty place end with an error, and not just with OK?
        said_of_calls: What it says unasked while a call goes on, by state: dialling, ringing, active, ended.
        said_of_keys: How it tells of a key that the other side of a call presses.
        reset: The command that restarts it beside ``AT+CFUN=1,1``.
    """

    name: str
    maker: str
    model: str
    firmware: str
    booting: tuple[tuple[float, str], ...]
    notify: tuple[str, ...]
    stores: dict[str, int] = field(default_factory=lambda: {"SM": 20, "ME": 50})
    empty_place: bool = True
    said_of_calls: dict[str, tuple[str, ...]] = field(default_factory=dict)
    said_of_keys: str = "+DTMF:"
    reset: str = ""


SIM800 = Persona(
    name="sim800",
    maker="SIMCOM_Ltd",
    model="SIMCOM_SIM800C",
    firmware="Revision:1418B02SIM800C24",
    booting=((0.2, "RDY"), (0.4, "+CFUN: 1"), (0.8, "+CPIN: READY"), (1.5, "Call Ready"), (2.0, "SMS Ready")),
    notify=("(0-3)", "(0-3)", "(0,2)", "(0,1)", "(0,1)"),
    empty_place=False,
    said_of_calls={"ringing": ("MO RING",), "active": ("MO CONNECTED",), "ended": ("NO CARRIER",)},
    reset="AT+CPOWD=1",
)
A7670 = Persona(
    name="a7670",
    maker="INCORPORATED",
    model="A7670E-FASE",
    firmware="A011B07A7670M7",
    booting=((0.2, "*ATREADY: 1"), (0.6, "+CPIN: READY"), (1.2, "SMS DONE"), (1.5, "PB DONE")),
    notify=("(0-2)", "(0-3)", "(0,2)", "(0-2)", "(0,1)"),
    said_of_calls={"active": ("VOICE CALL: BEGIN",), "ended": ("VOICE CALL: END: 000007", "NO CARRIER")},
    said_of_keys="+RXDTMF:",
    reset="AT+CRESET",
)
EC25 = Persona(
    name="ec25",
    maker="Quectel",
    model="EC25",
    firmware="EC25EFAR06A06M4G",
    booting=(
        (0.2, "RDY"),
        (0.6, "+CPIN: READY"),
        (0.8, "+QUSIM: 1"),
        (1.2, "+QIND: SMS DONE"),
        (1.4, "+QIND: PB DONE"),
    ),
    notify=("(0-2)", "(0-3)", "(0,2)", "(0-2)", "(0,1)"),
    stores={"ME": 255, "SM": 40, "MT": 295},
    said_of_calls={"ended": ("NO CARRIER",)},
    said_of_keys="+QTONEDET:",
    reset="AT+QPOWD",
)

PERSONAS = {persona.name: persona for persona in (SIM800, A7670, EC25)}
