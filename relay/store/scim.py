"""SCIM's storage: one source's users and groups in the relay's tables, with the events that their changes mean.

One SCIM operation is one transaction. A change and its events commit together, before the client hears 2xx, and
nothing but the database is touched, so that a SCIM write never waits for Velt.
"""

from __future__ import annotations

import json
import threading
from collections.abc import Callable, Iterable, Iterator
from contextlib import ExitStack, contextmanager
from typing import Any

from scim2_models import (
    NotFoundException,
    PreconditionFailedException,
    Resource,
    ResourceType,
    ResponseParameters,
    ScimProvider,
    SearchRequest,
    UniquenessException,
)
from scim2_server.storage import ScimStorage, SearchPage
from sqlalchemy import Connection, Row, Select, delete, func, literal, select, true, union_all, update
from sqlalchemy.exc import IntegrityError

from relay import log, model
from relay.model import Basis, Fact, Micros, ObjectType
from relay.store import scim_filter, scim_members, scim_rows
from relay.store.database import Database
from relay.store.facts import add_unknown
from relay.store.record import Row as EventRow
from relay.store.scim_events import NO_PATHS, Account, Group, Journal, Paths
from relay.store.scim_members import Changed, Step
from relay.store.scim_rows import Collection, Member
from relay.store.tables import scim_members as members_table

#: Resources that may be skipped by startIndex; no directory has more.
_FARTHEST = 1 << 31
#: Ids in one statement.
_BATCH = 1000


