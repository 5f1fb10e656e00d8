"""the first tables."""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

revision = '0001'
down_revision = None
branch_labels = None
depends_on = None


def upgrade() -> None:
    op.create_table('decisions',
    sa.Column('id', sa.String(length=40), nullable=False),
    sa.Column('at', sa.BigInteger(), nullable=False),
    sa.Column('actor', sa.Text(), nullable=False),
    sa.Column('action', sa.String(length=24), nullable=False),
    sa.Column('event_id', sa.String(length=40), nullable=True),
    sa.Column('detail', sa.Text(), nullable=False),
    sa.Column('reason', sa.Text(), nullable=True),
    sa.Column('digest', sa.String(length=64), nullable=False),
    sa.PrimaryKeyConstraint('id', name=op.f('pk_decisions'))
    )
    with op.batch_alter_table('decisions', schema=None) as batch_op:
        batch_op.create_index('ix_decisions_at', ['at'], unique=False)
        batch_op.create_index('ix_decisions_event_id', ['event_id'], unique=False)

    op.create_table('delivery',
    sa.Column('id', sa.Integer(), autoincrement=False, nullable=False),
    sa.Column('state', sa.String(length=8), nullable=False),
    sa.Column('why', sa.Text(), nullable=True),
    sa.Column('since', sa.BigInteger(), nullable=False),
    sa.Column('failures', sa.Integer(), nullable=False),
    sa.Column('failed_person', sa.BigInteger(), nullable=True),
    sa.Column('probes', sa.Integer(), nullable=False),
    sa.Column('probe_at', sa.BigInteger(), nullable=True),
    sa.Column('key_digest', sa.String(length=16), nullable=True),
    sa.Column('proven_key', sa.String(length=16), nullable=True),
    sa.Column('paused', sa.Boolean(), nullable=False),
    sa.Column('paused_by', sa.Text(), nullable=True),
    sa.Column('paused_reason', sa.Text(), nullable=True),
    sa.PrimaryKeyConstraint('id', name=op.f('pk_delivery'))
    )
    op.create_table('facts',
    sa.Column('source', sa.String(length=64), nullable=False),
    sa.Column('subject', sa.Text(), nullable=False),
    sa.Column('object_type', sa.String(length=8), nullable=False),
    sa.Column('object_id', sa.Text(), nullable=False),
    sa.Column('present', sa.Boolean(), nullable=False),
    sa.Column('as_of', sa.BigInteger(), nullable=False),
    sa.Column('basis', sa.String(length=8), nullable=False),
    sa.Column('name', sa.Text(), nullable=True),
    sa.Column('event_id', sa.String(length=40), nullable=True),
    sa.PrimaryKeyConstraint('source', 'subject', 'object_type', 'object_id', name=op.f('pk_facts'))
    )
    with op.batch_alter_table('facts', schema=None) as batch_op:
        batch_op.create_index('ix_facts_object', ['source', 'object_type', 'object_id', 'subject'], unique=False)

    op.create_table('people',
    sa.Column('id', sa.BigInteger().with_variant(sa.Integer(), 'sqlite'), autoincrement=True, nullable=False),
    sa.Column('velt_user_id', sa.Text(), nullable=False),
    sa.Column('plan_at', sa.BigInteger(), nullable=True),
    sa.Column('send_at', sa.BigInteger(), nullable=True),
    sa.Column('lease_token', sa.String(length=40), nullable=True),
    sa.Column('lease_from', sa.BigInteger(), nullable=True),
    sa.Column('lease_until', sa.BigInteger(), nullable=True),
    sa.PrimaryKeyConstraint('id', name=op.f('pk_people')),
    sa.UniqueConstraint('velt_user_id', name=op.f('uq_people_velt_user_id'))
    )
    with op.batch_alter_table('people', schema=None) as batch_op:
        batch_op.create_index('ix_people_lease_until', ['lease_until'], unique=False, sqlite_where=sa.text('lease_until IS NOT NULL'), postgresql_where=sa.text('lease_until IS NOT NULL'))
        batch_op.create_index('ix_people_plan_at', ['plan_at'], unique=False, sqlite_where=sa.text('plan_at IS NOT NULL'), postgresql_where=sa.text('plan_at IS NOT NULL'))
        batch_op.create_index('ix_people_send_at', ['send_at'], unique=False, sqlite_where=sa.text('send_at IS NOT NULL'), postgresql_where=sa.text('send_at IS NOT NULL'))

    op.create_table('state',
    sa.Column('key', sa.String(length=120), nullable=False),
    sa.Column('value', sa.Text(), nullable=False),
    sa.Column('at', sa.BigInteger(), nullable=False),
    sa.PrimaryKeyConstraint('key', name=op.f('pk_state'))
    )
    op.create_table('attempts',
    sa.Column('id', sa.String(length=40), nullable=False),
    sa.Column('person_id', sa.BigInteger(), nullable=False),
    sa.Column('velt_user_id', sa.Text(), nullable=False),
    sa.Column('worker', sa.String(length=80), nullable=False),
    sa.Column('started_at', sa.BigInteger(), nullable=False),
    sa.Column('finished_at', sa.BigInteger(), nullable=False),
    sa.Column('request', sa.Text(), nullable=False),
    sa.Column('outcome', sa.String(length=16), nullable=False),
    sa.Column('reason', sa.Text(), nullable=False),
    sa.Column('http_status', sa.Integer(), nullable=True),
    sa.Column('velt_status', sa.Text(), nullable=True),
    sa.Column('response', sa.LargeBinary(), nullable=True),
    sa.Column('digest', sa.String(length=64), nullable=False),
    sa.ForeignKeyConstraint(['person_id'], ['people.id'], name=op.f('fk_attempts_person_id')),
    sa.PrimaryKeyConstraint('id', name=op.f('pk_attempts'))
    )
    with op.batch_alter_table('attempts', schema=None) as batch_op:
        batch_op.create_index('ix_attempts_person_id', ['person_id', 'started_at'], unique=False)

    op.create_table('events',
    sa.Column('id', sa.String(length=40), nullable=False),
    sa.Column('source', sa.String(length=64), nullable=False),
    sa.Column('kind', sa.String(length=40), nullable=False),
    sa.Column('type', sa.Text(), nullable=False),
    sa.Column('state', sa.String(length=16), nullable=False),
    sa.Column('reason', sa.Text(), nullable=True),
    sa.Column('dedup_key', sa.Text(), nullable=True),
    sa.Column('twin', sa.Boolean(), server_default=sa.false(), nullable=False),
    sa.Column('replay', sa.Boolean(), server_default=sa.false(), nullable=False),
    sa.Column('subject', sa.Text(), nullable=True),
    sa.Column('login', sa.Text(), nullable=True),
    sa.Column('email', sa.Text(), nullable=True),
    sa.Column('external_id', sa.Text(), nullable=True),
    sa.Column('group_id', sa.Text(), nullable=True),
    sa.Column('group_name', sa.Text(), nullable=True),
    sa.Column('app_id', sa.Text(), nullable=True),
    sa.Column('app_name', sa.Text(), nullable=True),
    sa.Column('occurred_at', sa.BigInteger(), nullable=True),
    sa.Column('as_of', sa.BigInteger(), nullable=False),
    sa.Column('received_at', sa.BigInteger(), nullable=False),
    sa.Column('planned_at', sa.BigInteger(), nullable=True),
    sa.Column('person_id', sa.BigInteger(), nullable=True),
    sa.Column('parent_id', sa.String(length=40), nullable=True),
    sa.Column('rules_version', sa.String(length=16), nullable=True),
    sa.Column('plan', sa.Text(), nullable=True),
    sa.Column('unresolved', sa.Text(), nullable=True),
    sa.Column('payload', sa.LargeBinary(), nullable=False),
    sa.ForeignKeyConstraint(['person_id'], ['people.id'], name=op.f('fk_events_person_id')),
    sa.PrimaryKeyConstraint('id', name=op.f('pk_events'))
    )
    with op.batch_alter_table('events', schema=None) as batch_op:
        batch_op.create_index('ix_events_group_id', ['group_id'], unique=False)
        batch_op.create_index('ix_events_parent_id', ['parent_id'], unique=False)
        batch_op.create_index('ix_events_received_at', ['received_at'], unique=False)
        batch_op.create_index('ix_events_source_subject', ['source', 'subject'], unique=False)
        batch_op.create_index('ix_events_state', ['state', 'received_at'], unique=False)
        batch_op.create_index('ix_events_unplanned', ['person_id', 'as_of'], unique=False, sqlite_where=sa.text("state = 'received'"), postgresql_where=sa.text("state = 'received'"))
        batch_op.create_index('uq_events_source_dedup_key', ['source', 'dedup_key'], unique=True)

    op.create_table('identities',
    sa.Column('source', sa.String(length=64), nullable=False),
    sa.Column('subject', sa.Text(), nullable=False),
    sa.Column('person_id', sa.BigInteger(), nullable=False),
    sa.Column('current', sa.Boolean(), nullable=False),
    sa.Column('since', sa.BigInteger(), nullable=False),
    sa.Column('login', sa.Text(), nullable=True),
    sa.Column('email', sa.Text(), nullable=True),
    sa.Column('external_id', sa.Text(), nullable=True),
    sa.ForeignKeyConstraint(['person_id'], ['people.id'], name=op.f('fk_identities_person_id')),
    sa.PrimaryKeyConstraint('source', 'subject', 'person_id', name=op.f('pk_identities'))
    )
    with op.batch_alter_table('identities', schema=None) as batch_op:
        batch_op.create_index('ix_identities_person_id', ['person_id'], unique=False)

    op.create_table('revocations',
    sa.Column('id', sa.String(length=40), nullable=False),
    sa.Column('event_id', sa.String(length=40), nullable=False),
    sa.Column('person_id', sa.BigInteger(), nullable=False),
    sa.Column('resource_type', sa.String(length=16), nullable=False),
    sa.Column('resource_id', sa.Text(), nullable=False),
    sa.Column('organization_id', sa.Text(), nullable=True),
    sa.Column('rules', sa.Text(), nullable=False),
    sa.Column('state', sa.String(length=16), nullable=False),
    sa.Column('reason', sa.Text(), nullable=True),
    sa.Column('superseded_by', sa.String(length=40), nullable=True),
    sa.Column('next_at', sa.BigInteger(), nullable=True),
    sa.Column('attempts', sa.Integer(), server_default=sa.text('0'), nullable=False),
    sa.Column('solo', sa.Boolean(), server_default=sa.false(), nullable=False),
    sa.Column('unsure', sa.Boolean(), server_default=sa.false(), nullable=False),
    sa.Column('needs_regrant', sa.Boolean(), server_default=sa.false(), nullable=False),
    sa.Column('created_at', sa.BigInteger(), nullable=False),
    sa.Column('sent_at', sa.BigInteger(), nullable=True),
    sa.Column('settled_at', sa.BigInteger(), nullable=True),
    sa.ForeignKeyConstraint(['event_id'], ['events.id'], name=op.f('fk_revocations_event_id')),
    sa.ForeignKeyConstraint(['person_id'], ['people.id'], name=op.f('fk_revocations_person_id')),
    sa.PrimaryKeyConstraint('id', name=op.f('pk_revocations'))
    )
    with op.batch_alter_table('revocations', schema=None) as batch_op:
        batch_op.create_index('ix_revocations_event_id', ['event_id'], unique=False)
        batch_op.create_index('ix_revocations_person_id', ['person_id', 'state'], unique=False)
        batch_op.create_index('ix_revocations_state', ['state', 'settled_at'], unique=False)

    op.create_table('attempt_revocations',
    sa.Column('attempt_id', sa.String(length=40), nullable=False),
    sa.Column('revocation_id', sa.String(length=40), nullable=False),
    sa.ForeignKeyConstraint(['attempt_id'], ['attempts.id'], name=op.f('fk_attempt_revocations_attempt_id')),
    sa.ForeignKeyConstraint(['revocation_id'], ['revocations.id'], name=op.f('fk_attempt_revocations_revocation_id')),
    sa.PrimaryKeyConstraint('attempt_id', 'revocation_id', name=op.f('pk_attempt_revocations'))
    )
    with op.batch_alter_table('attempt_revocations', schema=None) as batch_op:
        batch_op.create_index('ix_attempt_revocations_revocation_id', ['revocation_id'], unique=False)

    op.execute(
        "INSERT INTO delivery (id, state, since, failures, probes, paused) VALUES (1, 'closed', 0, 0, 0, false)"
    )
