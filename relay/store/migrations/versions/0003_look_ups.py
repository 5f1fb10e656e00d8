"""Look-ups, alerts, what only reconcile found, confirmation."""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

revision = '0003'
down_revision = '0002'
branch_labels = None
depends_on = None


def upgrade() -> None:
    op.create_table('look_ups',
    sa.Column('source', sa.String(length=64), nullable=False),
    sa.Column('object_type', sa.String(length=8), nullable=False),
    sa.Column('object_id', sa.Text(), nullable=False),
    sa.Column('wanted_at', sa.BigInteger(), nullable=True),
    sa.Column('due_at', sa.BigInteger(), nullable=True),
    sa.Column('asked_until', sa.BigInteger(), nullable=True),
    sa.Column('fetched_at', sa.BigInteger(), nullable=True),
    sa.Column('status', sa.String(length=16), nullable=True),
    sa.Column('answer', sa.Text(), nullable=True),
    sa.Column('failing_since', sa.BigInteger(), nullable=True),
    sa.Column('failures', sa.Integer(), server_default=sa.text('0'), nullable=False),
    sa.Column('reason', sa.Text(), nullable=True),
    sa.PrimaryKeyConstraint('source', 'object_type', 'object_id', name=op.f('pk_look_ups'))
    )
    partial('look_ups', 'ix_look_ups_due_at', ['due_at'], 'due_at IS NOT NULL')
    op.create_table('alerts',
    sa.Column('key', sa.String(length=120), nullable=False),
    sa.Column('text', sa.Text(), nullable=False),
    sa.Column('raised_at', sa.BigInteger(), nullable=False),
    sa.Column('told_at', sa.BigInteger(), nullable=True),
    sa.Column('attempts', sa.Integer(), server_default=sa.text('0'), nullable=False),
    sa.Column('next_at', sa.BigInteger(), nullable=True),
    sa.Column('cleared_at', sa.BigInteger(), nullable=True),
    sa.PrimaryKeyConstraint('key', name=op.f('pk_alerts'))
    )
    op.add_column('events', sa.Column('look_at', sa.BigInteger(), nullable=True))
    op.add_column('events', sa.Column('wait_until', sa.BigInteger(), nullable=True))
    op.add_column('events', sa.Column('looks', sa.Integer(), server_default=sa.text('0'), nullable=False))
    op.add_column('events', sa.Column('completing', sa.Boolean(), server_default=sa.false(), nullable=False))
    op.add_column('events', sa.Column('found_by', sa.String(length=16), nullable=True))
    partial('events', 'ix_events_found_by', ['found_by'], 'found_by IS NOT NULL')
    partial('events', 'ix_events_completing', ['source', 'subject'], 'completing')
    op.add_column('revocations', sa.Column('confirmation', sa.String(length=20), nullable=True))
    op.add_column('revocations', sa.Column('confirmation_reason', sa.Text(), nullable=True))
    op.add_column('revocations', sa.Column('confirm_at', sa.BigInteger(), nullable=True))
    op.add_column('revocations', sa.Column('confirm_tries', sa.Integer(), server_default=sa.text('0'), nullable=False))
    partial('revocations', 'ix_revocations_confirm_at', ['confirm_at'], 'confirm_at IS NOT NULL')
    partial('revocations', 'ix_revocations_confirmation', ['confirmation', 'confirm_at'], 'confirmation_reason IS NOT NULL')
    partial('revocations', 'ix_revocations_regrant', ['settled_at'], 'needs_regrant')


def partial(table: str, name: str, columns: list[str], where: str) -> None:
    op.create_index(name, table, columns, unique=False, sqlite_where=sa.text(where), postgresql_where=sa.text(where))