class ScimTables(ScimStorage):
    """The users and groups that one SCIM source has told of; safe in threads.

    `paths`: the attributes that fill login, email and external_id of its events, where not the usual ones.
    """

    def __init__(self, database: Database, source: str, provider: ScimProvider, paths: Paths = NO_PATHS) -> None:
        self._paths = paths
        self._database = database
        self._source = source
        self._collections = scim_rows.collections(provider)
        self._dialect = "sqlite" if database.is_sqlite else "postgresql"
        self._local = threading.local()

    @contextmanager
    def operation(self) -> Iterator[None]:
        """One transaction around the calls inside, opened by the first of them. Raises Unavailable."""
        if getattr(self._local, "work", None) is not None:
            yield
            return
        work = self._local.work = _Work(self._database, self._source)
        try:
            with work.stack:
                yield
                told = work.write_events()
        finally:
            self._local.work = None
        for row in told:
            log.get(source=self._source).info("recorded", event_id=row["id"], kind=row["kind"], type=row["type"])
        if told:
            self._database.waker.wake()

    def get(
        self,
        resource_type: ResourceType,
        resource_id: str,
        *,
        response_parameters: ResponseParameters[Any] | None = None,
    ) -> Resource[Any]:
        """A resource; without response parameters it is about to be changed, and its row is locked."""
        collection = self._collection(resource_type)
        with self.operation():
            if response_parameters is None:
                row = self._locked(collection, resource_id)
                return self._resource(self._work.writing, collection, row)
            row = self._find(self._work.reading, collection, resource_id)
            wants_members = not collection.is_users and keeps_members(response_parameters)
            return self._resource(self._work.reading, collection, row, wants_members)

    def search(
        self, resource_types: list[ResourceType], search_request: SearchRequest[Any], *, position: Any = None
    ) -> SearchPage:
        searched = [self._collection(resource_type) for resource_type in resource_types]
        with self.operation():
            connection = self._work.reading
            total = sum(
                connection.execute(self._matching(each, search_request, func.count())).scalar_one() for each in searched
            )
            if total == 0 or search_request.count == 0:
                return SearchPage(total, [])
            found = connection.execute(self._page(searched, search_request)).all()
            wants_members = keeps_members(search_request)
            loaded: dict[tuple[str, str], Resource[Any]] = {}
            for each in searched:
                ids = [row.id for row in found if row.name == each.name]
                loaded |= {(each.name, str(r.id)): r for r in self._load(connection, each, ids, wants_members)}
            return SearchPage(total, [loaded[row.name, row.id] for row in found if (row.name, row.id) in loaded])

    def create(self, resource_type: ResourceType, resource: Resource[Any]) -> Resource[Any]:
        """Raises UniquenessException where the userName is taken."""
        collection = self._collection(resource_type)
        with self.operation():
            connection, work = self._work.writing, self._work
            new_id = model.new_id("usr" if collection.is_users else "grp")
            values = scim_rows.content(collection, resource)
            document = json.loads(values["document"])
            journal = work.journal_after(0)
            members: dict[str, Member] = {}
            if collection.is_users:
                self._created(connection, journal, Account.of(new_id, document, self._paths))
            else:
                members = scim_rows.members_in(resource)
                changed = scim_members.put(connection, self._source, new_id, {}, members, self._paths)
                journal.members(Group(new_id, document.get("displayName")), changed.gained, changed.lost)
            times = {"created_at": journal.at, "updated_at": journal.at}
            insert = collection.table.insert().values(source=self._source, id=new_id, version=1, **times, **values)
            self._store(lambda: connection.execute(insert))
            return self._resource(connection, collection, self._find(connection, collection, new_id))

    def update(
        self, resource_type: ResourceType, resource: Resource[Any], *, expected_version: str | None = None
    ) -> Resource[Any]:
        """Raises UniquenessException, PreconditionFailedException, NotFoundException."""
        collection = self._collection(resource_type)
        with self.operation():
            row = self._locked(collection, str(resource.id), expected_version)
            values = scim_rows.content(collection, resource)
            if collection.is_users:
                self._update_user(collection, row, values)
            else:
                before = scim_members.of_group(self._work.writing, self._source, row.id)
                after = scim_rows.members_in(resource)
                changed = scim_members.put(self._work.writing, self._source, row.id, before, after, self._paths)
                self._update_group(row, values, changed)
            return self._resource(self._work.writing, collection, self._find(self._work.writing, collection, row.id))

    def delete(self, resource_type: ResourceType, resource_id: str, *, expected_version: str | None = None) -> None:
        """Raises PreconditionFailedException, NotFoundException."""
        collection = self._collection(resource_type)
        with self.operation():
            row = self._locked(collection, resource_id, expected_version)
            connection, journal = self._work.writing, self._work.journal_after(row.updated_at)
            document = json.loads(row.document)
            if not collection.is_users:
                members = scim_members.of_group(connection, self._source, row.id).values()
                if scim_members.people_in(connection, self._source, members, self._paths):
                    journal.group_deleted(Group(row.id, document.get("displayName")))
                mine = (members_table.c.source == self._source) & (members_table.c.group_id == row.id)
                connection.execute(delete(members_table).where(mine))
            groups = scim_members.leave_all(connection, self._source, row.id, journal.at)
            if collection.is_users:
                journal.deleted(Account.of(row.id, document, self._paths), groups)
            connection.execute(delete(collection.table).where(self._is(collection, row.id)))

    def change_group(
        self,
        resource_type: ResourceType,
        group_id: str,
        steps: list[Step],
        attributes: dict[str, Any],
        check: Callable[[str], object],
    ) -> str:
        """Change a group's members and simple attributes without reading the members that stay; return its ETag.

        `attributes`: displayName and externalId as they shall be. `check` is given the present ETag and raises where
        the client expected another one.
        """
        collection = self._collection(resource_type)
        with self.operation():
            row = self._locked(collection, group_id)
            check(scim_rows.etag(row.version))
            changed = scim_members.apply(self._work.writing, self._source, row.id, steps, self._paths)
            document = json.loads(row.document) | attributes
            resource = collection.model.model_validate(document)
            return scim_rows.etag(self._update_group(row, scim_rows.content(collection, resource), changed))

    # what the methods above are made of

    @property
    def _work(self) -> _Work:
        work: _Work = self._local.work
        return work

    def _collection(self, resource_type: ResourceType) -> Collection:
        return self._collections[str(resource_type.name)]

    def _is(self, collection: Collection, resource_id: str) -> Any:
        return (collection.table.c.source == self._source) & (collection.table.c.id == resource_id)

    def _find(self, connection: Connection, collection: Collection, resource_id: str, lock: bool = False) -> Row[Any]:
        statement = select(collection.table).where(self._is(collection, resource_id))
        row = connection.execute(statement.with_for_update() if lock else statement).one_or_none()
        if row is None:
            raise NotFoundException(detail=f"{collection.name} {resource_id} not found")
        return row

    def _locked(self, collection: Collection, resource_id: str, expected_version: str | None = None) -> Row[Any]:
        """The row, kept from everybody else until this transaction ends."""
        row = self._find(self._work.writing, collection, resource_id, lock=True)
        if expected_version is not None and scim_rows.etag(row.version) != expected_version:
            raise PreconditionFailedException
        return row

    def _update_user(self, collection: Collection, row: Row[Any], values: dict[str, Any]) -> None:
        if values["document"] == row.document:
            return
        journal = self._work.journal_after(row.updated_at)
        before, after = (
            Account.of(row.id, json.loads(text), self._paths) for text in (row.document, values["document"])
        )
        journal.updated(before, after)
        at = max(journal.at, row.updated_at + 1)
        changed = update(collection.table).where(self._is(collection, row.id))
        statement = changed.values(version=row.version + 1, updated_at=at, **values)
        self._store(lambda: self._work.writing.execute(statement))

    def _created(self, connection: Connection, journal: Journal, account: Account) -> None:
        """Nobody is told of an account that begins out of force, but it entitles nobody to what it is put into."""
        if account.active:
            journal.created(account)
            return
        unused = Fact(self._source, account.id, ObjectType.ACCOUNT, "", False, journal.at, Basis.SOURCE)
        add_unknown(connection, [unused])

    def _update_group(self, row: Row[Any], values: dict[str, Any], changed: Changed) -> int:
        """The version of the group after the change."""
        version: int = row.version
        if values["document"] == row.document and not changed.any:
            return version
        journal = self._work.journal_after(row.updated_at)
        before, after = (json.loads(text).get("displayName") for text in (row.document, values["document"]))
        group = Group(row.id, after)
        journal.members(group, changed.gained, changed.lost)
        if before != after:
            members = scim_members.of_group(self._work.writing, self._source, row.id).values()
            told = {account.id for account in changed.gained}
            stayed = [member for member in members if member.id not in told]
            journal.group_renamed(group, scim_members.people_in(self._work.writing, self._source, stayed, self._paths))
        scim_members.touch(self._work.writing, self._source, row, journal.at, **values)
        return version + 1

    @staticmethod
    def _store(write: Callable[[], object]) -> None:
        try:
            write()
        except IntegrityError:
            raise UniquenessException(detail="another user has this userName") from None

    def _resource(
        self, connection: Connection, collection: Collection, row: Row[Any], with_members: bool = True
    ) -> Resource[Any]:
        if collection.is_users or not with_members:
            return scim_rows.resource_of(collection, row)
        members = scim_members.of_group(connection, self._source, row.id)
        return scim_rows.resource_of(collection, row, members.values())

    def _load(
        self, connection: Connection, collection: Collection, ids: list[str], with_members: bool
    ) -> Iterable[Resource[Any]]:
        table = collection.table
        members: dict[str, list[Member]] = {}
        if with_members and not collection.is_users:
            members = scim_members.of_groups(connection, self._source, ids)
        for start in range(0, len(ids), _BATCH):
            wanted = table.c.id.in_(ids[start : start + _BATCH])
            for row in connection.execute(select(table).where(table.c.source == self._source, wanted)):
                yield scim_rows.resource_of(collection, row, members.get(row.id))

    def _matching(self, collection: Collection, request: SearchRequest[Any], *wanted: Any) -> Select[Any]:
        mine = collection.table.c.source == self._source
        asked = true() if request.filter is None else scim_filter.condition(collection, request.filter, self._dialect)
        return select(*wanted).select_from(collection.table).where(mine, asked)

    def _page(self, searched: list[Collection], request: SearchRequest[Any]) -> Any:
        """The ids of a page: few columns, so that an index gives them, however far in the page is."""
        sorts = request.sort_by is not None
        parts = []
        for each in searched:
            columns = [literal(each.name).label("name"), each.table.c.id.label("id")]
            if sorts:
                columns.append(scim_filter.order(each, request, self._dialect).label("sort"))
            parts.append(self._matching(each, request, *columns))
        found = (parts[0] if len(parts) == 1 else union_all(*parts)).subquery()
        orders: list[Any] = [found.c.id]
        if sorts and request.sort_order == SearchRequest.SortOrder.descending:
            orders = [found.c.sort.desc().nulls_first(), found.c.id.desc()]
        elif sorts:
            orders = [found.c.sort.asc().nulls_last(), found.c.id]
        start = min(request.start_index_0 or 0, _FARTHEST)
        return select(found.c.name, found.c.id).order_by(*orders).limit(request.count).offset(start)


