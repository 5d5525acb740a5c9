"""What the processes of a running gateway have used of the processor."""

import psutil

__all__ = ["used_s"]


def used_s(pid: int) -> dict[str, float]:
    """Return the processor time in seconds of ``onekey run`` with this process id and of all that it started, by part.

    What sessions of the database used that have ended meanwhile is in it too.
    """
    used: dict[str, float] = {}
    root = psutil.Process(pid)
    for process in (root, *root.children(recursive=True)):
        try:
            part, times = _part(process), process.cpu_times()
        except psutil.Error:
            continue  # it ended between the question and the answer
        used[part] = used.get(part, 0.0) + times.user + times.system
        if part == "database":
            used[part] += times.children_user + times.children_system
    return used


def _part(process: psutil.Process) -> str:
    name = process.name()
    if name.startswith("postgres"):
        return "database"
    if name.startswith("nats"):
        return "broker"
    command = process.cmdline()
    return command[-1] if command and command[-1] in ("gateway", "api") else "supervisor"
