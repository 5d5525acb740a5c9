"""The processing record: what it tells of a journal, in both languages, and what it leaves to the journal."""

from datetime import UTC, datetime, timedelta
from typing import Any, get_args

from gateway.domain.processing_record import REASONS, Told, record_of
from schemas.case import FalseAlarmReason

START = datetime(2026, 11, 22, 6, 31, 5, tzinfo=UTC)


def told(seconds: float, kind: str, actor: str = "gateway", **data: Any) -> Told:
    return Told(at=START + timedelta(seconds=seconds), kind=kind, actor=actor, data=data)


RESCUE = [
    told(0, "alarm.received", "terminal:860000000000001", kinds=["sos"], terminal="860000000000001"),
    told(
        0,
        "case.opened",
        legs=[{"role": "guardian", "state": "pending"}, {"role": "ambulance_120", "state": "pending"},
              {"role": "fire_119", "state": "failed"}],
    ),
    told(0, "procedure.started", procedure="nanjing-emergency", version=1),
    told(0, "task.started", step="take"),
    told(0.2, "leg.delivered", role="guardian"),
    told(6, "case.acknowledged", "operator:seat-7", operator="seat-7"),
    told(6, "task.done", step="take", result="taken"),
    told(11, "leg.answered", "party:x", role="guardian", answer="coming", minutes=6, by="女儿", reason=None),
    told(11, "case.fact", "party:x", fact="informed", role="guardian"),
    told(20, "case.fact", "operator:seat-7", fact="dispatched", role="ambulance_120"),
    told(25, "case.pressed_again", urgency=2),
    told(300, "task.done", "operator:seat-7", step="family", result="reached", note="女儿已知情"),
    told(400, "task.breached", step="supervisor"),
    told(1500, "case.safe", "operator:seat-7", by="ambulance_120"),
    told(1500, "case.closed", "operator:seat-7", outcome="hospital", note="送鼓楼医院", reason=None),
    told(70_000, "task.done", "operator:seat-7", step="follow-up", result="unreachable", note=None),
    told(70_001, "work_order.updated", "operator:seat-7"),
]  # fmt: skip
TITLES = {"family": "联系家属", "follow-up": "次日回访", "supervisor": "呈报领导", "take": "接警"}


def test_it_tells_a_rescue_with_local_times_and_the_date_where_it_changes() -> None:
    assert record_of(RESCUE, lang="zh", timezone="Asia/Shanghai", titles=TITLES).split("\n") == [
        "2026-11-22 14:31:05 收到报警：紧急呼叫（终端 860000000000001）",
        "14:31:05 同时通知 2 方：监护人、120 急救",
        "14:31:11 seat-7 接警",
        "14:31:16 监护人答复：正在赶来，约 6 分钟（女儿）",
        "14:31:25 120 急救已派出（seat-7 记录）",
        "14:31:30 老人再次按键（第 2 次）",
        "14:36:05 seat-7 完成“联系家属”：已联系上（女儿已知情）",
        "14:37:45 逾期未完成“呈报领导”",
        "14:56:05 确认老人安全（120 急救）",
        "14:56:05 结案：送医（送鼓楼医院）",
        "2026-11-23 09:57:45 seat-7 完成“次日回访”：联系不上",
    ]


def test_it_tells_the_same_in_english() -> None:
    lines = record_of(RESCUE, lang="en", timezone="UTC", titles={"family": "Reach the family"}).split("\n")
    assert lines[0] == "2026-11-22 06:31:05 Alarm: Call for help (terminal 860000000000001)"
    assert "06:31:16 The guardian is coming, about 6 min (女儿)" in lines
    assert "06:36:05 seat-7 did “Reach the family”: reached (女儿已知情)" in lines
    assert "06:56:05 Closed: taken to hospital (送鼓楼医院)" in lines
    assert len(lines) == 11


def test_a_false_alarm_says_why() -> None:
    closed = told(5, "case.closed", "operator:seat-7", outcome="false_alarm", reason="pet", note=None)
    assert record_of([closed], lang="zh", timezone="Asia/Shanghai", titles={}).endswith("结案：误报（宠物触发）")


def test_every_reason_has_words() -> None:
    assert all(set(get_args(FalseAlarmReason)) == set(words) for words in REASONS.values())


def test_what_it_does_not_know_is_shown_as_it_is_or_left_out() -> None:
    strange = [
        told(0, "alarm.received", kinds=["new_kind"], terminal=None),
        told(1, "case.opened", legs=[]),
        told(2, "leg.answered", role="uncle", answer="cannot", reason="人在外地", by=None, minutes=None),
        told(3, "leg.failed", role="uncle"),
        told(4, "case.fact", "operator:seat-7", fact="something", role="uncle"),
        told(5, "never.heard", x=1),
        told(6, "step.started", step="ask-110", does="tell"),
        told(7, "step.started", step="open-line", does="command"),
        told(8, "procedure.started", "operator:seat-7", procedure="complaint"),
    ]
    text = record_of(strange, lang="zh", timezone="UTC", titles={"ask-110": "请 110 上门"})
    assert [line.partition(" ")[2] for line in text.split("\n")[1:]] == [
        "uncle答复：无法前往（人在外地）",
        "未能通知uncle",
        "请 110 上门",
        "seat-7 启动投诉处理流程",
    ]
    assert "new_kind" in text
