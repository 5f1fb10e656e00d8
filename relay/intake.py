"""Intake: what a source sent, from bytes to rows on disk. Nothing is decided here."""

from __future__ import annotations

import hashlib
from dataclasses import dataclass

from relay import log, model
from relay.errors import Unreadable
from relay.model import AccessEvent, EventState, Kind
from relay.sources.base import Source
from relay.store.record import Recorder


@dataclass(frozen=True, slots=True)
class Accepted:
    """What a request brought: events on disk, items that were not authentic, and why the body was unreadable."""

    recorded: int
    rejected: int = 0
    unreadable: str | None = None


def accept(recorder: Recorder, source: Source, body: bytes, doubt: str = "") -> Accepted:
    """Record everything that an authenticated request says; returns after the commit. Raises Unavailable.

    A body that cannot be read is kept as one `unreadable` event, where the source is known to have sent it. `doubt`:
    what the request itself gives as a likely cause, "" for nothing.
    """
    received_at = model.now()
    try:
        parsed = source.parse(body)
    except Unreadable as error:
        reason = f"{error}; {doubt}" if doubt else str(error)
        if source.keeps_unreadable:
            recorder.record([_unreadable(source.name, body, reason)], received_at)
        log.get(source=source.name).warning("unreadable", reason=reason, bytes=len(body), kept=source.keeps_unreadable)
        return Accepted(int(source.keeps_unreadable), unreadable=reason)
    recorded = recorder.record(parsed.events, received_at)
    line = log.get(source=source.name)
    for place, event in zip(recorded, parsed.events, strict=True):
        # what Microsoft says of the subscription itself: without a renewal it ends, and nobody is told anything more
        tell = line.warning if event.type.startswith("lifecycle.") else line.info
        if place.known:
            line.info("known already", event_id=place.id or None, kind=event.kind, type=event.type)
        else:
            tell(
                "recorded", event_id=place.id, kind=event.kind, type=event.type, state=event.state, reason=event.reason
            )
    if parsed.rejected:
        log.get(source=source.name).warning("rejected", items=parsed.rejected)
    return Accepted(len(recorded), parsed.rejected)


def _unreadable(source: str, body: bytes, reason: str) -> AccessEvent:
    return AccessEvent(
        source=source,
        kind=Kind.UNKNOWN,
        type="unreadable",
        payload=body,
        key="sha256:" + hashlib.sha256(body).hexdigest(),
        state=EventState.UNREADABLE,
        reason=reason,
    )
