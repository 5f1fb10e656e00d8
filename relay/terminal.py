"""Answers of relay/operate.py as text for a terminal."""

from __future__ import annotations

import shutil
import sys
import textwrap
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from relay.contracts import printable
from relay.model import Resource

Answer = Mapping[str, Any]


#: Why events of a state are passed over, by what was to be done with them.
_PASSED_OVER: Mapping[str, Mapping[str, str]] = {
    "retried": {
        "received": "a worker plans them first",
        "held": "held events wait to be approved or rejected",
        "done": "done events need --replan",
    },
    "cancelled": {
        "held": "held events wait to be approved or rejected",
        "done": "nothing is left to cancel",
        "ignored": "nothing is left to cancel",
    },
    "approved": {},
    "rejected": {},
    "regranted": {},
}
#: What can be done with the events of a filter, as the answer says it.
DECIDED = _PASSED_OVER.keys()


def table(head: Sequence[str], rows: Sequence[Sequence[Any]]) -> str:
    """Columns as wide as their longest value, the last one as it is.

    On a terminal that is too narrow the last columns go under each row. Nothing is ever cut: an id stays whole.
    """
    lines = [list(head), *([_cell(value) for value in row] for row in rows)]
    widths = [max(len(line[column]) for line in lines) for column in range(len(head))]
    width = shutil.get_terminal_size().columns if sys.stdout.isatty() else None
    beside = len(head) if width is None else _fitting(widths, width)
    return "\n".join(_line(line[:beside], widths) + _under(line[beside:], width) for line in lines)


def _fitting(widths: Sequence[int], width: int) -> int:
    """How many columns fit beside each other, one at least."""
    ends = [sum(widths[: count + 1]) + 2 * count for count in range(len(widths))]
    return max(1, sum(end <= width for end in ends))


def _under(cells: Sequence[str], width: int | None) -> str:
    """The line, or lines, under a row."""
    text = "  ".join(cell for cell in cells if cell)
    wrapped = textwrap.wrap(
        text,
        width or len(text) or 1,
        initial_indent="    ",
        subsequent_indent="    ",
        break_long_words=False,
        break_on_hyphens=False,
    )
    return "".join("\n" + line for line in wrapped)


def events(answer: Answer) -> str:
    if not answer["events"]:
        return "no events"
    rows = [
        (_time(e["received_at"]), e["id"], e["state"], e["kind"], _person(e), _name(e["group"] or e["app"]), _why(e))
        for e in answer["events"]
    ]
    text = table(("RECEIVED", "ID", "STATE", "KIND", "USER", "GROUP OR APP", "WHY"), rows)
    return text + (f"\n\nmore: --cursor {answer['next']}" if answer["next"] else "")


def event(answer: Answer) -> str:
    lines = [
        ("id", answer["id"]),
        ("state", _and(answer["state"], answer["reason"])),
        ("kind", f"{answer['kind']} ({answer['type']}) from {answer['source']}"),
        ("user", ", ".join(f"{name} {value}" for name, value in answer["user"].items() if value)),
        ("group", _name(answer["group"])),
        ("app", _name(answer["app"])),
        ("occurred", _time(answer["occurred_at"])),
        ("received", _time(answer["received_at"])),
        ("planned", _and(_time(answer["planned_at"]), answer["rules_version"] and f"rules {answer['rules_version']}")),
        ("came of", answer["parent"]),
        ("found by", answer["found_by"]),
        ("led to", ", ".join(answer["children"])),
        ("undecided", answer["unresolved"]),
        ("incomplete", ", ".join(answer["incomplete"])),
        ("directory", _directory((answer["plan"] or {}).get("directory"))),
    ]
    parts = [_pairs(lines), *_parts_of_event(answer)]
    return "\n\n".join(parts)


def _directory(said: Answer | None) -> str | None:
    if said and said.get("error"):
        return f"gave no answer within look_up.patience, so what the event says was planned: {said['error']}"
    return f"said at {_time(said['asked_at'])}: {said['said']}" if said else None


