"""Metrics for Prometheus: what the processes measure, and how the database stands."""

import os
from collections.abc import Iterator

from fastapi import APIRouter, Depends, Response
from prometheus_client import CONTENT_TYPE_LATEST, REGISTRY, CollectorRegistry, generate_latest
from prometheus_client.core import GaugeMetricFamily
from prometheus_client.multiprocess import MultiProcessCollector
from prometheus_client.registry import Collector

from api.dependencies import PoolDep, may
from gateway.service.access import Right
from gateway.store import findings, modems, queries
from gateway.store.queries import Figures

__all__ = ["router"]

router = APIRouter(tags=["metrics"])


@router.get(
    "/metrics",
    dependencies=[Depends(may(Right.READ_METRICS))],
    response_class=Response,
    responses={200: {"content": {"text/plain": {"schema": {"type": "string"}}}}},
)
async def read_metrics(pool: PoolDep) -> Response:
    """Read the metrics in the text format of Prometheus."""
    async with pool.connection() as conn:
        figures = await queries.figures(conn)
        audit = await findings.figures(conn)
        phones = await modems.figures(conn)
    now = CollectorRegistry()
    now.register(_Now(figures))
    now.register(_Audit(*audit))
    now.register(_Phones(*phones))
    return Response(generate_latest(_measured()) + generate_latest(now), media_type=CONTENT_TYPE_LATEST)


def _measured() -> CollectorRegistry:
    """Return what was measured: by all processes that share the directory of prometheus_client, else by this one."""
    if "PROMETHEUS_MULTIPROC_DIR" not in os.environ:
        return REGISTRY
    registry = CollectorRegistry()
    MultiProcessCollector(registry)  # type: ignore[no-untyped-call]  # untyped in prometheus_client
    return registry


class _Now(Collector):
    """Figures read from the database for one scrape."""

    def __init__(self, figures: Figures) -> None:
        self._figures = figures

    def collect(self) -> Iterator[GaugeMetricFamily]:
        figures = self._figures
        due = {"waiting": figures.waiting, "sending": figures.sending, "postponed": figures.postponed}
        yield _gauge("onekey_notices_due", "Notices not yet sent, by what they wait for.", due, label="state")
        yield _gauge(
            "onekey_notices_oldest_due_seconds", "Age of the oldest notice not yet sent.", figures.oldest_due_s
        )
        yield _gauge("onekey_emergencies_unacknowledged", "Open emergencies that nobody owns.", figures.unacknowledged)
        yield _gauge(
            "onekey_emergencies_oldest_unacknowledged_seconds",
            "Age of the oldest open emergency that nobody owns.",
            figures.oldest_unacknowledged_s,
        )
        yield _gauge("onekey_quarantine_kept", "Messages in quarantine that nobody settled.", figures.quarantine)
        classes = dict.fromkeys(("emergency", "service", "technical", "test"), 0) | figures.open_cases
        yield _gauge("onekey_cases_not_closed", "Cases that are open or safe, by class.", classes, label="class")
        skewed = {"60": figures.skew_over_1_min, "300": figures.skew_over_5_min, "3600": figures.skew_over_1_h}
        yield _gauge(
            "onekey_terminals_clock_off",
            "Terminals whose clock is off by more than so many seconds.",
            skewed,
            label="more_than_s",
        )
        yield _gauge("onekey_gateways_alive", "Gateways seen within 5 seconds.", figures.gateways)


class _Audit(Collector):
    """What the auditor found, and that it looks."""

    def __init__(self, kinds: dict[str, int], deaf: int, age_s: float | None) -> None:
        self._kinds = kinds
        self._deaf = deaf
        self._age_s = age_s

    def collect(self) -> Iterator[GaugeMetricFamily]:
        yield _gauge("onekey_findings_open", "What the auditor finds amiss now, by kind.", self._kinds, label="kind")
        if self._age_s is not None:
            yield _gauge("onekey_audit_age_seconds", "How long ago the auditor looked.", self._age_s)
            text = "Sites whose fallback has no webhook: the auditor cannot tell them of findings."
            yield _gauge("onekey_audit_deaf_sites", text, self._deaf)


class _Phones(Collector):
    """How the modems are, and what waits for them."""

    def __init__(self, states: dict[str, int], waiting: int, oldest_s: float) -> None:
        self._states = states
        self._waiting = waiting
        self._oldest_s = oldest_s

    def collect(self) -> Iterator[GaugeMetricFamily]:
        yield _gauge("onekey_modems", "GSM modems, by state.", {"ready": 0, "dead": 0} | self._states, label="state")
        yield _gauge("onekey_phone_waiting", "Messages and calls that wait for a modem.", self._waiting)
        yield _gauge("onekey_phone_oldest_waiting_seconds", "How long the oldest of these has waited.", self._oldest_s)


def _gauge(name: str, text: str, value: float | dict[str, int], *, label: str | None = None) -> GaugeMetricFamily:
    if not isinstance(value, dict):
        return GaugeMetricFamily(name, text, value=value)
    assert label is not None
    family = GaugeMetricFamily(name, text, labels=[label])
    for key, count in value.items():
        family.add_metric([key], count)
    return family
