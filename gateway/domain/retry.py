"""When to try a channel again."""

from datetime import timedelta
from random import Random

__all__ = ["LAST_TRY", "TRIES_BEFORE_HELP", "backoff"]

TRIES_BEFORE_HELP = 4
"""Failures in a row, some seven seconds, after which the next channel is taken, and behind the last one the fallback
is called in. The last channel goes on being tried meanwhile."""

LAST_TRY = 20
"""Failures of the last channel, about a quarter of an hour, after which the leg has failed."""

_FIRST_S = 1.0
_LONGEST_S = 60.0


def backoff(tries: int, rng: Random) -> timedelta:
    """Return how long to wait after the `tries`-th failure (counted from 1): 1, 2, 4 … 60 s, each ±25 %.

    The jitter keeps a platform that comes back from being hit by every leg in the same instant.
    """
    seconds = min(_FIRST_S * 2 ** min(tries - 1, 16), _LONGEST_S)
    return timedelta(seconds=seconds * rng.uniform(0.75, 1.25))
