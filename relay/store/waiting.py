"""Why a revocation is still open, in a sentence."""

from __future__ import annotations

from dataclasses import dataclass

from sqlalchemy import Connection

from relay.model import Micros, RevocationState, to_iso
from relay.store import delivery, heartbeat
from relay.store.delivery import Delivery


@dataclass(frozen=True, slots=True)
class Brakes:
    """All that may keep calls to Velt from going out. `mode` is relay.yaml's; `manned`: a worker is alive."""

    now: Micros
    mode: str
    delivery: Delivery
    manned: bool

    def why(self, state: str, next_at: Micros | None, lease_until: Micros | None) -> str | None:
        """What a revocation in this state waits for, None where it is settled.

        `next_at` is when it may be sent, `lease_until` how long a call for the same person may last.
        """
        if state == RevocationState.SENDING.value:
            return "a call to Velt is under way"
        if state != RevocationState.PENDING.value:
            return None
        return self._for_all() or self._for_one(next_at, lease_until)

    def _for_all(self) -> str | None:
        row = self.delivery
        if self.mode == "observe":
            return "mode is observe: nobody is called"
        if row.paused:
            return f"delivery is paused by {row.paused_by}" + (f": {row.paused_reason}" if row.paused_reason else "")
        if row.state == "probing":
            return f"delivery is stopped ({row.why}); a probe is under way"
        if row.state == "open":
            return f"delivery is stopped ({row.why}); the next probe is at {to_iso(row.probe_at)}"
        return None if self.manned else "no worker is alive"

    def _for_one(self, next_at: Micros | None, lease_until: Micros | None) -> str:
        if lease_until is not None and lease_until > self.now:
            return "another call for this person is under way"
        if next_at is not None and next_at > self.now:
            return f"the next attempt is at {to_iso(next_at)}"
        return "it is due: a worker takes it next, or once a look-up of this person is answered"


def read(connection: Connection, mode: str, now: Micros) -> Brakes:
    """The brakes as they are now."""
    manned = any(worker["alive"] for worker in heartbeat.workers(connection, now))
    return Brakes(now, mode, delivery.read(connection), manned)
