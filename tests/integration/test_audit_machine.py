"""The auditor beside the state machine of rescues: whatever happens, once everybody has acted nothing is amiss (I3)."""

from collections.abc import Iterator
from typing import ClassVar

import pytest
from hypothesis import strategies as st
from hypothesis.stateful import initialize, invariant, rule, run_state_machine_as_test

from gateway.audit.auditor import Auditor
from gateway.keyring import Keyring
from gateway.store.pool import open_clocked_pool
from tests.integration.test_rescue_machine import Plant, Rescue, _settings

LIVES, STEPS = 25, 40


class Audited(Rescue):
    """Every life of two homes, looked at after each thing that happens.

    Only a clock that goes back is left out of it: what was sent before a closure then seems to come after it.
    """

    auditor: ClassVar[Auditor]
    rounds: ClassVar[int] = 0

    @initialize()
    def forget_findings(self) -> None:
        self.plant.admin.execute("TRUNCATE finding")

    @rule(seconds=st.just(0))
    def the_clock_goes_back(self, seconds: int) -> None:
        self._act()

    @invariant()
    def nothing_is_amiss(self) -> None:
        if not hasattr(self, "latest"):
            return
        type(self).rounds += 1
        self.plant.admin.execute("UPDATE worker SET seen_at = clock_timestamp() + interval '1 minute'")
        seen = self.plant.run(self.auditor.round()).kept.open
        # That nobody can be reached is so while every channel is broken, and says nothing of the gateway.
        wrong = [one for one in seen if one.kind != "nobody_reached" or not self.dead]
        assert [(one.kind, one.words["en"], one.detail) for one in wrong] == []


@pytest.fixture
def plant(database: str) -> Iterator[Plant]:
    opened = Plant(database)
    yield opened
    opened.close()


@pytest.mark.timeout(600)
def test_whatever_happens_the_auditor_finds_nothing_once_everybody_acted(plant: Plant, database: str) -> None:
    pool = plant.run(plant.stack.enter_async_context(open_clocked_pool(database, clock=lambda: plant.desk.now)))
    auditor = Auditor(pool, Keyring(bytes(range(32))), every_s=5)
    machine = type("AuditedPlant", (Audited,), {"plant": plant, "auditor": auditor})
    run_state_machine_as_test(machine, settings=_settings(LIVES, STEPS))
    assert machine.rounds >= LIVES * STEPS / 2
