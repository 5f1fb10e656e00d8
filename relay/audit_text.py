"""An audit's answer (relay/auditing.py) as text for a terminal."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from relay.access import AccessType
from relay.contracts import printable
from relay.terminal import resource, table

Answer = Mapping[str, Any]


def table_of(answer: Answer) -> str:
    """Who has what without being entitled to it and the reverse, how to remove it, and what could not be compared."""
    resources = answer["resources"]
    extra, missing = (sum(one[name] for one in resources) for name in ("extra", "missing"))
    parts = [
        _extra_access(answer.get("extra", ())),
        _missing_access(answer.get("missing", ())),
        _unanswered(answer["unanswered"]),
        "\n".join(_remarks(answer)),
        f"{extra} extra, {missing} missing (people: {answer['people']}, resources: {len(resources)})",
    ]
    return "\n\n".join(part for part in parts if part)


def _extra_access(lines: Sequence[Answer]) -> str:
    if not lines:
        return ""
    rows = [
        (
            one["user"],
            resource(one["resource"]),
            one["role"],
            "; ".join(
                part
                for part in (
                    one["why"],
                    one["doubt"] and f"not certain: {one['doubt']}",
                    one["planned"] and f"its removal is planned: {one['planned']}",
                    one["held"] and f"the guard holds an event of this person: {one['held']}",
                )
                if part
            ),
        )
        for one in lines
    ]
    told = table(("EXTRA: USER", "RESOURCE", "ROLE", "WHY"), rows)
    commands = [printable(one["remove"]) for one in lines if one["remove"]]
    return "\n".join([told, *(["", "to remove it:", *commands] if commands else [])])


def _missing_access(lines: Sequence[Answer]) -> str:
    rows = [(one["user"], resource(one["resource"]), one["because"]) for one in lines]
    return table(("MISSING: USER", "RESOURCE", "ENTITLED BECAUSE"), rows) if rows else ""


def _unanswered(lines: Sequence[Answer]) -> str:
    rows = [(one["user"], resource(one["resource"]), one["why"]) for one in lines]
    return table(("NOT ANSWERED: USER", "RESOURCE", "VELT SAID"), rows) if rows else ""


def _remarks(answer: Answer) -> Iterator[str]:
    """What the lists do not tell, a line each."""
    for one in answer["resources"]:
        name = printable(resource(one["resource"]))
        if one["access_type"] == AccessType.PUBLIC:
            yield f"{name} is open to all: it is public, and a grant on it does not matter"
        if not one["exists"]:
            yield f"{name} does not exist in Velt"
        if one["silent"]:
            yield f"{name}: Velt says nothing about {one['silent']} of {one['asked']} people"
    for nobody in answer["nameless"]:
        yield printable(f"{nobody['id']} of {nobody['source']} could not be asked about: {nobody['why']}")
    for rule in answer["rules_not_listed"]:
        yield printable(f"rule {rule!r} names apps otherwise than by id: who has them is known by messages only")
    for source in answer["by_messages_only"]:
        yield f"the source {source} could not be listed: what it gives is known by messages only"
