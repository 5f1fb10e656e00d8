"""The tables. Times are microseconds since 1970 (UTC); JSON is text; payloads are bytes."""

from __future__ import annotations

from sqlalchemy import (
    JSON,
    BigInteger,
    Boolean,
    Column,
    ForeignKey,
    Index,
    Integer,
    LargeBinary,
    MetaData,
    String,
    Table,
    Text,
    false,
    text,
)
from sqlalchemy.dialects.postgresql import JSONB

metadata = MetaData(
    naming_convention={
        "ix": "ix_%(table_name)s_%(column_0_N_name)s",
        "uq": "uq_%(table_name)s_%(column_0_N_name)s",
        "fk": "fk_%(table_name)s_%(column_0_name)s",
        "pk": "pk_%(table_name)s",
    }
)

#: SQLite numbers rows by itself only in a column called INTEGER.
_Serial = BigInteger().with_variant(Integer, "sqlite")

#: One row a Velt user. The row is the lock: whoever plans, claims or settles for the person holds it.
#: plan_at: there is an event to plan. send_at: the earliest open revocation is due. A lease is one call in flight.
people = Table(
    "people",
    metadata,
    Column("id", _Serial, primary_key=True, autoincrement=True),
    Column("velt_user_id", Text, nullable=False, unique=True),
    Column("plan_at", BigInteger),
    Column("send_at", BigInteger),
    Column("lease_token", String(40)),
    Column("lease_from", BigInteger),
    Column("lease_until", BigInteger),
)
Index(
    "ix_people_plan_at",
    people.c.plan_at,
    sqlite_where=text("plan_at IS NOT NULL"),
    postgresql_where=text("plan_at IS NOT NULL"),
)
Index(
    "ix_people_send_at",
    people.c.send_at,
    sqlite_where=text("send_at IS NOT NULL"),
    postgresql_where=text("send_at IS NOT NULL"),
)
Index(
    "ix_people_lease_until",
    people.c.lease_until,
    sqlite_where=text("lease_until IS NOT NULL"),
    postgresql_where=text("lease_until IS NOT NULL"),
)

#: Every thing a source said, with its bytes. person_id: the Velt user it is about, once that is known.
#: as_of: occurred_at, or received_at where the source gave no time; never later than received_at.
#: unresolved: rules that could not be decided, in words; the event ends `failed` with them.
#: look_at: while a look-up is waited for, the time from which an answer must be. wait_until: when to plan without one.
#: looks: answers that contradicted it and were not
#: believed yet. completing: planned, and a look-up may still tell what else it takes. found_by: what told of it, where
#: that was not the provider's own message (`reconcile`, `look-up`).
events = Table(
    "events",
    metadata,
    Column("id", String(40), primary_key=True),
    Column("source", String(64), nullable=False),
    Column("kind", String(40), nullable=False),
    Column("type", Text, nullable=False),
    Column("state", String(16), nullable=False),
    Column("reason", Text),
    Column("dedup_key", Text),
    Column("twin", Boolean, nullable=False, server_default=false()),
    Column("replay", Boolean, nullable=False, server_default=false()),
    Column("subject", Text),
    Column("login", Text),
    Column("email", Text),
    Column("external_id", Text),
    Column("group_id", Text),
    Column("group_name", Text),
    Column("app_id", Text),
    Column("app_name", Text),
    Column("occurred_at", BigInteger),
    Column("as_of", BigInteger, nullable=False),
    Column("received_at", BigInteger, nullable=False),
    Column("planned_at", BigInteger),
    Column("person_id", BigInteger, ForeignKey("people.id")),
    Column("parent_id", String(40)),
    Column("rules_version", String(16)),
    Column("plan", Text),
    Column("unresolved", Text),
    Column("look_at", BigInteger),
    Column("wait_until", BigInteger),
    Column("looks", Integer, nullable=False, server_default=text("0")),
    Column("completing", Boolean, nullable=False, server_default=false()),
    Column("found_by", String(16)),
    Column("payload", LargeBinary, nullable=False),
    Index("uq_events_source_dedup_key", "source", "dedup_key", unique=True),
    Index("ix_events_source_subject", "source", "subject"),
    Index("ix_events_group_id", "group_id"),
    Index("ix_events_received_at", "received_at"),
    Index("ix_events_parent_id", "parent_id"),
)
_RECEIVED = text("state = 'received'")
Index("ix_events_unplanned", events.c.person_id, events.c.as_of, sqlite_where=_RECEIVED, postgresql_where=_RECEIVED)
Index("ix_events_state", events.c.state, events.c.received_at)
Index(
    "ix_events_found_by",
    events.c.found_by,
    sqlite_where=text("found_by IS NOT NULL"),
    postgresql_where=text("found_by IS NOT NULL"),
)
Index(
    "ix_events_completing",
    events.c.source,
    events.c.subject,
    sqlite_where=text("completing"),
    postgresql_where=text("completing"),
)

