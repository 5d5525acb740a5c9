"""What is measured: stage latencies and counts, for Prometheus. Values are in seconds."""

from prometheus_client import Counter, Gauge, Histogram

__all__ = ["ALARMS", "ATTEMPTS", "INBOX", "QUARANTINED", "STAGE", "SUPERVISED", "SWEEP", "TELEMETRY", "TELEMETRY_BATCH"]

_FAST = (0.001, 0.002, 0.005, 0.01, 0.02, 0.05, 0.1, 0.2, 0.5, 1, 2, 5, 10, 30)

STAGE = Histogram(
    "onekey_alarm_stage_seconds",
    "From an alarm's arrival at the gateway to: stored (committed), acknowledged (told the terminal), first attempt.",
    ["stage"],
    buckets=_FAST,
)
ATTEMPTS = Histogram(
    "onekey_attempt_seconds", "How long one attempt on a channel took.", ["channel", "outcome"], buckets=_FAST
)
ALARMS = Counter("onekey_alarms_total", "Alarms by what came of them: opened, joined, repeated, unreadable.", ["how"])
INBOX = Gauge("onekey_inbox", "Alarms on disk that wait to be stored, as others go first.", multiprocess_mode="livesum")
DROPPED = Counter(
    "onekey_telemetry_dropped_total", "Reports sent with QoS 0 that were dropped, as storing them fell too far behind."
)
TELEMETRY = Counter("onekey_telemetry_total", "Reports of the telemetry lane by kind.", ["kind"])
TELEMETRY_BATCH = Histogram("onekey_telemetry_batch_seconds", "How long storing one batch took.", buckets=_FAST)
SWEEP = Histogram("onekey_sweep_seconds", "How long one sweep of supervision took.", buckets=_FAST)
SUPERVISED = Counter(
    "onekey_supervised_total",
    "Terminals in sweeps by what came of it: put off, looked at; troubles opened, cleared.",
    ["how"],
)
QUARANTINED = Counter("onekey_quarantined_total", "Messages put into quarantine.", ["lane"])