def _parts_of_event(answer: Answer) -> Iterator[str]:
    if answer["plan"] and answer["plan"].get("rules"):
        yield _rules(answer["plan"]["rules"])
    if answer["revocations"]:
        rows = [
            (
                r["id"],
                resource(r["resource"]),
                r["velt_user_id"],
                r["state"],
                r["attempts"],
                _time(r["next_attempt_at"]),
                _and(
                    r["waits_for"], r["reason"], "needs a new grant" if r["needs_regrant"] else None, _confirmation(r)
                ),
            )
            for r in answer["revocations"]
        ]
        yield table(("REVOCATION", "RESOURCE", "VELT USER", "STATE", "TRIES", "NEXT", "WHY"), rows)
    if answer["attempts"]:
        calls = [
            (_time(a["started_at"]), a["outcome"], a["http_status"], _about(a["resources"]), a["reason"], a["id"])
            for a in answer["attempts"]
        ]
        yield table(("CALLED", "OUTCOME", "HTTP", "ABOUT", "WHY", "ATTEMPT"), calls)
    if answer["decisions"]:
        made = [(_time(d["at"]), d["actor"], d["action"], d["reason"]) for d in answer["decisions"]]
        yield table(("DECIDED", "BY", "WHAT", "WHY"), made)


def explained(answer: Answer) -> str:
    """Each event of the payload: what it would come to, rule by rule, and what would be sent to Velt."""
    if not answer["events"]:
        return "the payload holds no event"
    return "\n\n".join(_explained(one) for one in answer["events"])


def _explained(one: Answer) -> str:
    lines = [
        ("event", f"{one['kind']} ({one['type']})"),
        ("would be", _and(one["state"], one["reason"])),
        ("recorded", one["recorded_as"] and f"as {one['recorded_as']}: the same event again would be left out"),
        ("user", ", ".join(f"{name} {value}" for name, value in one["user"].items() if value)),
        ("group", _name(one["group"])),
        ("app", _name(one["app"])),
        ("incomplete", ", ".join(one["incomplete"])),
    ]
    parts = [_pairs(lines)]
    if one["rules"]:
        parts.append(_rules(one["rules"]))
    if one["removals"]:
        rows = [
            (
                resource(r["resource"]),
                r["velt_user_id"],
                "would be removed" if r["state"] == "pending" else r["state"],
                r["reason"] or f"rule {', '.join(r['rules'])}",
            )
            for r in one["removals"]
        ]
        parts.append(table(("RESOURCE", "VELT USER", "VERDICT", "WHY"), rows))
    parts += [_sent(body) for body in one.get("velt", ())]
    parts += [_explained(person) for person in one["people"]]
    return "\n\n".join(parts)


def stats(answer: Answer) -> str:
    took, delivery = answer["time_to_revoke_seconds"], answer["delivery"]
    lines = [
        ("events", _counts(answer["events"])),
        ("revocations", _counts(answer["revocations"])),
        ("oldest pending", _seconds(answer["oldest_pending_seconds"])),
        ("time to revoke", ", ".join(f"{name} {_seconds(took[name])}" for name in ("p50", "p95", "p99")) + " (24 h)"),
        ("needs a new grant", answer["needs_regrant"] or None),
        ("alerts", answer["alerts"] or None),
        ("confirmation", _confirmations(answer["confirmations"])),
        ("delivery", _and(f"{delivery['state']}, mode {delivery['mode']}", delivery["why"])),
        ("paused", _and(f"by {delivery['paused_by']}", delivery["paused_reason"]) if delivery["paused"] else None),
        ("known", f"{answer['people']} people, {answer['facts']} facts"),
    ]
    workers = [
        (w["worker"], "alive" if w["alive"] else "silent", _time(w["at"]), w["rules"]) for w in answer["workers"]
    ]
    parts = [
        _pairs(lines),
        table(("WORKER", "STATE", "HEARD", "RULES"), workers) if workers else "no worker was heard of",
    ]
    return "\n\n".join(parts)


def subscriptions(answer: Answer) -> str:
    if not answer["subscriptions"]:
        return "no subscriptions are kept: no source has a public_url, or no worker has looked yet"
    rows = [
        (s["source"], s["resource"], s["state"], s["id"], _time(s["expires_at"]), s["days_left"], s["error"])
        for s in answer["subscriptions"]
    ]
    return table(("SOURCE", "RESOURCE", "STATE", "ID", "ENDS", "DAYS LEFT", "WHY"), rows)


def reconciled(answer: Answer) -> str:
    """How far each source is read."""
    if not answer["sources"]:
        return "no source was read yet: only those with credentials for their provider's API are"
    rows = [
        (s["source"], _time(s["started_at"]), _time(s["ended_at"]), s["read"], s["found"], s["found_alone"], s["error"])
        for s in answer["sources"]
    ]
    return table(("SOURCE", "STARTED", "ENDED", "READ", "NEW", "NEW EVER", "WHY IT STOPPED"), rows)


