"""SCIM resources as rows: what is kept of one, the form in which it is compared, and the way back."""

from __future__ import annotations

import json
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from inspect import isclass
from typing import Any

from scim2_models import AttributeBinding, BaseModel, InvalidValueException, Path, Resource, ResourceType, ScimProvider
from scim2_models.path.resolution import attribute_host
from scim2_server.utils import parametrize
from sqlalchemy import Row, Table

from relay.model import to_iso
from relay.store.tables import scim_groups, scim_users

#: UTF-8 bytes of whatever becomes an index entry or names a person. Real ones stay under 300.
LONGEST_TEXT = 800

#: Fields that are columns of their own, or nothing that a document keeps.
_APART = frozenset({"id", "meta", "members"})

Document = dict[str, Any]


@dataclass(frozen=True, slots=True)
class Head:
    """An attribute of a resource, with the sub-attributes that it has where it is complex."""

    binding: AttributeBinding
    subs: tuple[AttributeBinding, ...] = ()


@dataclass(frozen=True)
class Collection:
    """The resources of one SCIM resource type: its model, its table, and the attributes that are kept."""

    resource_type: ResourceType
    model: type[Resource[Any]]
    table: Table
    heads: tuple[Head, ...]

    @property
    def is_users(self) -> bool:
        return self.table is scim_users

    @property
    def name(self) -> str:
        return str(self.resource_type.name)


@dataclass(frozen=True, slots=True)
class Member:
    """A member of a group: a user, another group (`type` Group), or an id that nobody knows yet."""

    id: str
    type: str | None = None
    display: str | None = None

    def as_scim(self) -> dict[str, str]:
        endpoint = "Groups" if (self.type or "").lower() == "group" else "Users"
        # relative to the root: only the server knows its address
        told = {"value": self.id, "$ref": f"{endpoint}/{self.id}", "type": self.type, "display": self.display}
        return {name: text for name, text in told.items() if text is not None}


def collections(provider: ScimProvider) -> dict[str, Collection]:
    """The users and groups of a provider, by the name of their resource type."""
    tables = {"User": scim_users, "Group": scim_groups}
    return {str(rt.name): _collection(provider, rt, tables[str(rt.name)]) for rt in provider.resource_types}


def _collection(provider: ScimProvider, resource_type: ResourceType, table: Table) -> Collection:
    model: Any = provider.model_for(resource_type)
    bindings = [each for each in _bindings(model, subs=True) if each.sub_field_name is None]
    heads = (Head(each, _subs(each)) for each in bindings if each.field_name not in _APART)
    return Collection(resource_type, model, table, tuple(heads))


def _subs(head: AttributeBinding) -> tuple[AttributeBinding, ...]:
    return tuple(_bindings(head.field_type, subs=False)) if is_complex(head) else ()


def is_complex(head: AttributeBinding) -> bool:
    """Whether an attribute has sub-attributes."""
    return isclass(head.field_type) and issubclass(head.field_type, BaseModel)


def _bindings(model: Any, *, subs: bool) -> Iterator[AttributeBinding]:
    for path in parametrize(Path, model).iter_paths(include_subattributes=subs):
        binding = path.resolve()
        if binding is not None:
            yield binding


def content(collection: Collection, resource: Resource[Any]) -> dict[str, Any]:
    """The columns that follow from what a resource says: document, keys, and those with an index.

    Raises InvalidValueException where an id or name is longer than an index can hold.
    """
    document = _document(collection, resource)
    keys = _keys(collection, resource)
    keys[f"{collection.resource_type.schema_}:schemas"] = [{"value": urn.lower()} for urn in document["schemas"]]
    columns = {
        "document": json.dumps(document, separators=(",", ":")),
        "comparable": keys,
        "external_id": _key(collection, keys, "externalId"),
        "display_name": _key(collection, keys, "displayName"),
    }
    if collection.is_users:
        columns["user_name"] = _key(collection, keys, "userName")
    _refuse_long(document)
    return columns


