"""SCIM bodies as they come, made into what the RFCs describe: one place for what identity providers do differently.

Microsoft's shapes: https://learn.microsoft.com/entra/identity/app-provisioning/use-scim-to-provision-users-and-groups
and .../application-provisioning-config-problem-scim-compatibility; Okta's: https://developer.okta.com/docs/reference/scim/.
What cannot be meant is refused with 400 and a sentence; nothing here guesses who should lose access.
"""

from __future__ import annotations

import re
from dataclasses import dataclass, field
from typing import Any, TypeAlias

from scim2_models import (
    AttributeBinding,
    InvalidPathException,
    InvalidSyntaxException,
    InvalidValueException,
    Path,
    Resource,
)
from scim2_server.utils import parametrize

from relay.store.scim_members import Step
from relay.store.scim_rows import Member, is_complex
from relay.web.scim_json import Document, Json, check_filter

Model: TypeAlias = type[Resource[Any]]

MOST_OPERATIONS = 1000

PATCH_OP = "urn:ietf:params:scim:api:messages:2.0:PatchOp"
_MEMBERS = "members"
_ONE_MEMBER = re.compile(r'members\[\s*value\s+eq\s+"([^"\\]*)"\s*\]', re.IGNORECASE)


def resource(document: Document, model: Model) -> Document:
    """The body of a POST or PUT, with the schemas that are served here and no others."""
    body = _attributes(document, model)
    extensions = [str(urn) for urn in model.get_extension_models() if str(urn) in body]
    return body | {"schemas": [str(model.__schema__), *extensions]}


def patch(document: Document, model: Model) -> Document:
    """The body of a PATCH; no operations at all, as Microsoft's validator sends, change nothing."""
    operations = _lowered(document).get("operations")
    if not isinstance(operations, list):
        raise InvalidSyntaxException(detail="Operations is missing or not a list")
    if len(operations) > MOST_OPERATIONS:
        raise InvalidValueException(detail=f"more than {MOST_OPERATIONS} operations in one PATCH")
    tidy = [each for operation in operations for each in _operations(operation, model)]
    return {"schemas": [PATCH_OP], "Operations": tidy or [{"op": "add", "value": {}}]}


def search(document: Document) -> Document:
    """The body of a POST to .search."""
    wanted = _lowered(document).get("filter")
    if isinstance(wanted, str):
        check_filter(wanted)
    return document


def _lowered(document: Document) -> Document:
    return {name.lower(): value for name, value in document.items()}


def _attributes(document: Document, model: Model, prefix: str = "") -> Document:
    """The attributes of a resource or of one of its extensions, by name, as their schema has them."""
    extensions = {} if prefix else {str(urn).lower(): str(urn) for urn in model.get_extension_models()}
    tidy: Document = {}
    for name, value in document.items():
        urn = extensions.get(name.lower())
        if urn is not None and isinstance(value, dict):
            tidy[urn] = _attributes(value, model, f"{urn}:")
        elif name.lower() != "schemas":
            check_filter(name)
            path = _path(prefix + name, model)
            tidy[name] = value if path is None else _fitting(path, value)
    return tidy


def _operations(operation: Json, model: Model) -> list[Document]:
    if not isinstance(operation, dict):
        raise InvalidSyntaxException(detail="an operation is not an object")
    named = _lowered(operation)
    op, path = named.get("op"), named.get("path")
    if not isinstance(op, str) or not isinstance(path, str | None):
        raise InvalidValueException(detail="an operation needs an op, and its path is a text")
    named["op"] = op.lower()
    if path:
        return [_with_path(named, _own_name(path, model), model)]
    value = named.get("value")
    entry = value[0] if isinstance(value, list) and len(value) == 1 else value
    if not isinstance(entry, dict):
        raise InvalidValueException(detail="an operation without a path needs an object of attributes as its value")
    if named["op"] == "remove":
        each = ({"op": "remove", "path": name, "value": taken} for name, taken in entry.items())
        return [_with_path(removal, _own_name(removal["path"], model), model) for removal in each]
    if any(_own_name(name, model).lower() == _MEMBERS and taken is None for name, taken in entry.items()):
        raise _names_nobody()
    return [{"op": named["op"], "value": _attributes(entry, model)}]


def _own_name(path: str, model: Model) -> str:
    """The path without the URN of the resource's own schema, which says nothing more."""
    own = f"{model.__schema__}:"
    return path[len(own) :] if path.lower().startswith(own.lower()) else path.strip()


def _with_path(named: Document, path: str, model: Model) -> Document:
    check_filter(path)
    operation = {"op": named["op"], "path": path}
    if path.lower() == _MEMBERS and "members" in model.model_fields:
        return _members_operation(operation | {"path": _MEMBERS}, named)
    if "value" not in named:
        return operation
    value, target = named["value"], _path(path, model)
    if named["op"] != "remove":
        return operation | {"value": value if target is None else _fitting(target, value)}
    if target is None or not _is_list(target):
        return operation  # one value, or those that the path selects: there is nothing more to choose
    if not value:
        raise InvalidValueException(detail=f"{path}: a remove with an empty value; leave the value out to remove all")
    return operation | {"value": [_without_nulls(entry) for entry in (value if isinstance(value, list) else [value])]}


