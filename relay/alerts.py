"""Alerting: what is wrong is listed for as long as it holds, and told once to whoever reads RELAY_ALERT_URL.

Each worker looks every few seconds, beside its other work: neither a slow chat nor a slow Velt holds up the other.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import requests

from relay import backoff, log
from relay.model import SECOND, Micros, to_iso
from relay.store import alerts, standing
from relay.store.alerts import Alert
from relay.store.database import Database
from relay.store.standing import Finder

#: Seconds that connecting, and each wait for the other side, may take.
TIMEOUT = 10.0
#: For how long one worker has an alert to itself, to tell it.
LEASE: Micros = 60 * SECOND


class Alerts:
    """Keeps the list of alerts true, and tells what is new or over.

    `url` gives the address to tell it to as it is now, "" for none.
    """

    def __init__(
        self, database: Database, url: Callable[[], str], finders: Sequence[Finder] = standing.FINDERS
    ) -> None:
        self._database = database
        self._url = url
        self._finders = finders
        self._log = log.get()

    def look(self) -> None:
        """Bring the list in line with what is wrong now, and tell what is to be told. Raises Unavailable."""
        with self._database.read() as connection:
            now = self._database.now(connection)
            problems = dict(problem for find in self._finders for problem in find(connection, now))
            aligned = alerts.is_aligned(connection, problems)
        if not aligned:
            self._align(problems)
        while self._tell_one():
            pass

    def _align(self, problems: Mapping[str, str]) -> None:
        with self._database.write() as connection:
            raised, over = alerts.align(connection, problems, self._database.now(connection))
            if not self._url():
                alerts.forget_cleared(connection)
        for key in raised:
            self._log.warning("alert", key=key, text=problems[key])
        for key in over:
            self._log.info("alert over", key=key)

    def _tell_one(self) -> bool:
        """Whether anything was told; false when nothing is due, or when telling fails."""
        url = self._url()
        alert = self._take() if url else None
        if alert is None:
            return False
        trouble = post(url, body(alert))
        with self._database.write() as connection:
            now = self._database.now(connection)
            if trouble is None:
                alerts.mark_told(connection, alert, now)
            else:
                alerts.put_off(connection, alert, now + int(backoff.probe_delay(alert.attempts) * SECOND))
        if trouble is not None:
            self._log.error("an alert could not be told", key=alert.key, reason=trouble)
        return trouble is None

    def _take(self) -> Alert | None:
        with self._database.read() as connection:
            if not alerts.anything_to_tell(connection, self._database.now(connection)):
                return None
        with self._database.write() as connection:
            now = self._database.now(connection)
            return alerts.take_due(connection, now, now + LEASE)


def body(alert: Alert) -> dict[str, Any]:
    """What is posted. `text` is the sentence that chats such as Slack show of an incoming webhook."""
    over = alert.cleared_at is not None
    return {
        "text": f"Velt Permission Relay: {'over now: ' if over else ''}{alert.text}",
        "key": alert.key,
        "state": "cleared" if over else "raised",
        "raised_at": to_iso(alert.raised_at),
    }


def post(url: str, content: Mapping[str, Any]) -> str | None:
    """Post this as JSON; None when it was taken (2xx), else what went wrong, without the address: that is a secret.

    No redirect is followed, and nothing of the environment (proxies, .netrc) is used, as on the way to Velt.
    """
    try:
        with requests.Session() as session:
            session.trust_env = False
            with session.post(url, json=content, timeout=TIMEOUT, allow_redirects=False, stream=True) as response:
                status = response.status_code
    except (requests.RequestException, OSError, ValueError) as error:
        return f"RELAY_ALERT_URL could not be reached: {type(error).__name__}"
    return None if 200 <= status < 300 else f"RELAY_ALERT_URL answered {status}"
