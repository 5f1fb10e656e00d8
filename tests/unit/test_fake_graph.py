"""That the made-up tenant says what Graph would: its notifications are read by the source of the real ones."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import pytest

from relay.model import Kind
from relay.sources.entra import Entra
from tests.fake_graph import FakeGraph

STATE = "acme-client-state-1"


@pytest.fixture
def graph() -> Iterator[FakeGraph]:
    with FakeGraph(client_state=STATE) as made:
        yield made


def kinds(graph: FakeGraph, items: list[dict[str, Any]]) -> list[tuple[Kind, str | None, str | None]]:
    parsed = Entra("entra", graph.source(), lambda: [STATE]).parse(graph.hook_body(*items))
    assert parsed.rejected == 0
    return [(event.kind, event.subject, event.group_id) for event in parsed.events]


def test_what_happens_to_a_user(graph: FakeGraph) -> None:
    ada, made = graph.tenant.add_user("ada@acme.example")
    changed = [(Kind.ACCOUNT_CHANGED, ada, None)]
    assert kinds(graph, made) == changed
    assert kinds(graph, graph.tenant.disable(ada)) == changed
    assert kinds(graph, graph.tenant.enable(ada)) == changed
    assert kinds(graph, graph.tenant.soft_delete(ada)) == changed, "the normal deletion says no more"
    assert kinds(graph, graph.tenant.restore(ada)) == changed
    assert kinds(graph, graph.tenant.rename(ada, "ada.l@acme.example")) == changed


def test_only_the_purge_of_a_user_tells_groups(graph: FakeGraph) -> None:
    ada, _ = graph.tenant.add_user("ada@acme.example")
    eng, _ = graph.tenant.add_group("Engineering")
    assert kinds(graph, graph.tenant.join(ada, eng)) == [(Kind.GROUP_MEMBER_ADDED, ada, eng)]
    graph.tenant.soft_delete(ada)
    assert kinds(graph, graph.tenant.purge(ada)) == [
        (Kind.ACCOUNT_DELETED, ada, None),
        (Kind.GROUP_MEMBER_REMOVED, ada, eng),
    ]


def test_what_happens_to_groups(graph: FakeGraph) -> None:
    ada, _ = graph.tenant.add_user("ada@acme.example")
    security, _ = graph.tenant.add_group("Engineering")
    unified, _ = graph.tenant.add_group("Team", unified=True)
    graph.tenant.join(ada, security)
    assert kinds(graph, graph.tenant.leave(ada, security)) == [(Kind.GROUP_MEMBER_REMOVED, ada, security)]
    assert kinds(graph, graph.tenant.rename_group(security, "Eng")) == [(Kind.GROUP_CHANGED, None, security)]
    assert kinds(graph, graph.tenant.delete_group(security)) == [(Kind.GROUP_DELETED, None, security)]
    assert kinds(graph, graph.tenant.delete_group(unified)) == [(Kind.GROUP_CHANGED, None, unified)]
    assert kinds(graph, graph.tenant.restore_group(unified)) == [(Kind.GROUP_CHANGED, None, unified)]
    graph.tenant.delete_group(unified)
    assert kinds(graph, graph.tenant.delete_group(unified)) == [(Kind.GROUP_DELETED, None, unified)]


def test_nobody_is_told_without_a_subscription() -> None:
    with FakeGraph() as graph:
        assert graph.tenant.add_user("ada@acme.example")[1] == []
