"""What Prometheus reads: what this server answered, and what the database holds.

Under gunicorn each process counts into files of a folder that gunicorn.conf.py makes, and any process adds them up:
https://prometheus.github.io/client_python/multiprocess/.
"""

from __future__ import annotations

from collections.abc import Collection, Iterator, Mapping

from prometheus_client import CollectorRegistry, Counter, generate_latest
from prometheus_client.core import GaugeMetricFamily
from prometheus_client.multiprocess import MultiProcessCollector
from prometheus_client.registry import Collector

from relay.errors import Unavailable
from relay.store import subscriptions, vitals
from relay.store.database import Database
from relay.store.vitals import Vitals

_COUNTED = CollectorRegistry()
_ANSWERED = Counter(
    "relay_hook_requests", "Requests to /hooks, by source and HTTP status", ["source", "status"], registry=_COUNTED
)
_REJECTED = Counter(
    "relay_hook_rejected_items", "Items of hooks that were dropped as not authentic", ["source"], registry=_COUNTED
)


def answered(source: str, status: int) -> None:
    """Count a request to a hook."""
    _ANSWERED.labels(source, status).inc()


def rejected(source: str, items: int) -> None:
    """Count items whose clientState was wrong."""
    _REJECTED.labels(source).inc(items)


def page(database: Database, config_refused: bool, sources: Collection[str], hooks: Collection[str]) -> bytes:
    """Everything, in Prometheus' text format. `config_refused`: relay.yaml as it is now is not in force.

    For each of its `sources`, and `hooks` among them, what never happened is 0, so that an alert sees it rise.
    """
    for source in hooks:
        _REJECTED.labels(source)
    stored = CollectorRegistry()
    stored.register(_Stored(database, config_refused, sources))
    return generate_latest(_counted()) + generate_latest(stored)


def _counted() -> CollectorRegistry:
    registry = CollectorRegistry()
    try:
        MultiProcessCollector(registry)  # type: ignore[no-untyped-call]
    except ValueError:  # not under gunicorn: this process is all there is
        return _COUNTED
    return registry


class _Stored(Collector):
    """The gauges of now; those that are read from the database are missing without it."""

    def __init__(self, database: Database, config_refused: bool, sources: Collection[str]) -> None:
        self._database = database
        self._config_refused = config_refused
        self._sources = sources

    def collect(self) -> Iterator[GaugeMetricFamily]:
        yield _gauge(
            "relay_config_refused", "Whether relay.yaml is broken and an older one in force", self._config_refused
        )
        try:
            now, left = vitals.read(self._database), subscriptions.seconds_left(self._database)
        except Unavailable:
            yield _gauge("relay_database_up", "Whether the database can be read", 0)
            return
        yield _gauge("relay_database_up", "Whether the database can be read", 1)
        yield from _gauges(now, dict.fromkeys(self._sources, 0))
        yield _subscriptions(left)


def _gauges(now: Vitals, none_found: Mapping[str, int]) -> Iterator[GaugeMetricFamily]:
    yield _by("relay_events", "Events", "state", now.events)
    yield _by("relay_revocations", "Revocations", "state", now.revocations)
    yield _gauge("relay_oldest_pending_seconds", "Age of the oldest event with work left", now.oldest_pending_seconds)
    yield _gauge("relay_needs_regrant", "Removals made just before a gain arrived", now.needs_regrant)
    yield _by("relay_confirmations", "What asking Velt about removals came to", "result", now.confirmations)
    yield _gauge("relay_delivery_open", "Whether calls to Velt are stopped by trouble", now.delivery.state != "closed")
    yield _gauge("relay_delivery_paused", "Whether an operator stopped calls to Velt", now.delivery.paused)
    yield _by(
        "relay_found_by_reconcile", "Events that no message has told", "source", {**none_found, **now.found_alone}
    )
    looked_up = {**none_found, **now.looked_up_alone}
    yield _by("relay_found_by_look_up", "Events that only a look-up has told", "source", looked_up)
    yield _by("relay_alerts", "Alerts that stand", "key", now.alerts)
    yield _gauge("relay_workers_alive", "Workers that gave a sign of life lately", now.workers_alive)


def _gauge(name: str, text: str, value: float) -> GaugeMetricFamily:
    return GaugeMetricFamily(name, text, value)


def _subscriptions(left: Mapping[tuple[str, str], float]) -> GaugeMetricFamily:
    family = GaugeMetricFamily(
        "relay_subscription_expires_seconds",
        "Seconds until a Graph subscription ends, 0 where it is missing",
        labels=["source", "resource"],
    )
    for labels, seconds in left.items():
        family.add_metric(labels, seconds)
    return family


def _by(name: str, text: str, label: str, counts: Mapping[str, int]) -> GaugeMetricFamily:
    family = GaugeMetricFamily(name, f"{text}, by {label}", labels=[label])
    for value, count in counts.items():
        family.add_metric([value], count)
    return family
