"""What may be wrong with a modem: switched on from outside, while it runs."""

from dataclasses import dataclass, field

__all__ = ["Faults"]


@dataclass(slots=True)
class Faults:
    """What is wrong just now.

    Attributes:
        silent: It says nothing, whatever comes.
        refuses: Lines with which the next commands end that begin with the key.
        noise: So much of what it says is garbage, from 0 to 1.
        slow: Seconds by which answers to commands come late that begin with the key.
        barred: The network takes no message and no call from its SIM, as when the bill was not paid.
        deaf: Nothing from the network reaches it until its radio is off and on, though it says that all is well.
        lost_answers: How many answers to messages get lost though the messages are sent.
        signal: As in +CSQ; 99: unknown.
        state: Of the registration: 1 at home, 0 not, 2 searching, 3 denied.
    """

    silent: bool = False
    refuses: dict[str, list[str]] = field(default_factory=dict)
    slow: dict[str, float] = field(default_factory=dict)
    barred: bool = False
    deaf: bool = False
    noise: float = 0.0
    lost_answers: int = 0
    signal: int = 21
    state: int = 1
