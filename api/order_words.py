"""The words of a work order for people, in both languages: those of table C.1, and those beside it."""

from collections.abc import Mapping, Sequence
from datetime import datetime
from zoneinfo import ZoneInfo

from schemas.work_order import OrderOut

__all__ = ["COLUMNS", "WORDS", "language", "local", "row_of"]

WORDS: Mapping[str, Mapping[str, str]] = {
    "zh": {
        "lang": "zh-CN",
        "title": "服务工单",
        "called_at": "呼叫时间",
        "number": "呼叫号码",
        "operator": "坐席工号",
        "operator_name": "坐席姓名",
        "kind": "需求类型",
        "person": "服务老人",
        "institution": "服务机构",
        "name": "姓名",
        "age": "年龄",
        "phone": "联系电话",
        "institution_name": "机构名称",
        "emergency_rescue": "紧急救援",
        "public_service_query": "公共服务类查询",
        "referral": "转介资源",
        "complaint": "投诉处理",
        "institution_query": "公共服务类查询",
        "reply_needed": "是否需要回复",
        "needed": "需要",
        "not_needed": "不需要",
        "record": "处理记录",
        "rating": "客户评价",
        "very_dissatisfied": "非常不满意",
        "dissatisfied": "比较不满意",
        "fair": "一般",
        "satisfied": "比较满意",
        "very_satisfied": "非常满意",
        "note": "注：非常满意、比较满意、一般计为服务满意，比较不满意、非常不满意计为服务不满意。",
        "id": "工单号",
        "case": "警情号",
        "district": "区划",
        "rating_asked_by": "评价询问人",
        "rating_comment": "评价意见",
        "replied_at": "回复时间",
        "completed_at": "办结时间",
        "missing": "未填项",
        "accurate": "抽查结果",
        "yes": "准确",
        "no": "不准确",
        "erased": "内容已按要求删除",
        "needs": "转介需求",
        "family": "家庭构成及子女现状",
        "income": "经济收入",
        "health": "健康状况及病史",
        "address": "居住地址",
        "contacts": "本人及监护人电话",
        "demand": "服务诉求",
        "reasons": "主要问题及转介理由",
        "offered": "推荐机构",
        "outcome": "转介结果",
        "placed": "已入住或接受服务",
        "chose_another": "另选机构",
        "declined": "放弃",
        "not_eligible": "不符合条件",
        "unreachable": "联系不上",
        "other": "其他",
        "about": "投诉内容",
        "forwarded_to": "受理单位",
        "result": "处理结果",
        "progress": "办理进度",
        "due": "期限 {at}",
        "late": "已逾期",
        "result_done": "完成",
        "result_satisfied": "满意",
        "result_dissatisfied": "不满意",
        "asked_by": "询问人：{who}",
        "printed": "打印时间 {at}",
        "stop": "。",
        "colon": "：",
        "comma": "，",
        "semicolon": "；",
    },
    "en": {
        "lang": "en",
        "title": "Work order",
        "called_at": "Call time",
        "number": "Calling number",
        "operator": "Seat number",
        "operator_name": "Operator",
        "kind": "Kind of demand",
        "person": "Person served",
        "institution": "Institution served",
        "name": "Name",
        "age": "Age",
        "phone": "Phone",
        "institution_name": "Name",
        "emergency_rescue": "Emergency rescue",
        "public_service_query": "Public-service query",
        "referral": "Referral",
        "complaint": "Complaint",
        "institution_query": "Public-service query",
        "reply_needed": "Reply needed",
        "needed": "yes",
        "not_needed": "no",
        "record": "Processing record",
        "rating": "Rating by the client",
        "very_dissatisfied": "very dissatisfied",
        "dissatisfied": "dissatisfied",
        "fair": "fair",
        "satisfied": "satisfied",
        "very_satisfied": "very satisfied",
        "note": "Note: very satisfied, satisfied and fair count as satisfied, the other two as not satisfied.",
        "id": "Work order",
        "case": "Case",
        "district": "District",
        "rating_asked_by": "Rating asked by",
        "rating_comment": "Comment",
        "replied_at": "Replied",
        "completed_at": "Completed",
        "missing": "Not filled",
        "accurate": "Inspection",
        "yes": "accurate",
        "no": "not accurate",
        "erased": "What it said was erased as required",
        "needs": "Needs",
        "family": "Family and children",
        "income": "Income",
        "health": "Health and history",
        "address": "Address",
        "contacts": "Phones",
        "demand": "Demand",
        "reasons": "Problem and reasons",
        "offered": "Institutions offered",
        "outcome": "Outcome of the referral",
        "placed": "placed",
        "chose_another": "chose another",
        "declined": "declined",
        "not_eligible": "not eligible",
        "unreachable": "unreachable",
        "other": "other",
        "about": "Complaint",
        "forwarded_to": "Forwarded to",
        "result": "Result",
        "progress": "Progress",
        "due": "due {at}",
        "late": "late",
        "result_done": "done",
        "result_satisfied": "satisfied",
        "result_dissatisfied": "dissatisfied",
        "asked_by": "asked by {who}",
        "printed": "Printed {at}",
        "stop": ".",
        "colon": ": ",
        "comma": ", ",
        "semicolon": "; ",
    },
}