#: What a source last said of one access; a loss stays as a tombstone.
facts = Table(
    "facts",
    metadata,
    Column("source", String(64), primary_key=True),
    Column("subject", Text, primary_key=True),
    Column("object_type", String(8), primary_key=True),
    Column("object_id", Text, primary_key=True),
    Column("present", Boolean, nullable=False),
    Column("as_of", BigInteger, nullable=False),
    Column("basis", String(8), nullable=False),
    Column("name", Text),
    Column("event_id", String(40)),
    Index("ix_facts_object", "source", "object_type", "object_id", "subject"),
)

#: Which Velt user a subject of a source is (`current`) and has been.
identities = Table(
    "identities",
    metadata,
    Column("source", String(64), primary_key=True),
    Column("subject", Text, primary_key=True),
    Column("person_id", BigInteger, ForeignKey("people.id"), primary_key=True),
    Column("current", Boolean, nullable=False),
    Column("since", BigInteger, nullable=False),
    Column("login", Text),
    Column("email", Text),
    Column("external_id", Text),
    Index("ix_identities_person_id", "person_id"),
)

#: What a directory is asked, and what it last said, of one account, group or app.
#: wanted_at: an answer to a question put then or later is wanted. due_at: when to ask, None: not. asked_until: while
#: somebody asks. fetched_at: when the question was put whose `answer` (JSON) this is, `status` the account's in it.
#: failing_since, failures, reason: what it came to since the last answer.
look_ups = Table(
    "look_ups",
    metadata,
    Column("source", String(64), primary_key=True),
    Column("object_type", String(8), primary_key=True),
    Column("object_id", Text, primary_key=True),
    Column("wanted_at", BigInteger),
    Column("due_at", BigInteger),
    Column("asked_until", BigInteger),
    Column("fetched_at", BigInteger),
    Column("status", String(16)),
    Column("answer", Text),
    Column("failing_since", BigInteger),
    Column("failures", Integer, nullable=False, server_default=text("0")),
    Column("reason", Text),
)
_TO_LOOK_UP = text("due_at IS NOT NULL")
Index("ix_look_ups_due_at", look_ups.c.due_at, sqlite_where=_TO_LOOK_UP, postgresql_where=_TO_LOOK_UP)

#: What somebody has to know once: raised while it holds, told when it begins. told_at None: not told yet.
alerts = Table(
    "alerts",
    metadata,
    Column("key", String(120), primary_key=True),
    Column("text", Text, nullable=False),
    Column("raised_at", BigInteger, nullable=False),
    Column("told_at", BigInteger),
    Column("attempts", Integer, nullable=False, server_default=text("0")),
    Column("next_at", BigInteger),
    Column("cleared_at", BigInteger),
)

#: One resource to remove from one Velt user because of one event.
#: again: removed before, and nothing was gained since. solo: asked one by one, because a call for several was refused.
#: unsure: a call may have taken effect unseen. regranted_at: when somebody said that it was granted again.
#: confirm_at: when to ask Velt whether a removal shows. confirmation: `confirmed` or `still has access`, and why.
revocations = Table(
    "revocations",
    metadata,
    Column("id", String(40), primary_key=True),
    Column("event_id", String(40), ForeignKey("events.id"), nullable=False),
    Column("person_id", BigInteger, ForeignKey("people.id"), nullable=False),
    Column("resource_type", String(16), nullable=False),
    Column("resource_id", Text, nullable=False),
    Column("organization_id", Text),
    Column("rules", Text, nullable=False),
    Column("state", String(16), nullable=False),
    Column("reason", Text),
    Column("superseded_by", String(40)),
    Column("next_at", BigInteger),
    Column("again", Boolean, nullable=False, server_default=false()),
    Column("attempts", Integer, nullable=False, server_default=text("0")),
    Column("solo", Boolean, nullable=False, server_default=false()),
    Column("unsure", Boolean, nullable=False, server_default=false()),
    Column("needs_regrant", Boolean, nullable=False, server_default=false()),
    Column("confirmation", String(20)),
    Column("confirmation_reason", Text),
    Column("confirm_at", BigInteger),
    Column("confirm_tries", Integer, nullable=False, server_default=text("0")),
    Column("created_at", BigInteger, nullable=False),
    Column("sent_at", BigInteger),
    Column("settled_at", BigInteger),
    Column("regranted_at", BigInteger),
    Index("ix_revocations_event_id", "event_id"),
    Index("ix_revocations_person_id", "person_id", "state"),
    Index("ix_revocations_state", "state", "settled_at"),
)
_TO_CONFIRM = text("confirm_at IS NOT NULL")
Index("ix_revocations_confirm_at", revocations.c.confirm_at, sqlite_where=_TO_CONFIRM, postgresql_where=_TO_CONFIRM)
_ASKED = text("confirmation_reason IS NOT NULL")
Index(
    "ix_revocations_confirmation",
    revocations.c.confirmation,
    revocations.c.confirm_at,
    sqlite_where=_ASKED,
    postgresql_where=_ASKED,
)
_TO_REGRANT = text("needs_regrant")
Index("ix_revocations_regrant", revocations.c.settled_at, sqlite_where=_TO_REGRANT, postgresql_where=_TO_REGRANT)
_REGRANTED = text("regranted_at IS NOT NULL")
Index("ix_revocations_regranted", revocations.c.person_id, sqlite_where=_REGRANTED, postgresql_where=_REGRANTED)

