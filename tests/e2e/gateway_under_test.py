"""The real gateway, told by ``KILL_AT=step:n`` to kill itself -9 at the n-th time it passes a step.

Steps: received, kept, committed, acknowledged, submitted, told, sending, sent; of modems: sms_read, sms_kept,
sms_handled, sms_deleted, sms_sending, sms_sent. ``PACE``: times of modems, as JSON.
"""

import asyncio
import json
import os
import signal

import uvloop

from gateway.app import run
from gateway.config import load
from gateway.logs import set_up
from gateway.modems.pace import Pace


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
        runner.run(run(settings, observe=observe, pace=Pace(**json.loads(os.environ.get("PACE", "{}")))))


if __name__ == "__main__":
    main()