def alerts(answer: Answer) -> str:
    if not answer["alerts"]:
        return "no alerts"
    rows = [(_time(a["raised_at"]), a["key"], _time(a["told_at"]) or "not yet", a["text"]) for a in answer["alerts"]]
    return table(("SINCE", "ALERT", "TOLD", "WHAT"), rows)


def plain(answer: Answer) -> str:
    """A short answer, a line for each of its values."""
    return _pairs([(name, value) for name, value in answer.items()])


def bulk(answer: Answer) -> str:
    """What was done with the events of a filter, and why not with all of them."""
    (past,) = answer.keys() & _PASSED_OVER.keys()
    why = _PASSED_OVER[past]
    others = [
        f"{number} {state} ({why.get(state, f'only held events can be {past}')})"
        for state, number in answer["passed_over"].items()
    ]
    lines = [(name, answer[name]) for name in ("matched", "possible", past)]
    return _pairs([*lines, ("passed over", ", ".join(others))])


def removal(answer: Answer) -> str:
    """The event of a removal by hand, and a word where its user id may be a mistake."""
    told = _pairs([("id", answer["id"])])
    doubt = "nobody by this Velt user id is known to the relay; the removal goes to Velt all the same"
    return told if answer["known"] else f"{told}\n{doubt}"


def _rules(rules: Sequence[Answer]) -> str:
    rows = [
        (r["rule"], r["verdict"], _and(r["because"], ", ".join(resource(given) for given in r["resources"])))
        for r in rules
    ]
    return table(("RULE", "VERDICT", "WHY"), rows)


def _sent(body: Answer) -> str:
    resources = body["data"]["permissions"]["resources"]
    return f"would be sent to Velt: remove {body['data']['userId']} from " + ", ".join(
        resource(given) for given in resources
    )


def _line(cells: Sequence[str], widths: Sequence[int]) -> str:
    padded = [cell.ljust(width) for cell, width in zip(cells, widths, strict=False)]
    return "  ".join(padded).rstrip()


def _pairs(lines: Sequence[tuple[str, Any]]) -> str:
    """`name  value` for the values that are there."""
    shown = [(name, _cell(value)) for name, value in lines if value not in (None, "")]
    width = max((len(name) for name, _ in shown), default=0)
    return "\n".join(f"{name.ljust(width)}  {value}" for name, value in shown)


def _cell(value: Any) -> str:
    if isinstance(value, bool):
        return "yes" if value else "no"
    return "" if value is None else printable(str(value))


def _and(*parts: Any) -> str:
    *before, last = [str(part) for part in parts if part] or [""]
    return ": ".join([*(part.removesuffix(".") for part in before), last])


def _time(text: str | None) -> str:
    return f"{text[:10]} {text[11:19]}Z" if text else ""


def _confirmation(revocation: Answer) -> str:
    """What asking Velt about a removal came to, and whether it is asked again."""
    due_at = revocation["confirmation_due_at"]
    told = _and(revocation["confirmation"], revocation["confirmation_reason"])
    asked = "Velt is asked again at" if told else "Velt is asked at"
    return "; ".join(part for part in (told, due_at and f"{asked} {_time(due_at)}") if part)


def _confirmations(counts: Mapping[str, int]) -> str | None:
    told = {name.replace("_", " "): number for name, number in counts.items() if number}
    return _counts(told) if told else None


def _seconds(value: float | None) -> str:
    return "-" if value is None else f"{value:.1f} s"


def _counts(counts: Mapping[str, int]) -> str:
    return ", ".join(f"{number} {state}" for state, number in counts.items()) or "none"


def _person(event: Answer) -> str:
    user = event["user"]
    return user["velt_user_id"] or user["email"] or user["login"] or user["id"] or ""


def _name(thing: Answer | None) -> str:
    return (thing["name"] or thing["id"] or "") if thing else ""


def _why(event: Answer) -> str:
    counts = _counts(event["revocations"]) if event["revocations"] else ""
    regrants = event["needs_regrant"]
    return _and(event["reason"] or counts, event["waits_for"], regrants and f"{regrants} to be granted again")


def _about(resources: Sequence[Answer]) -> str:
    """What a call was about, short: the table of revocations has them all."""
    first, *others = resources
    return resource(first) + (f" and {len(others)} more" if others else "")


def resource(given: Answer) -> str:
    """A resource of an answer, in words."""
    return str(Resource.of_velt(given))
