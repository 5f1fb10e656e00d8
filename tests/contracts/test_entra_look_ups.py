"""From a notification that says nothing to Velt: the made-up tenant, the hook, the worker and its look-ups."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
from flask.testing import FlaskClient
from sqlalchemy import select, update

from relay import compose, reconcile
from relay.model import SECOND, Resource
from relay.settings import load
from relay.store.database import Database
from relay.store.tables import events, facts, identities
from tests.fake_graph import FakeGraph
from tests.fake_graph_login import CLIENT_SECRET
from tests.fake_graph_tenant import Item
from tests.fake_velt import FakeVelt
from tests.load import until
from tests.payloads import CLIENT_STATE
from tests.web_app import environment, serving

RULES = """\
identity: {velt_user_id: ["{user.email}"]}
rules:
  - name: engineering
    when: {kind: [group.member_removed, group.deleted], group.name: [Engineering]}
    revoke: [{type: document, id: plans, organizationId: acme}]
  - name: leavers
    when: {kind: [account.deactivated, account.deleted]}
    revoke: [{type: organization, id: acme}]
"""


class Company:
    """A tenant, the relay that listens to it, and Velt."""

    def __init__(self, database: Database, graph: FakeGraph, velt: FakeVelt, client: FlaskClient) -> None:
        self.database, self.graph, self.velt, self._client = database, graph, velt, client

    def knows(self, user_id: str) -> bool:
        """Whether a look-up has told the relay who this is."""
        with self.database.read() as connection:
            wanted = select(identities.c.email).where(identities.c.subject == user_id)
            return connection.execute(wanted).scalar() is not None

    def has(self, user_id: str, group_id: str) -> bool:
        """Whether the relay knows that somebody is in a group."""
        with self.database.read() as connection:
            wanted = select(facts.c.present).where(facts.c.subject == user_id, facts.c.object_id == group_id)
            return bool(connection.execute(wanted).scalar())

    def has_planned(self) -> bool:
        """Whether no event waits to be planned."""
        with self.database.read() as connection:
            return connection.execute(select(events.c.id).where(events.c.state == "received")).first() is None

    def read(self) -> bool:
        """Whether reconcile has come to an end and may be asked again."""
        return all(one["ended_at"] for one in reconcile.shown(self.database)["sources"])

    def an_hour_passes(self) -> None:
        """Make everything that is known an hour older: answers of before cannot lag behind any more."""
        with self.database.write() as connection:
            connection.execute(update(facts).values(as_of=facts.c.as_of - 3600 * SECOND))

    def deliver(self, items: list[Item]) -> None:
        body = self.graph.hook_body(*items)
        answer = self._client.post("/hooks/entra", data=body, content_type="application/json")
        assert answer.status_code == 202

    def removed(self) -> list[tuple[str, frozenset[Resource]]]:
        """Whom the first call to Velt is about, and what it takes."""
        return [(call.user_id, call.resources) for call in self.velt.wait_for(1, timeout=20)]


@pytest.fixture
def company(database: Database, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Company]:
    url = database.url.render_as_string(hide_password=False)
    with FakeGraph(client_state=CLIENT_STATE) as graph, FakeVelt() as velt:
        config = f"sources: {{entra: {graph.source()!r}}}\n{RULES}"
        keys = {"VELT_API_KEY": "k", "VELT_AUTH_TOKEN": "t", "VELT_BASE_URL": velt.url}
        secrets = {"ENTRA_CLIENT_SECRET": CLIENT_SECRET}
        with serving(tmp_path, url, config) as app:
            monkeypatch.setattr(compose, "database_of", lambda settings: database)
            with working(compose.worker(load({**environment(tmp_path, url, config), **keys, **secrets}))):
                yield Company(database, graph, velt, app.test_client())


@contextmanager
def working(worker: compose.Worker) -> Iterator[None]:
    thread = threading.Thread(target=worker.run)
    thread.start()
    try:
        yield
    finally:
        worker.stop()
        thread.join(30)
        assert not thread.is_alive()


@pytest.mark.parametrize("what", ["disable", "soft_delete"])
def test_who_leaves_loses_access(company: Company, what: str) -> None:
    tenant = company.graph.tenant
    ada, items = tenant.add_user("ada@acme.example")
    company.deliver(items)
    until(lambda: company.knows(ada), "looked up")  # a deleted one tells no mail address any more
    company.deliver(getattr(tenant, what)(ada))
    assert company.removed() == [("ada@acme.example", frozenset({Resource("organization", "acme")}))]


def test_who_leaves_a_group_loses_what_its_name_gives(company: Company) -> None:
    tenant = company.graph.tenant
    ada, _ = tenant.add_user("ada@acme.example")
    eng, _ = tenant.add_group("Engineering")
    company.deliver(tenant.join(ada, eng))
    until(lambda: company.has(ada, eng) and company.has_planned(), "known to be in the group")
    until(company.read, "reconciled")  # a listing of before would tell what was so then as if it were news
    company.an_hour_passes()
    company.deliver(tenant.leave(ada, eng))
    assert company.removed() == [("ada@acme.example", frozenset({Resource("document", "plans", "acme")}))]


PLANS = frozenset({Resource("document", "plans", "acme")})


def nest(company: Company) -> tuple[str, str, str]:
    """Ada in Compilers, which is in Engineering: their ids. The relay is told only that she joined Compilers."""
    tenant = company.graph.tenant
    ada, _ = tenant.add_user("ada@acme.example")
    inner, _ = tenant.add_group("Compilers")
    outer, _ = tenant.add_group("Engineering")
    tenant.join(inner, outer)
    company.deliver(tenant.join(ada, inner))
    until(lambda: company.has(ada, outer), "known to be in the outer group")
    until(company.read, "reconciled")  # a listing of before would tell what was so then as if it were news
    company.an_hour_passes()
    return ada, inner, outer


def test_who_leaves_an_inner_group_loses_what_the_outer_one_gave(company: Company) -> None:
    ada, inner, _ = nest(company)
    company.deliver(company.graph.tenant.leave(ada, inner))
    assert company.removed() == [("ada@acme.example", PLANS)]


def test_who_was_in_a_deleted_inner_group_loses_what_the_outer_one_gave(company: Company) -> None:
    _, inner, _ = nest(company)
    company.deliver(company.graph.tenant.delete_group(inner))
    assert company.removed() == [("ada@acme.example", PLANS)]


def test_a_group_that_leaves_the_outer_one_takes_what_that_gave(company: Company) -> None:
    """The notification tells the member's id and not that it is a group."""
    _, inner, outer = nest(company)
    company.deliver(company.graph.tenant.leave(inner, outer))
    assert company.removed() == [("ada@acme.example", PLANS)]


def test_it_is_found_when_the_notification_was_lost(company: Company) -> None:
    """By the first listing, which knows who has what, and by what changed after it."""
    tenant = company.graph.tenant
    ada, _ = tenant.add_user("ada@acme.example")
    inner, _ = tenant.add_group("Compilers")
    outer, _ = tenant.add_group("Engineering")
    tenant.join(inner, outer)
    tenant.join(ada, inner)
    reconcile.ask(company.database, "ada", None)
    until(lambda: company.has(ada, outer), "listed")
    until(lambda: company.read(), "read to the end")
    tenant.leave(inner, outer)
    reconcile.ask(company.database, "ada", None)
    assert company.removed() == [("ada@acme.example", PLANS)]