def _members_operation(operation: Document, named: Document) -> Document:
    """Only a remove without any `value` means everybody (RFC 7644 section 3.5.2.2). With one, that says who."""
    if operation["op"] == "remove" and "value" not in named:
        return operation
    value = named.get("value")
    listed = [] if value is None else _members(value)
    if value is None or (operation["op"] == "remove" and not listed):
        raise _names_nobody()
    if operation["op"] == "remove":
        listed = [{"value": member["value"]} for member in listed]
    return operation | {"value": listed}


def _members(value: Json) -> list[Document]:
    """Members as value, type and display, each once. Raises InvalidValueException where one has no id."""
    found: dict[str, Document] = {}
    for entry in value if isinstance(value, list) else [value]:
        told = _lowered(entry) if isinstance(entry, dict) else {"value": entry}
        member_id = told.get("value")
        if not isinstance(member_id, str) or not member_id:
            raise _names_nobody()
        texts = {name: told[name] for name in ("value", "type", "display") if isinstance(told.get(name), str)}
        found.setdefault(member_id, texts)
    return list(found.values())


def _names_nobody() -> InvalidValueException:
    return InvalidValueException(
        detail="members: each member needs a value, the id of a user or group; nobody was removed. To empty a group, "
        "remove members without any value, or replace them by an empty list"
    )


def _path(text: str, model: Model) -> Path[Any] | None:
    """The path to a declared attribute, None for anything else."""
    try:
        path: Path[Any] = parametrize(Path, model)(text)
        return path if path.resolve() is not None else None
    except InvalidPathException:
        return None


def _is_list(path: Path[Any]) -> bool:
    """Whether the path stands for all the values of a multi-valued attribute."""
    binding: Any = path.resolve()
    return bool(binding.is_multivalued and not binding.sub_field_name and path.value_filter is None)


def _fitting(path: Path[Any], value: Json) -> Json:
    """A value in the shape of its attribute: [{"value": "False"}] for a boolean, "id" for a manager, one for a list."""
    binding: Any = path.resolve()
    if _is_list(path):
        if binding.field_name == _MEMBERS:
            return None if value is None else _members(value)
        entries = value if isinstance(value, list) or value is None else [value]
        wraps = is_complex(binding)
        return entries and [{"value": entry} if wraps and isinstance(entry, str) else entry for entry in entries]
    if isinstance(value, list) and len(value) <= 1:
        value = value[0] if value else None
    if path.value_filter is None and not binding.sub_field_name and binding.target_type is not None:
        return _fitting_one(binding, value)
    return _unwrapped(value) if binding.sub_field_name else value


def _fitting_one(binding: AttributeBinding, value: Json) -> Json:
    if not is_complex(binding):
        return _unwrapped(value)
    if isinstance(value, str):  # a manager as its id; "" takes the manager away
        return {"value": value} if value else None
    return value


def _unwrapped(value: Json) -> Json:
    return value["value"] if isinstance(value, dict) and value.keys() == {"value"} else value


def _without_nulls(entry: Json) -> Json:
    return {name: value for name, value in entry.items() if value is not None} if isinstance(entry, dict) else entry


@dataclass(frozen=True, slots=True)
class GroupChange:
    """A PATCH of a group that names who comes and goes, and at most its names: all of it can be done in rows."""

    steps: list[Step] = field(default_factory=list)
    attributes: Document = field(default_factory=dict)


def group_change(document: Document, group_id: str) -> GroupChange | None:
    """What a tidied PATCH asks of a group, None where it asks for more than a GroupChange says."""
    change = GroupChange()
    for operation in document["Operations"]:
        op, path = operation["op"], operation.get("path")
        given = operation["value"] if path is None else {path: operation.get("value")}
        if op not in ("add", "remove", "replace") or not all(
            _noted(change, op, name, value, group_id) for name, value in given.items()
        ):
            return None
    return change


def _noted(change: GroupChange, op: str, name: str, value: Json, group_id: str) -> bool:
    """Whether this part of an operation fits into a GroupChange, to which it is added."""
    one = _ONE_MEMBER.fullmatch(name)
    if one and op == "remove" and value is None:
        change.steps.append(Step(op, (Member(one[1]),)))
        return True
    if name.lower() == _MEMBERS:
        members = tuple(Member(each["value"], each.get("type"), each.get("display")) for each in value or ())
        change.steps.append(Step("replace" if op == "remove" and value is None else op, members))
        return True
    if name.lower() == "id":
        return bool(value == group_id)
    attribute = {"displayname": "displayName", "externalid": "externalId"}.get(name.lower())
    if attribute is None or op == "remove" or not isinstance(value, str) or not value:
        return False
    change.attributes[attribute] = value
    return True
