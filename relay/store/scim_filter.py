"""SCIM filters and orders as SQL (RFC 7644 sections 3.4.2.2 and 3.4.2.3).

userName, externalId, displayName and id are columns with an index; whatever else a resource says is looked up in its
`comparable`, which holds every value as it is compared, so that SQL only has to compare code points. A condition that
is NULL counts as false; only `not` has to care.
"""

from __future__ import annotations

from collections.abc import Callable
from datetime import datetime
from typing import Any, TypeAlias

from scim2_models import AttributeBinding, InvalidFilterException, InvalidPathException, ScimFilter, SearchRequest
from scim2_models.path import (
    CompareOperator,
    Comparison,
    FilterVisitor,
    LogicalExpr,
    LogicalOperator,
    Not,
    Present,
    ValuePath,
)
from scim2_models.path.resolution import coerce_value
from scim2_server.utils import parametrize
from sqlalchemy import ColumnElement, and_, column, false, func, literal, not_, null, or_, select, true
from sqlalchemy.dialects.postgresql import JSONB

from relay.model import Micros, from_iso
from relay.store.scim_rows import Collection, is_complex, key_text
from relay.store.tables import scim_members

Condition: TypeAlias = ColumnElement[bool]
Text: TypeAlias = ColumnElement[Any]
#: From the name of a sub-attribute to its text in one entry of a multi-valued attribute.
Entry: TypeAlias = Callable[[str], Text]

_COLUMNS = {"id": "id", "user_name": "user_name", "external_id": "external_id", "display_name": "display_name"}
_TIMES = {"created": "created_at", "last_modified": "updated_at"}
_SUBSTRING = frozenset({CompareOperator.co, CompareOperator.sw, CompareOperator.ew})


def condition(collection: Collection, scim_filter: ScimFilter[Any], dialect: str) -> Condition:
    """What a filter asks of the rows of this collection. Raises InvalidFilterException for what SQL cannot ask."""
    bound = parametrize(ScimFilter, collection.model)(scim_filter.ast)
    return _Resources(collection, bound, dialect).visit(bound.ast)


def order(collection: Collection, request: SearchRequest[Any], dialect: str) -> Text:
    """What to sort the rows of this collection by; NULL where they have nothing to sort by."""
    binding = request.sort_binding(collection.model)
    if binding is None:
        return null()
    if binding.field_name == "members":
        raise InvalidPathException(path=str(request.sort_by), detail="groups cannot be sorted by their members")
    table = collection.table
    if binding.field_name == "meta" and binding.sub_field_name in _TIMES:
        return table.c[_TIMES[binding.sub_field_name]]
    if binding.is_multivalued:
        head, _, sub = binding.urn.rpartition(".")
        # the primary entry comes first in `comparable`
        return _in_code_points(table.c.comparable[(head, 0, sub)].as_string(), dialect)
    return _Values(collection, dialect).single(binding)


class _Values:
    """Where the values of a collection's attributes are."""

    def __init__(self, collection: Collection, dialect: str) -> None:
        self.collection = collection
        self.table = collection.table
        self.dialect = dialect

    def single(self, binding: AttributeBinding) -> Text:
        """The text of an attribute that has at most one value."""
        name = _COLUMNS.get(binding.field_name)
        if name and name in self.table.c and binding.model is self.collection.model:
            return self.table.c[name]
        if binding.field_name == "meta":
            if binding.sub_field_name == "resource_type":
                return literal(key_text(binding, self.collection.name))
            raise InvalidFilterException(detail=f"{binding.urn} cannot be compared")
        return _in_code_points(self.table.c.comparable[binding.urn].as_string(), self.dialect)

    def any_entry(self, binding: AttributeBinding, test: Callable[[Entry], Condition]) -> Condition:
        """Whether an entry of a multi-valued attribute passes the test."""
        if binding.field_name == "members":
            members = scim_members.c
            mine = and_(members.source == self.table.c.source, members.group_id == self.table.c.id)
            return select(1).where(mine, test(_member_text)).correlate(self.table).exists()
        head = binding.urn.rpartition(".")[0] if binding.sub_field_name else binding.urn
        if self.dialect == "postgresql":
            entries = func.jsonb_array_elements(self.table.c.comparable[head]).table_valued(column("value", JSONB))
            entry: Entry = lambda name: _in_code_points(entries.c.value[name].as_string(), self.dialect)  # noqa: E731
        else:
            entries = func.json_each(self.table.c.comparable, f'$."{head}"').table_valued("value")
            entry = lambda name: func.json_extract(entries.c.value, f'$."{name}"')  # noqa: E731
        return select(1).select_from(entries).where(test(entry)).correlate(self.table).exists()


def _member_text(name: str) -> Text:
    if name == "value":
        return scim_members.c.member_id
    if name == "type":
        return func.lower(scim_members.c.type)
    raise InvalidFilterException(detail=f"members.{name} cannot be compared; members.value can")


def _in_code_points(text: Text, dialect: str) -> Text:
    return text.collate("C") if dialect == "postgresql" else text


class _Logic(FilterVisitor[Condition]):
    """What filters on resources and filters on the entries of an attribute share."""

    def visit_not(self, node: Not) -> Condition:
        return not_(func.coalesce(self.visit(node.expr), false()))

    def visit_logical_expr(self, node: LogicalExpr) -> Condition:
        join = and_ if node.op == LogicalOperator.and_ else or_
        return join(*(self.visit(term) for term in node.terms))


