"""What a JSON Schema cannot see in relay.yaml: names that must exist, templates, patterns; and what is unwise. Pure."""

from __future__ import annotations

import math
import re
from collections.abc import Iterable, Iterator, Mapping
from typing import Any
from urllib.parse import urlsplit

from relay.contracts import did_you_mean, path_of, show
from relay.errors import Problem
from relay.patterns import Template, compile_regex

Document = Mapping[str, Any]
Path = tuple[str | int, ...]

LONGEST_REGEX = 500
USER_FIELDS = ("user.id", "user.login", "user.email", "user.external_id")
FIELDS = (*USER_FIELDS, "source", "group.id", "group.name", "app.id", "app.name")

# docs/reference.md, "Which fields a source fills": in the event itself, and what its API adds
FIELDS_BY_SOURCE: Mapping[str, frozenset[str]] = {
    "okta": frozenset({"user.id", "user.login", "group.id", "group.name", "app.id", "app.name"}),
    "entra": frozenset({"user.id", "group.id"}),
    "scim": frozenset({*USER_FIELDS, "group.id", "group.name"}),
}
LOOKED_UP_BY_SOURCE: Mapping[str, frozenset[str]] = {
    "okta": frozenset({"user.email", "user.external_id"}),
    "entra": frozenset({"user.login", "user.email", "group.name"}),
    "scim": frozenset(),
}

#: Where a source of this type has the credentials for its provider's API.
DIRECTORY_KEYS: Mapping[str, str] = {"okta": "api", "entra": "graph"}

# the addresses of a source
_ADDRESSES: tuple[Path, ...] = (("api", "url"), ("graph", "url"), ("graph", "login_url"), ("public_url",))
_ADMIN = re.compile(r"-admin\.(?=okta)")

LOOPBACK = ("localhost", "127.0.0.1", "::1")

# keys that the schema knows and no code obeys yet
IDLE_KEYS = ("retention",)


def has_directory(source: Document) -> bool:
    """Whether a source has the credentials for its provider's API."""
    return DIRECTORY_KEYS.get(source["type"]) in source


def problems(document: Document) -> list[Problem]:
    """Every mistake of a document that its schema allows."""
    found = list(_identity_problems(document["identity"]))
    names: set[str] = set()
    for index, rule in enumerate(document["rules"]):
        if rule["name"] in names:
            found.append(_problem(("rules", index, "name"), f"{show(rule['name'])} is another rule's name too"))
        names.add(rule["name"])
        found += _rule_problems(index, rule, document)
    return list(dict.fromkeys([*found, *_unused_list_problems(document)]))


def warnings(document: Document) -> list[Problem]:
    """What is allowed and will probably be regretted."""
    return [
        *_idle_warnings(document),
        *_directory_warnings(document),
        *_guard_warnings(document),
        *_address_warnings(document),
        *_identity_warnings(document),
        *_rule_warnings(document),
        _problem(
            ("velt",),
            "Velt's folders and documents are public unless set otherwise: any signed-in user may open them, with or "
            "without a grant. Set accessType to restricted or organizationPrivate where a removal is to have effect",
        ),
    ]


def with_rule_names(found: Iterable[Problem], document: Document) -> list[Problem]:
    """The problems in the order of the document, those of a rule with the rule's name at the end."""
    ordered = sorted(found, key=lambda problem: _place(problem.path, document))
    return [Problem(problem.path, problem.message + _rule_name(problem.path, document)) for problem in ordered]


def _place(path: str, node: Any) -> list[float]:
    """Where a path stands in the document: the position of each of its keys and items, infinity for what is missing."""
    places: list[float] = []
    while path:
        key = _first_key(path, node)
        if key is None:
            return [*places, math.inf]
        places.append(key if isinstance(key, int) else list(node).index(key))
        node, path = node[key], path[len(path_of([key])) :].removeprefix(".")
    return places


def _first_key(path: str, node: Any) -> str | int | None:
    if isinstance(node, list):
        found = re.match(r"\[(\d+)\]", path)
        return int(found[1]) if found and int(found[1]) < len(node) else None
    keys = [key for key in node if _begins(path, path_of([key]))] if isinstance(node, Mapping) else []
    # keys may hold dots (group.name), so that the longest is meant
    return max(keys, key=len, default=None)


def _begins(path: str, part: str) -> bool:
    return path.startswith(part) and path[len(part) : len(part) + 1] in ("", ".", "[")


def _rule_name(path: str, document: Document) -> str:
    found = re.match(r"rules\[(\d+)\]", path)
    rule = document["rules"][int(found[1])] if found else None
    name = rule.get("name") if isinstance(rule, Mapping) else None
    return f" (in the rule {show(name)})" if isinstance(name, str) and name else ""


