"""What plans come to, and how they are kept and shown: JSON."""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Any

from relay.losses import Plan, Step
from relay.model import EventState, Resource


def outcome_of(plan: Plan) -> dict[str, Any]:
    """The state, with its reason, of an event that was just planned so."""
    questions = "; ".join(plan.open_questions) or None
    if plan.resources:
        return {"state": EventState.PLANNED.value, "reason": questions, "unresolved": questions}
    if questions:
        return {"state": EventState.FAILED.value, "reason": questions, "unresolved": questions}
    empty = [f"rule {step.rule!r} {step.because}" for step in plan.steps if step.verdict]
    return {
        "state": EventState.IGNORED.value,
        "reason": "; ".join(empty) if empty else "no rule matches",
        "unresolved": None,
    }


def plan_as_json(plan: Plan, evidence: Mapping[str, Any] | None = None) -> dict[str, Any]:
    """What is kept of a plan: the rules that matched or stayed open, what `everything` could not name, and what the
    directory said."""
    return {
        "directory": evidence,
        "rules": [step_as_json(step) for step in plan.steps if step.verdict is not False],
        "incomplete": list(plan.incomplete),
    }


def resources_in(plan: str) -> set[Resource]:
    """What the rules of a kept plan would take."""
    named = (given for rule in json.loads(plan).get("rules", ()) for given in rule["resources"])
    return {Resource(given["type"], given["id"], given.get("organizationId")) for given in named}


def step_as_json(step: Step) -> dict[str, Any]:
    """What one rule made of an event."""
    return {
        "rule": step.rule,
        "verdict": {True: "applies", False: "does not apply", None: "undecided"}[step.verdict],
        "because": step.because,
        "resources": [resource.as_velt() for resource in step.resources],
    }
