"""How long a modem is waited for. All of it is seconds of our own clock."""

from dataclasses import dataclass

__all__ = ["Pace"]


@dataclass(frozen=True, slots=True, kw_only=True)
class Pace:
    """Times of one modem. The defaults are for real ones; a simulated network may go faster.

    Attributes:
        find_s: How often a port is looked for that is not there.
        command_s: How long most commands take at most.
        list_s: How long a full store may take to be read.
        send_s: How long the network may take to accept a message.
        beside_s: How long it may take while a call goes on.
        look_s: How often signal and registration are asked for.
        sweep_s: How often the stores are read, whatever was told of them.
        sim_s: How long a SIM may be busy after power.
        register_s: How long it may be without a network before its radio is started anew.
        boot_s: How long it takes to come back after a reset.
        dead_s: How often one that is given up is tried.
        healthy_s: After so long without trouble the next trouble begins at the first rung again.
        pause_s: How long one that failed several times sends nothing.
        retry_s: How long a message waits that could not be sent, the first time.
        ring_s: How long a call may ring.
        talk_s: How long a call may last that was picked up.
        poll_s: How often a call is looked at.
        self_test_s: How often one that knows its own number writes to itself.
        echo_s: How long that message may take to come back.
    """

    find_s: float = 0.5
    command_s: float = 5.0
    list_s: float = 30.0
    send_s: float = 90.0
    beside_s: float = 30.0
    look_s: float = 20.0
    sweep_s: float = 30.0
    sim_s: float = 60.0
    register_s: float = 180.0
    boot_s: float = 30.0
    dead_s: float = 60.0
    healthy_s: float = 600.0
    pause_s: float = 60.0
    retry_s: float = 5.0
    ring_s: float = 35.0
    talk_s: float = 20.0
    poll_s: float = 1.0
    self_test_s: float = 86_400.0
    echo_s: float = 900.0