def _problem(path: Path, message: str) -> Problem:
    return Problem(path_of(path), message)


def _identity_problems(identity: Document) -> Iterator[Problem]:
    for index, text in enumerate(identity["velt_user_id"]):
        path = ("identity", "velt_user_id", index)
        mistakes = list(_template_problems(path, text, USER_FIELDS))
        yield from mistakes
        if not mistakes and not Template.parse(text).fields:
            yield _problem(path, f"{show(text)} holds no field: everybody would be one Velt user; add {{user.email}}")


def _rule_problems(index: int, rule: Document, document: Document) -> Iterator[Problem]:
    path = ("rules", index)
    groups: set[str] = set()
    for where, value in _values(rule["when"]):
        if isinstance(value, Mapping) and "regex" in value:
            yield from _regex_problems((*path, "when", *where, "regex"), value["regex"], groups)
    yield from _source_name_problems((*path, "when"), rule["when"], document["sources"])
    if rule["revoke"] == "everything":
        return
    known = (*FIELDS, *sorted(groups))
    for position, entry in enumerate(rule["revoke"]):
        where = (*path, "revoke", position)
        if "list" in entry:
            yield from _list_problems(where, entry["list"], known, document)
        else:
            yield from _resource_problems(where, entry, known)


def _values(when: Document) -> Iterator[tuple[Path, Any]]:
    """Each literal or operator of `when` with its path."""
    for field, value in when.items():
        if isinstance(value, list):
            yield from (((field, index), item) for index, item in enumerate(value))
        else:
            yield (field,), value


def _regex_problems(path: Path, text: str, groups: set[str]) -> Iterator[Problem]:
    if len(text) > LONGEST_REGEX:
        yield _problem(path, f"is {len(text)} characters long; at most {LONGEST_REGEX} are allowed")
        return
    try:
        pattern = compile_regex(text)
    except ValueError as error:
        yield _problem(path, f"{show(text)} is not a regular expression that RE2 knows: {error}")
        return
    if "source" in pattern.groupindex:
        yield _problem(path, 'a group called "source" would hide the field of that name; give it another name')
    groups.update(pattern.groupindex)


def _source_name_problems(path: Path, when: Document, sources: Document) -> Iterator[Problem]:
    for where, value in _values({"source": when.get("source", [])}):
        for name in _literals(value):
            if name not in sources:
                yield _problem((*path, *where), f"there is no source {show(name)}{did_you_mean(name, sources)}")


def _literals(value: Any) -> list[str]:
    """The exact texts that a condition names, in itself or in anything-but."""
    if isinstance(value, Mapping):
        value = value.get("anything-but", [])
    return [value] if isinstance(value, str) else list(value)


def _list_problems(path: Path, name: str, known: Iterable[str], document: Document) -> Iterator[Problem]:
    lists = document.get("lists", {})
    if name not in lists:
        hint = did_you_mean(name, lists) or "; there are no lists in this file"
        yield _problem((*path, "list"), f"there is no list {show(name)}{hint}")
        return
    for index, entry in enumerate(lists[name]):
        for problem in _resource_problems(("lists", name, index), entry, known):
            yield Problem(problem.path, f"{problem.message} (used at {path_of(path)})")


def _unused_list_problems(document: Document) -> Iterator[Problem]:
    used = {
        entry["list"]
        for rule in document["rules"]
        if rule["revoke"] != "everything"
        for entry in rule["revoke"]
        if "list" in entry
    }
    for name, entries in document.get("lists", {}).items():
        for index, entry in enumerate(entries if name not in used else ()):
            yield from _resource_problems(("lists", name, index), entry, FIELDS)


def _resource_problems(path: Path, entry: Document, known: Iterable[str]) -> Iterator[Problem]:
    for key in ("id", "organizationId"):
        if key in entry:
            yield from _template_problems((*path, key), entry[key], known)


def _template_problems(path: Path, text: str, known: Iterable[str]) -> Iterator[Problem]:
    try:
        template = Template.parse(text)
    except ValueError as error:
        yield _problem(
            path, f"{show(text)} is not a template: {error}; a brace that is meant is written twice, {{{{ or }}}}"
        )
        return
    for field in sorted(template.fields - set(known)):
        yield _problem(path, f"there is no field {show(field)} here{did_you_mean(field, known)}")


def _idle_warnings(document: Document) -> Iterator[Problem]:
    yield from (_problem((key,), "is read and does nothing yet") for key in IDLE_KEYS if key in document)