class _Resources(_Logic):
    """A filter on the resources of a collection."""

    def __init__(self, collection: Collection, bound: ScimFilter[Any], dialect: str) -> None:
        self._bound = bound
        self._values = _Values(collection, dialect)

    def visit_comparison(self, node: Comparison) -> Condition:
        binding = self._bound.resolve_comparison(node.attr_path, strict=False)
        if binding is None:
            return false()
        if not binding.sub_field_name and is_complex(binding):
            raise InvalidFilterException(detail=f"{binding.urn} is complex: compare one of its sub-attributes")
        operand = coerce_value(binding, node.value, node.op)
        if binding.field_name == "meta" and binding.sub_field_name in _TIMES:
            return _compare_times(self._values.table.c[_TIMES[binding.sub_field_name]], node.op, operand)
        wanted = None if operand is None else key_text(binding, operand)
        if binding.is_multivalued:
            return self._any_compares(binding, node.op, wanted)
        return _compare(self._values.single(binding), node.op, wanted)

    def _any_compares(self, binding: AttributeBinding, op: CompareOperator, wanted: str | None) -> Condition:
        name = binding.urn.rpartition(".")[2] if binding.sub_field_name else "value"

        def any_entry(op: CompareOperator) -> Condition:
            return self._values.any_entry(binding, lambda entry: _compare(entry(name), op, wanted))

        present = self._values.any_entry(binding, lambda _: true())
        if op == CompareOperator.ne:  # of several values none may be equal
            unequal = not_(any_entry(CompareOperator.eq))
            return and_(present, unequal) if wanted is None else unequal
        if op == CompareOperator.eq and wanted is None:
            return or_(not_(present), any_entry(op))
        return any_entry(op)

    def visit_present(self, node: Present) -> Condition:
        binding = self._bound.resolve(node.attr_path, strict=False)
        if binding is None:
            return false()
        if binding.field_name in ("id", "meta"):
            return true()
        if not binding.is_multivalued:
            return self._values.single(binding) != ""
        if binding.sub_field_name is None:
            return self._values.any_entry(binding, lambda _: true())
        name = binding.urn.rpartition(".")[2]
        return self._values.any_entry(binding, lambda entry: entry(name) != "")

    def visit_value_path(self, node: ValuePath) -> Condition:
        binding = self._bound.resolve(node.attr_path, strict=False)
        if binding is None:
            return false()
        model: Any = binding.field_type
        if not is_complex(binding):
            raise InvalidFilterException(detail=f"{binding.urn} has no sub-attributes to select by")
        inner = parametrize(ScimFilter, model)(node.val_filter)
        return self._values.any_entry(binding, lambda entry: _Entries(inner, entry).visit(inner.ast))


class _Entries(_Logic):
    """A filter on the entries of a multi-valued attribute, such as the inside of `emails[type eq "work"]`."""

    def __init__(self, bound: ScimFilter[Any], entry: Entry) -> None:
        self._bound = bound
        self._entry = entry

    def visit_comparison(self, node: Comparison) -> Condition:
        binding = self._bound.resolve_comparison(node.attr_path, strict=False)
        if binding is None:
            return false()
        operand = coerce_value(binding, node.value, node.op)
        return _compare(self._entry(binding.urn), node.op, None if operand is None else key_text(binding, operand))

    def visit_present(self, node: Present) -> Condition:
        binding = self._bound.resolve(node.attr_path, strict=False)
        return false() if binding is None else self._entry(binding.urn) != ""

    def visit_value_path(self, node: ValuePath) -> Condition:
        raise InvalidFilterException(detail="a selection cannot stand inside of another")


def _compare(text: Text, op: CompareOperator, wanted: str | None) -> Condition:
    """A comparison with one value, which may be absent: then only `ne` holds, or `eq null`."""
    if wanted is None:
        return {CompareOperator.eq: text.is_(None), CompareOperator.ne: text.is_not(None)}.get(op, false())
    size = len(wanted)
    return {
        CompareOperator.eq: lambda: text == wanted,
        CompareOperator.ne: lambda: or_(text != wanted, text.is_(None)),
        CompareOperator.gt: lambda: text > wanted,
        CompareOperator.ge: lambda: text >= wanted,
        CompareOperator.lt: lambda: text < wanted,
        CompareOperator.le: lambda: text <= wanted,
        CompareOperator.co: lambda: func.replace(text, wanted, "") != text if wanted else text.is_not(None),
        CompareOperator.sw: lambda: func.substr(text, 1, size) == wanted,
        CompareOperator.ew: lambda: and_(
            func.length(text) >= size, func.substr(text, func.length(text) - size + 1) == wanted
        ),
    }[op]()


def _compare_times(time: Text, op: CompareOperator, operand: Any) -> Condition:
    """A comparison with a time that is always there."""
    if op in _SUBSTRING:
        return false()
    if not isinstance(operand, datetime):
        return true() if op == CompareOperator.ne else false()
    wanted: Micros = from_iso(operand.isoformat())
    return {
        CompareOperator.eq: time == wanted,
        CompareOperator.ne: time != wanted,
        CompareOperator.gt: time > wanted,
        CompareOperator.ge: time >= wanted,
        CompareOperator.lt: time < wanted,
        CompareOperator.le: time <= wanted,
    }[op]
