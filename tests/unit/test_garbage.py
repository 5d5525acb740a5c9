"""The collector works in small pieces, and what stays is looked at when nobody waits."""

import asyncio
import gc
from collections.abc import Iterator
from weakref import ref

import pytest

from gateway import garbage


@pytest.fixture(autouse=True)
def as_before() -> Iterator[None]:
    before = gc.get_threshold()
    yield
    gc.set_threshold(*before)
    gc.unfreeze()


class Knot:
    """Something that only the collector can free."""

    def __init__(self) -> None:
        self.me = self


async def test_a_knot_is_freed_in_a_quiet_moment_and_not_before(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(garbage, "_LOOK_EVERY_S", 0.01)
    monkeypatch.setattr(garbage, "_WORTH_IT", 0)
    garbage.in_small_pieces()
    quiet = False
    knot = Knot()
    gc.collect(1)  # it is old now: small pieces leave it alone
    seen = ref(knot)
    del knot
    task = asyncio.ensure_future(garbage.collect_when_quiet(lambda: quiet))
    await asyncio.sleep(0.1)
    assert seen() is not None
    quiet = True
    async with asyncio.timeout(5):
        while seen() is not None:
            await asyncio.sleep(0.01)
    task.cancel()
    await asyncio.wait({task})