def _document(collection: Collection, resource: Resource[Any]) -> Document:
    document: Document = {key: value for key, value in resource.model_dump().items() if key not in _APART}
    # A client's own schemas are not ours to announce: what they declare was not kept either.
    known = (str(urn) for urn in collection.model.get_extension_models() if str(urn) in document)
    document["schemas"] = [str(collection.resource_type.schema_), *known]
    return document


def _refuse_long(document: Document) -> None:
    emails = document.get("emails") or ()
    texts = [(name, document.get(name)) for name in ("userName", "externalId", "displayName")]
    texts += [("emails.value", email.get("value")) for email in emails]
    for name, text in texts:
        if text is not None and len(text.encode()) > LONGEST_TEXT:
            raise InvalidValueException(detail=f"{name} is longer than {LONGEST_TEXT} bytes")


def _keys(collection: Collection, resource: Resource[Any]) -> dict[str, Any]:
    """Every value in the form that filters and orders compare, by the URN of its attribute.

    A complex attribute is there as "true" beside its sub-attributes, and the entries of a multi-valued one are
    objects, the primary entry first, because that is the one to sort by.
    """
    keys: dict[str, Any] = {}
    for head in collection.heads:
        urn, host = head.binding.urn, attribute_host(resource, head.binding)
        value = getattr(host, head.binding.field_name, None) if host is not None else None
        if value is None:
            continue
        if head.binding.is_multivalued:
            entries = sorted(value, key=lambda entry: getattr(entry, "primary", None) is not True)
            keys[urn] = [texts for entry in entries if (texts := _texts(head, entry))]
        elif head.subs:
            texts = _texts(head, value)
            keys |= {f"{urn}.{name}": text for name, text in texts.items()}
            if any(texts.values()):
                keys[urn] = "true"
        else:
            keys[urn] = key_text(head.binding, value)
    return keys


def _texts(head: Head, value: Any) -> dict[str, str]:
    found = {sub.urn: getattr(value, sub.field_name, None) for sub in head.subs}
    return {sub.urn: key_text(sub, found[sub.urn]) for sub in head.subs if found[sub.urn] is not None}


def key_text(binding: AttributeBinding, value: Any) -> str:
    """A value of an attribute as the text by which it is compared."""
    if isinstance(value, bool):
        return "true" if value else "false"
    return str(binding.comparable(str(value)))


def _key(collection: Collection, keys: Mapping[str, Any], name: str) -> str | None:
    text: str | None = keys.get(f"{collection.resource_type.schema_}:{name}")
    return text


def etag(version: int) -> str:
    """The weak entity tag of a row's version (RFC 7644 section 3.14)."""
    return f'W/"{version}"'


def resource_of(collection: Collection, row: Row[Any], members: Iterable[Member] | None = None) -> Resource[Any]:
    """The resource that a row keeps, with these members where it is a group and they were asked for."""
    payload = json.loads(row.document) | {
        "id": row.id,
        "meta": {
            "resourceType": collection.name,
            "created": to_iso(row.created_at),
            "lastModified": to_iso(row.updated_at),
            "version": etag(row.version),
        },
    }
    if members is not None:
        payload["members"] = [member.as_scim() for member in members]
    resource: Resource[Any] = collection.model.model_validate(payload)
    return resource


def members_in(resource: Resource[Any]) -> dict[str, Member]:
    """The members that a group's resource lists, by id. Raises InvalidValueException for one without an id."""
    found: dict[str, Member] = {}
    for entry in getattr(resource, "members", None) or ():
        member = Member(entry.value or "", entry.type, entry.display)
        refuse_bad_id(member.id)
        found.setdefault(member.id, member)
    return found


def refuse_bad_id(member_id: str) -> None:
    """Raise InvalidValueException unless this can be the id of a member."""
    if not member_id or len(member_id.encode()) > LONGEST_TEXT:
        raise InvalidValueException(detail=f"a member needs a value (an id) of 1 to {LONGEST_TEXT} bytes")
