"""Whatever happens to a virtual terminal: no press is forgotten, and none is repeated under other numbers."""

from datetime import UTC, datetime, timedelta
from random import Random

from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, precondition, rule

from firmware_sim.terminal import Lost, Output, Pressed, PressKey, Publish, Received, Terminal, TerminalConfig
from protocols.okc import Down, Up, down_topic, up_topic
from schemas.commands import Ack
from schemas.reports import AlarmReport

ID = "t-1"

LONGEST = timedelta(seconds=10)


class Person(RuleBasedStateMachine):
    """A person with a terminal, a line that comes and goes, and a gateway that answers when it likes."""

    def __init__(self) -> None:
        super().__init__()
        self.now = datetime(2026, 1, 1, tzinfo=UTC)
        config = TerminalConfig(
            id=ID, heartbeat_every=timedelta(seconds=7), fix_every=timedelta(seconds=31), buffered=5
        )
        self.terminal = Terminal(config, Random(1))
        self.on = False
        self.online = False
        self.open: dict[PressKey, bytes | None] = {}
        self.sent_at: dict[PressKey, datetime] = {}
        self.on_air: list[PressKey] = []

    def see(self, outputs: list[Output]) -> None:
        telemetry = 0
        for output in outputs:
            match output:
                case Pressed(key=key):
                    assert key not in self.open
                    self.open[key] = None
                case Publish(press=None, topic=topic):
                    assert self.online, "spoke while offline"
                    telemetry += 1
                    assert topic != up_topic(ID, Up.ALARM)
                case Publish(press=PressKey() as key, payload=payload):
                    assert self.online, "spoke while offline"
                    assert not telemetry, "an alarm stood behind telemetry"
                    report = AlarmReport.model_validate_json(payload)
                    assert (report.boot, report.seq) == key
                    assert self.open[key] in (None, payload), "a repeat changed"
                    self.open[key] = payload
                    self.sent_at[key] = self.now
                    self.on_air.append(key)
                case Received(key=key) | Lost(key=key):
                    del self.open[key]
                case _:
                    raise AssertionError(output)

    @rule()
    def power_on(self) -> None:
        self.on, self.online = True, False
        self.see(self.terminal.power_on(self.now))

    @rule()
    def power_off(self) -> None:
        self.on, self.online = False, False
        self.see(self.terminal.power_off(self.now))

    @precondition(lambda self: self.on and not self.online)
    @rule()
    def connect(self) -> None:
        self.online = True
        self.see(self.terminal.connected(self.now))
        assert all(self.sent_at[key] == self.now for key in self.open)

    @precondition(lambda self: self.online)
    @rule()
    def disconnect(self) -> None:
        self.online = False
        self.see(self.terminal.disconnected(self.now))

    @rule(kinds=st.lists(st.sampled_from(["sos", "fall", "smoke"]), min_size=1, max_size=3))
    def press(self, kinds: list[str]) -> None:
        before = len(self.open)
        self.see(self.terminal.press(self.now, kinds))
        assert len(self.open) == before + self.on

    @precondition(lambda self: self.online and self.on_air)
    @rule(data=st.data())
    def gateway_answers(self, data: st.DataObject) -> None:
        key = data.draw(st.sampled_from(self.on_air))
        ack = Ack(boot=key.boot, seq=key.seq).model_dump_json().encode()
        known = key in self.open
        outputs = self.terminal.received(down_topic(ID, Down.ACK), ack, self.now)
        assert outputs == ([Received(key=key, case=None)] if known else [])
        self.see(outputs)

    @rule()
    def reflash(self) -> None:
        self.on, self.online = True, False
        self.see(self.terminal.reflash(self.now))
        assert not self.open
        self.on_air.clear()

    @rule(seconds=st.floats(0.1, 30))
    def time_passes(self, seconds: float) -> None:
        end = self.now + timedelta(seconds=seconds)
        while (deadline := self.terminal.next_deadline()) is not None and deadline <= end:
            self.now = max(deadline, self.now)
            self.see(self.terminal.handle_timer(self.now))
        self.now = end

    @invariant()
    def nothing_is_forgotten(self) -> None:
        assert set(self.terminal.pending) == set(self.open)
        if self.online:
            assert all(self.now - self.sent_at[key] <= LONGEST for key in self.open)


TestPerson = Person.TestCase
TestPerson.settings = settings(max_examples=300, stateful_step_count=40, deadline=None)
