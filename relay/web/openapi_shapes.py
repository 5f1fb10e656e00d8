"""The shapes of the API's answers, for /openapi.json."""

from __future__ import annotations

from typing import Any

from relay.model import Confirmation, EventState, RevocationState

Json = dict[str, Any]

TEXT: Json = {"type": ["string", "null"]}
TIME: Json = {"type": ["string", "null"], "format": "date-time"}
COUNT: Json = {"type": "integer", "minimum": 0}
SECONDS: Json = {"type": ["number", "null"]}
LIST: Json = {"type": "array", "items": {"type": "string"}}


def ref(name: str) -> Json:
    return {"$ref": f"#/components/schemas/{name}"}


def an_object(properties: Json) -> Json:
    return {"type": "object", "required": list(properties), "properties": properties}


def an_array(schema: Json) -> Json:
    return {"type": "array", "items": schema}


def schemas() -> Json:
    named = an_object({"id": TEXT, "name": TEXT}) | {"type": ["object", "null"]}
    user = an_object(dict.fromkeys(("id", "login", "email", "external_id", "velt_user_id"), TEXT))
    by_state: Json = {"type": "object", "additionalProperties": COUNT}
    event_state: Json = {"enum": [state.value for state in EventState]}
    revocation_state: Json = {"enum": [state.value for state in RevocationState]}
    event = {
        "id": {"type": "string"},
        "source": {"type": "string"},
        "kind": {"type": "string"},
        "type": {"type": "string"},
        "state": event_state,
        "reason": TEXT,
        "user": user,
        "group": named,
        "app": named,
        "occurred_at": TIME,
        "received_at": TIME,
        "planned_at": TIME,
        "rules_version": TEXT,
        "parent": TEXT,
        "found_by": TEXT,
        "incomplete": LIST,
    }
    resource = {
        "type": "object",
        "required": ["type", "id"],
        "properties": {"type": {}, "id": {}, "organizationId": {}},
    }
    revocation = {
        "id": {"type": "string"},
        "resource": resource,
        "velt_user_id": {"type": "string"},
        "rules": {"type": "string"},
        "state": revocation_state,
        "reason": TEXT,
        "superseded_by": TEXT,
        "waits_for": TEXT,
        "next_attempt_at": TIME,
        "attempts": COUNT,
        "needs_regrant": {"type": "boolean"},
        "confirmation": {"enum": [None, *(found.value for found in Confirmation)]},
        "confirmation_reason": TEXT,
        "confirmation_due_at": TIME,
        "sent_at": TIME,
        "settled_at": TIME,
    }
    return {
        "Problem": an_object({"type": {}, "title": {"type": "string"}, "status": COUNT, "detail": {"type": "string"}}),
        "Events": an_object(
            {
                "events": an_array(
                    an_object({**event, "revocations": by_state, "needs_regrant": COUNT, "waits_for": TEXT})
                ),
                "next": TEXT,
            }
        ),
        "Whole": an_object(
            {
                **event,
                "plan": _plan(),
                "unresolved": TEXT,
                "children": LIST,
                "revocations": an_array(an_object(revocation)),
                "attempts": an_array(_attempt(resource)),
                "decisions": an_array(_decision()),
                "payload": {},
            }
        ),
        "Short": an_object({"id": {"type": "string"}, "state": event_state, "reason": TEXT}),
        "Bulk": an_object(
            {
                "matched": COUNT,
                "possible": COUNT,
                "passed_over": by_state,
                "more": {"type": "boolean", "description": "whether another call is needed, with `next` as `cursor`"},
                "next": TEXT,
            }
        )
        | {"additionalProperties": {**COUNT, "description": "retried, cancelled, approved, rejected or regranted"}},
        "Removal": an_object(
            {
                "id": {"type": "string"},
                "known": {"type": "boolean", "description": "whether any source ever named this Velt user"},
            }
        ),
        "Explained": an_object(
            {"source": {"type": "string"}, "rules_version": {}, "events": an_array({"type": "object"})}
        ),
        "Subscriptions": an_object({"subscriptions": an_array(an_object(_subscription()))}),
        "Reconciled": an_object({"sources": an_array(an_object(_reconciled()))}),
        "Alerts": an_object(
            {
                "alerts": an_array(
                    an_object(
                        {"key": {"type": "string"}, "text": {"type": "string"}, "raised_at": TIME, "told_at": TIME}
                    )
                )
            }
        ),
        "Stats": an_object(
            {
                "events": by_state,
                "revocations": by_state,
                "oldest_pending_seconds": SECONDS,
                "time_to_revoke_seconds": an_object({"p50": SECONDS, "p95": SECONDS, "p99": SECONDS, "count": COUNT}),
                "needs_regrant": COUNT,
                "alerts": COUNT,
                "confirmations": by_state,
                "delivery": {"type": "object"},
                "workers": an_array({"type": "object"}),
                "people": COUNT,
                "facts": COUNT,
            }
        ),
    }


def _plan() -> Json:
    """`directory`: with `error` it gave no answer in time, and what the event says was planned. `held_since`: of an
    event that tells again what is held."""
    said = dict.fromkeys(("said", "status", "error"), TEXT)
    directory = {"type": ["object", "null"], "properties": {**said, "asked_at": TIME}}
    rule = an_object(
        {"rule": {"type": "string"}, "verdict": {"type": "string"}, "because": {"type": "string"}, "resources": {}}
    )
    return {
        "type": ["object", "null"],
        "properties": {"directory": directory, "rules": an_array(rule), "incomplete": LIST, "held_since": TIME},
    }


def _subscription() -> Json:
    return {
        "source": {"type": "string"},
        "resource": {"type": "string"},
        "state": {"enum": ["live", "ending", "missing"]},
        "days_left": {"type": "number"},
        **dict.fromkeys(("id", "error", "gap"), TEXT),
        **dict.fromkeys(("expires_at", "looked_at", "gap_at"), TIME),
    }


def _reconciled() -> Json:
    return {
        "source": {"type": "string"},
        **dict.fromkeys(("since", "started_at", "ended_at"), TIME),
        **dict.fromkeys(("read", "found", "found_alone"), COUNT),
        "error": TEXT,
    }


def _attempt(resource: Json) -> Json:
    return an_object(
        {
            "id": {"type": "string"},
            "started_at": TIME,
            "finished_at": TIME,
            "outcome": {"type": "string"},
            "reason": {"type": "string"},
            "http_status": {"type": ["integer", "null"]},
            "velt_status": TEXT,
            "velt_user_id": {"type": "string"},
            "resources": an_array(resource),
            "revocations": LIST,
            "worker": {"type": "string"},
            "digest": {"type": "string"},
        }
    )


def _decision() -> Json:
    return an_object(
        {
            "id": {"type": "string"},
            "at": TIME,
            "actor": {"type": "string"},
            "action": {"type": "string"},
            "detail": {"type": "object"},
            "reason": TEXT,
            "digest": {"type": "string"},
        }
    )
