"""The real gateway, told by ``KILL_AT=step:n`` to kill itself -9 at the n-th time it passes a step.

Steps: received, kept, committed, acknowledged, submitted, told, sending, sent.
"""

import asyncio
import os
import signal

import uvloop

from gateway.app import run
from gateway.config import load
from gateway.logs import set_up


def main() -> None:
    step, _, count = os.environ.get("KILL_AT", "never:1").partition(":")
    left = int(count)

    def observe(passed: str) -> None:
        nonlocal left
        if passed == step:
            left -= 1
            if left == 0:
                os.kill(os.getpid(), signal.SIGKILL)

    settings = load()
    set_up(settings.log_level)
    with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
        runner.run(run(settings, observe=observe))


if __name__ == "__main__":
    main()
