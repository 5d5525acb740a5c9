"""What each kind of finding says to people, in Chinese and in English; ``docs/operations.md`` says what to do."""

from collections.abc import Mapping
from datetime import UTC, datetime

__all__ = ["KINDS", "words_of"]

KINDS: Mapping[str, Mapping[str, str]] = {
    # obligations that are not there
    "no_legs": {
        "zh": "警情没有任何支路，不会通知任何人",
        "en": "the case has no leg at all: nobody will be told",
    },
    "role_without_leg": {
        "zh": "预案 {plan} 要求通知角色 {role}，但警情没有这一支路",
        "en": "the plan {plan} calls the role {role}, and the case has no leg for it",
    },
    "party_without_leg": {
        "zh": "预案 {plan} 要求通知 {party}（{role}），但警情没有这一支路",
        "en": "the plan {plan} calls {party} ({role}), and the case has no leg for it",
    },
    "ladder_differs": {
        "zh": "支路 {role} 的呼叫次数或时限与预案 {plan} 不符",
        "en": "the leg to {role} is called otherwise than the plan {plan} says",
    },
    "run_missing": {
        "zh": "应当运行的流程 {procedure} 没有运行",
        "en": "the procedure {procedure} should run and does not",
    },
    "no_procedure": {
        "zh": "紧急警情没有运行任何流程",
        "en": "no procedure at all runs for the emergency",
    },
    "step_missing": {
        "zh": "流程 {procedure} 的步骤 {step} 应于 {since} 开始，但没有记录",
        "en": "the step {step} of {procedure} should have begun at {since}, and there is no trace of it",
    },
    # obligations that nobody follows
    "nobody_reached": {
        "zh": "紧急警情开始后 15 秒内没有任何一方收到或应答",
        "en": "nobody was reached within 15 s: no leg of the emergency was delivered or answered",
    },
    "leg_without_call": {
        "zh": "支路 {role} 未完成，但没有待发送或已发送的通知",
        "en": "the leg to {role} is pending, and nothing on it is due or was sent",
    },
    "notice_late": {
        "zh": "给 {role} 的 {notices} 条通知自 {since} 起应发未发",
        "en": "messages to {role} are not sent: {notices}, due since {since}",
    },
    "phone_unheard": {
        "zh": "{messages} 条短信或来电自 {since} 起未处理",
        "en": "messages or calls that came by phone are not dealt with: {messages}, since {since}",
    },
    "call_missing": {
        "zh": "{role} 未应答，第 {call} 次呼叫应于 {since} 发出但没有发出",
        "en": "{role} did not answer, and call {call} that was due at {since} was not made",
    },
    "deadline_missing": {
        "zh": "{role} 的应答时限于 {since} 已过，但无人处理",
        "en": "the deadline of {role} passed at {since}, and nothing followed from it",
    },
    "case_asleep": {
        "zh": "警情应于 {since} 继续处理，但没有处理",
        "en": "the case was to be looked at at {since}, and nobody did",
    },
    "step_late": {
        "zh": "步骤 {step} 的时限于 {since} 已过，但没有记为超时",
        "en": "the deadline of the step {step} passed at {since}, and it is not on record as missed",
    },
    "step_stays_open": {
        "zh": "步骤 {step} 应于 {since} 结束，但仍未结束",
        "en": "the step {step} should have ended at {since}, and it is still open",
    },
    # contradictions
    "sent_after_closure": {
        "zh": "警情结束后仍向 {role} 发送了 {attempts} 次通知",
        "en": "{role} was told after the case was closed, attempts: {attempts}",
    },
    "due_after_closure": {
        "zh": "警情已结束，但给 {role} 的 {notices} 条通知仍待发送",
        "en": "the case is closed, and messages to {role} are still to be sent: {notices}",
    },
    "leg_open_after_closure": {
        "zh": "警情已结束，但支路 {role} 仍未了结",
        "en": "the case is closed, and the leg to {role} is still open",
    },
    "closed_incomplete": {
        "zh": "警情已结束，但缺少 {missing}",
        "en": "the case is closed without {missing}",
    },
    "owner_without_time": {
        "zh": "警情有责任人，但没有接手时间",
        "en": "the case has an owner and no time since when",
    },
    "two_emergencies": {
        "zh": "同一对象同时有 {cases} 个未结束的紧急警情",
        "en": "{cases} emergencies of one subject are open at the same time",
    },
    "journal_broken": {
        "zh": "日志链与警情不符：应有 {expected} 条，实有 {entries} 条，或末条不符",
        "en": "the journal does not fit: {expected} entries should be there, {entries} are, or its head differs",
    },
    "test_woke_rescue": {
        "zh": "测试警情呼叫了 {role}",
        "en": "a test called {role}",
    },
    "drill_told_others": {
        "zh": "演练通知了不参加演练的 {party}",
        "en": "a drill told {party}, who does not take part in it",
    },
    "progress_after_closure": {
        "zh": "警情结束后仍向终端发送了救援进展",
        "en": "the terminal was told of progress after the case was closed",
    },
    # the gateway itself
    "nobody_runs": {
        "zh": "没有任何网关在运行，而有事项应当处理",
        "en": "no gateway is alive, and something is due",
    },
    "alarms_unheard": {
        "zh": "没有网关与消息代理相连，报警无法接收",
        "en": "no gateway is connected to the broker: alarms are not heard",
    },
    "terminals_unheard": {
        "zh": "自 {since} 起收不到终端的上报，终端失联无法发现",
        "en": "since {since} nothing is heard of terminals: one that is lost is not found",
    },
    "alarms_wait": {
        "zh": "已收到的报警一分钟后仍未立案",
        "en": "alarms that were received more than a minute ago are no cases yet",
    },
    "check_failed": {
        "zh": "审计检查 {check} 无法进行：{error}",
        "en": "the auditor cannot make its check {check}: {error}",
    },
}


def words_of(kind: str, detail: Mapping[str, object]) -> dict[str, str]:
    """Return the sentence of a finding by language; times in it are of UTC, to the second."""
    since = detail.get("since")
    told = {
        "since": "?" if since is None else f"{datetime.fromisoformat(str(since)).astimezone(UTC):%Y-%m-%dT%H:%M:%SZ}"
    }
    return {language: text.format(**(dict(detail) | told)) for language, text in KINDS[kind].items()}