def _directory_warnings(document: Document) -> Iterator[Problem]:
    for name, source in document["sources"].items():
        key = DIRECTORY_KEYS.get(source["type"])
        if key is not None and key not in source:
            yield _problem(
                ("sources", name),
                f"has no {key}: nothing can be looked up, and what is lost in an outage, of the relay's or the "
                "provider's, is lost for good; docs/okta.md and docs/entra.md tell how to make the credentials",
            )


def _guard_warnings(document: Document) -> Iterator[Problem]:
    if "guard" not in document:
        yield Problem(
            "guard", "is not set: a mistake in the provider may remove everybody at once; set {users: 100, within: 1h}"
        )


def _address_warnings(document: Document) -> Iterator[Problem]:
    for name, source in document["sources"].items():
        for path in _ADDRESSES:
            url = _text_at(source, path)
            told = _trouble_with(path, url, name) if url else None
            if told is not None:
                yield _problem(("sources", name, *path), told)


def _text_at(source: Document, path: Path) -> str:
    found: Any = source
    for key in path:
        found = found.get(key, {})
    return found or ""


def _trouble_with(path: Path, url: str, source: str) -> str | None:
    """What is probably wrong with an address, None where nothing is."""
    parts = urlsplit(url)
    where = parts.path.strip("/")
    if _is_open(url) and path == ("public_url",):
        return "begins with http: Microsoft Graph sends to https addresses only"
    if _is_open(url):
        return "begins with http: the token would go in clear; use https"
    if path == ("api", "url") and where:
        return f"ends in /{where}: the relay adds the paths of Okta's API itself; wanted is the address alone"
    if path == ("api", "url") and _ADMIN.search(parts.netloc):
        return f"is the admin console; the API is at {parts.scheme}://{_ADMIN.sub('.', parts.netloc, count=1)}"
    if path == ("graph", "url") and not where:
        return f"has no version at its end; wanted is such as {url.rstrip('/')}/v1.0"
    if path == ("public_url",) and where.endswith(f"hooks/{source}"):
        return f"ends in /hooks/{source}, which the relay adds itself; leave it out"
    return None


def _is_open(url: str) -> bool:
    """Whether what goes there can be read on the way."""
    parts = urlsplit(url)
    return parts.scheme == "http" and parts.hostname not in LOOPBACK


def _identity_warnings(document: Document) -> Iterator[Problem]:
    if "map" in document["identity"]:
        return
    templates = [Template.parse(text) for text in document["identity"]["velt_user_id"]]
    for name, source in document["sources"].items():
        told = FIELDS_BY_SOURCE[source["type"]]
        told |= LOOKED_UP_BY_SOURCE[source["type"]] if has_directory(source) else frozenset()
        if not any(template.fields <= told for template in templates):
            yield _problem(
                ("identity", "velt_user_id"),
                f"no template can be filled for the source {show(name)}, which tells {_user_fields(told)}; "
                "add a template with one of these, or identity.map",
            )


def _user_fields(fields: frozenset[str]) -> str:
    return " and ".join(field for field in USER_FIELDS if field in fields)


def _rule_warnings(document: Document) -> Iterator[Problem]:
    if not document["rules"]:
        yield Problem("rules", "is empty: nothing will be removed but what an operator removes by hand")
    for index, rule in enumerate(document["rules"]):
        sources = {name: source for name, source in document["sources"].items() if _applies(rule["when"], name)}
        for field in rule["when"]:
            if field not in ("kind", "source"):
                yield from _field_warnings(("rules", index, "when", field), field, sources)


def _field_warnings(path: Path, field: str, sources: Document) -> Iterator[Problem]:
    for name, source in sources.items():
        if field in LOOKED_UP_BY_SOURCE[source["type"]] and not has_directory(source):
            yield _problem(
                path,
                f"the source {show(name)} does not tell {field} without a look-up, so that this rule cannot be decided "
                f"and its events fail; configure sources.{name}.{DIRECTORY_KEYS[source['type']]}, name the sources "
                "meant in when.source, or use another field",
            )
    ever = [FIELDS_BY_SOURCE[source["type"]] | LOOKED_UP_BY_SOURCE[source["type"]] for source in sources.values()]
    if not any(field in fields for fields in ever):
        yield _problem(path, f"no source that this rule is for ever tells {field}; the rule can never match")


def _applies(when: Document, source: str) -> bool:
    """Whether the rule's `source` condition lets this source in; operators other than anything-but count as yes."""
    conditions = [value for _, value in _values({"source": when.get("source", [])})]
    return not conditions or any(_lets_in(value, source) for value in conditions)


def _lets_in(value: Any, source: str) -> bool:
    if isinstance(value, Mapping):
        return "anything-but" not in value or source not in _literals(value)
    return bool(value == source)
