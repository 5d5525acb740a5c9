"""Keys that make a repeat harmless (D5, D10): every replica, the spool and a retry derive the same ones."""

import hashlib
from uuid import UUID, uuid5

__all__ = [
    "alarm_id",
    "call_order_id",
    "case_id",
    "command_id",
    "found_key",
    "inspection_id",
    "leg_id",
    "notice_id",
    "numbered_key",
    "run_id",
    "step_id",
    "subject",
    "trouble_subject",
    "window_key",
    "work_order_id",
]

_NAMESPACE = UUID("5f1a3c1e-6d0b-5b0e-9a55-7a3f0c2b9d11")
_LONGEST_SAID = 200


def numbered_key(terminal: str, *, epoch: int, boot: int, seq: int) -> str:
    """Return the key of a press that carries boot count and sequence number.

    The credential epoch is part of it, since boot counts start again when a terminal is refurbished.
    """
    return f"n:{terminal}:{epoch}:{boot}:{seq}"


def window_key(terminal: str, *, epoch: int, kinds: tuple[str, ...]) -> str:
    """Return the key of a press without numbers; it holds for a short window per set of kinds only."""
    words = (kind.replace("%", "%25").replace("+", "%2B") for kind in set(kinds))  # a terminal may send any word
    said = "+".join(sorted(words))
    if len(said) > _LONGEST_SAID:  # a legal alarm may say more than an index can hold
        said = f"%{hashlib.sha256(said.encode()).hexdigest()}"
    return f"w:{terminal}:{epoch}:{said}"


def subject(*, household: str | None, terminal: str | None) -> str:
    """Return whom a case is about: the household, or the terminal while nobody knows where it stands."""
    return f"household:{household}" if household is not None else f"terminal:{terminal or '?'}"


def trouble_subject(terminal: str, kind: str) -> str:
    """Return whom a technical case is about: one terminal and one cause, each of which is a case of its own."""
    return f"terminal:{terminal}:{kind}"


def found_key(about: str, number: int) -> str:
    """Return the key of what supervision has found about a subject; `number` is that of the finding."""
    return f"s:{about}:{number}"


def alarm_id(key: str, occurrence: int) -> UUID:
    """Return the id of the `occurrence`-th alarm under `key`, counted from 1."""
    return uuid5(_NAMESPACE, f"alarm|{key}|{occurrence}")


def _kin(of: UUID, name: str) -> UUID:
    """Return an id that begins as `of` does.

    So all that belongs to a case lies side by side in every index, and a press touches few pages of a long history.
    """
    return UUID(bytes=of.bytes[:8] + uuid5(_NAMESPACE, name).bytes[8:])


def case_id(alarm: UUID) -> UUID:
    """Return the id of the case that `alarm` opens."""
    return _kin(alarm, f"case|{alarm}")


def leg_id(case: UUID, *, role: str, party: str | None) -> UUID:
    """Return the id of the leg to `party`, or of the failed leg of a role that has none."""
    return _kin(case, f"leg|{case}|{role}|{party or ''}")


def run_id(case: UUID, procedure: str) -> UUID:
    """Return the id of the run of a procedure for a case: one case runs each at most once."""
    return _kin(case, f"run|{case}|{procedure}")


def step_id(run: UUID, name: str) -> UUID:
    """Return the id of a step of a run."""
    return _kin(run, f"step|{run}|{name}")


def command_id(step: UUID) -> str:
    """Return the id of the command that a step gives to a terminal: the same, however often it is sent."""
    return f"cmd_{step.hex}"


def notice_id(leg: UUID, number: int) -> str:
    """Return the idempotency key of the `number`-th notice of a leg (I5): the same on every retry."""
    return f"msg_{leg.hex}_{number}"


def work_order_id(case: UUID) -> UUID:
    """Return the id of the work order that is made for a case by itself."""
    return _kin(case, f"work order|{case}")


def call_order_id(site: str, *, call: str, kind: str) -> UUID:
    """Return the id of the work order of one kind for one call, named as the telephone system of a site names it."""
    return uuid5(_NAMESPACE, f"call|{site}|{kind}|{call}")


def inspection_id(question: str) -> UUID:
    """Return the id of the sample that answers a question: the same question draws it no second time."""
    return uuid5(_NAMESPACE, f"inspection|{question}")
