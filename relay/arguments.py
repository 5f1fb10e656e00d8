"""What the operators' verbs take on the command line, and what the API's bodies for it are."""

from __future__ import annotations

import argparse
import json
from collections.abc import Mapping
from typing import Any, TypeAlias

from relay import contracts
from relay.errors import Refused

Arguments: TypeAlias = argparse.Namespace
Answer = dict[str, Any]

#: More events than this are changed only after a question.
MANY = 100
#: A filter that a verb on many events is mostly asked with.
_EXAMPLES = {"approve": "--state held", "reject": "--state held", "regranted": "--needs-regrant"}
_FILTER = contracts.load("api-filter")["properties"]
RESOURCE = "organization:ID, document:ORGANIZATION/ID, folder:ORGANIZATION/ID, or its JSON"


class AnyOrder(argparse.ArgumentParser):
    """Takes its words in any order. argparse by itself takes all that are no options at one place.

    What stands behind `--` is no option; with it, the options come first.
    """

    _is_asked = False

    def parse_known_args(self, args: Any = None, namespace: Any = None) -> Any:
        # parse_known_intermixed_args comes back to this for each of its steps, and loses the `--`
        if self._is_asked or "--" in args:
            return super().parse_known_args(args, namespace)
        self._is_asked = True
        try:
            return self.parse_known_intermixed_args(args, namespace)
        finally:
            self._is_asked = False


def add_filter(parser: argparse.ArgumentParser) -> None:
    for name, schema in _FILTER.items():
        option, told = f"--{name.replace('_', '-')}", schema["description"]
        if schema.get("type") == "boolean":
            parser.add_argument(option, action=argparse.BooleanOptionalAction, help=told)
        else:
            parser.add_argument(option, help=told)


def add_choice(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("id", nargs="?", metavar="ID", help="one event; without it all events of the filter")
    add_filter(parser)
    parser.add_argument("--dry-run", action="store_true", help="only count the filter's events")
    parser.add_argument("--yes", action="store_true", help=f"do not ask, even for more than {MANY} events")
    add_reason(parser)


def add_reason(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--reason", metavar="TEXT", help="why, for whoever reads the evidence later")


def filter_of(arguments: Arguments) -> Answer:
    """The filter that was asked for, as the API takes it."""
    given: Mapping[str, Any] = vars(arguments)
    return {name: given[name] for name in _FILTER if given[name] is not None}


def body_of(arguments: Arguments) -> Answer:
    """The body of a decision on one event or on those of a filter, as the API takes it. Raises Refused (400)."""
    wanted = filter_of(arguments)
    if arguments.id and (wanted or arguments.dry_run):
        raise Refused(400, "name one event or a filter, not both; --dry-run is for filters")
    if not arguments.id and not wanted:
        example = _EXAMPLES.get(arguments.verb, "--state failed")
        raise Refused(400, f"name an event, or a filter such as {example}")
    if arguments.id:
        return reason_of(arguments)
    return {"filter": wanted, **({"dry_run": True} if arguments.dry_run else {}), **reason_of(arguments)}


def reason_of(arguments: Arguments) -> Answer:
    """The reason that was given, as the API takes it."""
    return {"reason": arguments.reason} if arguments.reason else {}


def resource_of(text: str) -> Any:
    """A resource in short or as JSON. Raises Refused (400)."""
    if text.startswith("{"):
        try:
            return json.loads(text)
        except (ValueError, RecursionError):
            raise Refused(400, f"{contracts.show(text)} is not JSON") from None
    resource_type, _, identifier = text.partition(":")
    if resource_type == "organization":
        if "/" in identifier:
            meant = f"document:{identifier} or folder:{identifier}"
            raise Refused(400, f"{contracts.show(text)} names no organization; wanted is {meant}, or its JSON")
        return {"type": resource_type, "id": identifier}
    organization, slash, inner = identifier.partition("/")
    if not slash:
        raise Refused(400, f"{contracts.show(text)} names no resource; wanted is {RESOURCE}")
    return {"type": resource_type, "id": inner, "organizationId": organization}