COLUMNS: Sequence[str] = (
    *("id", "case", "district", "called_at", "number", "operator", "operator_name", "kind", "name", "age", "phone"),
    *("institution", "reply_needed", "replied_at", "record", "rating", "rating_asked_by", "rating_comment"),
    *("needs", "offered", "outcome", "about", "forwarded_to", "result", "completed_at", "missing", "accurate"),
)
"""The columns of an exported sheet, by the names of their words."""


def language(wanted: str | None, otherwise: str) -> str:
    """Return ``zh`` or ``en``: what is wanted, else that of a locale."""
    if wanted is not None and wanted in WORDS:
        return wanted
    return "zh" if otherwise.startswith("zh") else "en"


def local(at: datetime | None, order: OrderOut) -> str:
    """Return an instant as the clock of the site shows it."""
    return "" if at is None else at.astimezone(ZoneInfo(order.timezone)).strftime("%Y-%m-%d %H:%M:%S")


def row_of(order: OrderOut, *, lang: str) -> list[str]:
    """Return a work order as a row of a sheet."""
    words = WORDS[lang]
    person, referral, complaint = order.person, order.referral, order.complaint
    needed = None if order.reply_needed is None else words["needed" if order.reply_needed else "not_needed"]
    accurate = None if order.accurate is None else words["yes" if order.accurate else "no"]
    needs = {} if referral is None or referral.needs is None else referral.needs.model_dump(exclude_none=True)
    offered = [] if referral is None else referral.offered or []
    cells: dict[str, object] = {
        "id": order.id,
        "case": order.case_id,
        "district": order.district,
        "called_at": local(order.called_at, order),
        "number": order.number,
        "operator": order.operator,
        "operator_name": order.operator_name,
        "kind": words[order.kind],
        "name": None if person is None else person.name,
        "age": None if person is None else person.age,
        "phone": None if person is None else person.phone,
        "institution": order.institution,
        "reply_needed": needed,
        "replied_at": local(order.replied_at, order),
        "record": words["erased"] if order.erased else order.record,
        "rating": None if order.rating is None else words[order.rating],
        "rating_asked_by": order.rating_asked_by,
        "rating_comment": order.rating_comment,
        "needs": "\n".join(f"{words[name]}{words['colon']}{text}" for name, text in needs.items()),
        "offered": "\n".join(
            words["comma"].join(part for part in one.model_dump(exclude_none=True).values()) for one in offered
        ),
        "outcome": None if referral is None or referral.outcome is None else words[referral.outcome],
        "about": None if complaint is None else complaint.about,
        "forwarded_to": None if complaint is None else complaint.forwarded_to,
        "result": None if complaint is None else complaint.result,
        "completed_at": local(order.completed_at, order),
        "missing": words["comma"].join(words.get(path.rpartition(".")[2], path) for path in order.missing),
        "accurate": accurate,
    }
    return ["" if cells[name] is None else str(cells[name]) for name in COLUMNS]
