"""Plans as they are kept and shown: JSON."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from relay.entitlement import Plan, Step


def plan_as_json(plan: Plan, evidence: Mapping[str, Any] | None = None) -> dict[str, Any]:
    """What is kept of a plan: the rules that matched or stayed open, what `everything` could not name, and what the
    directory said."""
    return {
        "directory": evidence,
        "rules": [step_as_json(step) for step in plan.steps if step.verdict is not False],
        "incomplete": list(plan.incomplete),
    }


def step_as_json(step: Step) -> dict[str, Any]:
    """What one rule made of an event."""
    return {
        "rule": step.rule,
        "verdict": {True: "applies", False: "does not apply", None: "undecided"}[step.verdict],
        "because": step.because,
        "resources": [resource.as_velt() for resource in step.resources],
    }