class _Work:
    """One operation: its transaction, opened when first asked for, and the events to write into it."""

    def __init__(self, database: Database, source: str) -> None:
        self.stack = ExitStack()
        self._database = database
        self._source = source
        self._connection: Connection | None = None
        self._journal: Journal | None = None
        self._writes = False

    @property
    def reading(self) -> Connection:
        if self._connection is None:
            self._connection = self.stack.enter_context(self._database.read())
        return self._connection

    @property
    def writing(self) -> Connection:
        if not self._writes:
            self._connection = self.stack.enter_context(self._database.write())
            self._writes = True
        assert self._connection is not None  # noqa: S101 (for the type checker)
        return self._connection

    def journal_after(self, moment: Micros) -> Journal:
        """The journal of this transaction, whose times are later than `moment`, even if the clock was put back."""
        if self._journal is None:
            self._journal = Journal(self._source, max(self._database.now(self.writing), moment))
        return self._journal

    def write_events(self) -> list[EventRow]:
        """Add the events to the transaction and return their rows."""
        return self._journal.write(self.writing) if self._journal is not None else []


def keeps_members(parameters: ResponseParameters[Any] | SearchRequest[Any]) -> bool:
    """Whether an answer with these parameters lists a group's members."""
    excluded = {_plain(path) for path in parameters.excluded_attributes or ()}
    wanted = [_plain(path) for path in parameters.attributes or ()]
    return "members" not in excluded and (not wanted or any(path.startswith("members") for path in wanted))


def _plain(path: object) -> str:
    """An attribute path without its schema's URN, in small letters."""
    return str(path).rpartition(":")[2].lower()