#: One row a call to Velt, never changed. digest: SHA-256 over the row.
attempts = Table(
    "attempts",
    metadata,
    Column("id", String(40), primary_key=True),
    Column("person_id", BigInteger, ForeignKey("people.id"), nullable=False),
    Column("velt_user_id", Text, nullable=False),
    Column("worker", String(80), nullable=False),
    Column("started_at", BigInteger, nullable=False),
    Column("finished_at", BigInteger, nullable=False),
    Column("request", Text, nullable=False),
    Column("outcome", String(16), nullable=False),
    Column("reason", Text, nullable=False),
    Column("http_status", Integer),
    Column("velt_status", Text),
    Column("response", LargeBinary),
    Column("digest", String(64), nullable=False),
    Index("ix_attempts_person_id", "person_id", "started_at"),
)

attempt_revocations = Table(
    "attempt_revocations",
    metadata,
    Column("attempt_id", String(40), ForeignKey("attempts.id"), primary_key=True),
    Column("revocation_id", String(40), ForeignKey("revocations.id"), primary_key=True),
    Index("ix_attempt_revocations_revocation_id", "revocation_id"),
)

#: Who did what: retries, pauses, removals by hand. digest: SHA-256 over the row.
decisions = Table(
    "decisions",
    metadata,
    Column("id", String(40), primary_key=True),
    Column("at", BigInteger, nullable=False),
    Column("actor", Text, nullable=False),
    Column("action", String(24), nullable=False),
    Column("event_id", String(40)),
    Column("detail", Text, nullable=False),
    Column("reason", Text),
    Column("digest", String(64), nullable=False),
    Index("ix_decisions_event_id", "event_id"),
    Index("ix_decisions_at", "at"),
)

#: The one row (id 1) that says whether calls to Velt go out, and why not.
delivery = Table(
    "delivery",
    metadata,
    Column("id", Integer, primary_key=True, autoincrement=False),
    Column("state", String(8), nullable=False),
    Column("why", Text),
    Column("since", BigInteger, nullable=False),
    Column("failures", Integer, nullable=False),
    Column("failed_person", BigInteger),
    Column("probes", Integer, nullable=False),
    Column("probe_at", BigInteger),
    Column("key_digest", String(16)),
    Column("proven_key", String(16)),
    Column("paused", Boolean, nullable=False),
    Column("paused_by", Text),
    Column("paused_reason", Text),
)

#: Small things that outlive a process, such as heartbeats.
state = Table(
    "state",
    metadata,
    Column("key", String(120), primary_key=True),
    Column("value", Text, nullable=False),
    Column("at", BigInteger, nullable=False),
)

#: Text whose order is that of its code points, as SQLite's and Python's is.
_Exact = Text().with_variant(Text(collation="C"), "postgresql")

#: What a SCIM client has told of a user. document: the resource without id and meta. comparable: the same in the form
#: in which SCIM compares (case folded where case does not count), as are user_name, external_id and display_name.
scim_users = Table(
    "scim_users",
    metadata,
    Column("source", String(64), primary_key=True),
    Column("id", _Exact, primary_key=True),
    Column("user_name", _Exact, nullable=False),
    Column("external_id", _Exact),
    Column("display_name", _Exact),
    Column("document", Text, nullable=False),
    Column("comparable", JSON().with_variant(JSONB(), "postgresql"), nullable=False),
    Column("version", BigInteger, nullable=False),
    Column("created_at", BigInteger, nullable=False),
    Column("updated_at", BigInteger, nullable=False),
    Index("uq_scim_users_source_user_name", "source", "user_name", unique=True),
    Index("ix_scim_users_external_id", "source", "external_id", "id"),
    Index("ix_scim_users_display_name", "source", "display_name", "id"),
)

#: The same of a group; its members are rows of their own.
scim_groups = Table(
    "scim_groups",
    metadata,
    Column("source", String(64), primary_key=True),
    Column("id", _Exact, primary_key=True),
    Column("external_id", _Exact),
    Column("display_name", _Exact),
    Column("document", Text, nullable=False),
    Column("comparable", JSON().with_variant(JSONB(), "postgresql"), nullable=False),
    Column("version", BigInteger, nullable=False),
    Column("created_at", BigInteger, nullable=False),
    Column("updated_at", BigInteger, nullable=False),
    Index("ix_scim_groups_external_id", "source", "external_id", "id"),
    Index("ix_scim_groups_display_name", "source", "display_name", "id"),
)

#: One row a member of a SCIM group. The member may be a user, another group or somebody unknown: no foreign key.
scim_members = Table(
    "scim_members",
    metadata,
    Column("source", String(64), primary_key=True),
    Column("group_id", _Exact, primary_key=True),
    Column("member_id", _Exact, primary_key=True),
    Column("type", Text),
    Column("display", Text),
    Index("ix_scim_members_source_member_id", "source", "member_id"),
)
