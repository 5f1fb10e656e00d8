"""SCIM's users, groups and members."""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op
from sqlalchemy.dialects import postgresql

revision = '0002'
down_revision = '0001'
branch_labels = None
depends_on = None


def exact() -> sa.Text:
    return sa.Text().with_variant(sa.Text(collation='C'), 'postgresql')


def json() -> sa.JSON:
    return sa.JSON().with_variant(postgresql.JSONB(), 'postgresql')


def upgrade() -> None:
    op.create_table('scim_users',
    sa.Column('source', sa.String(length=64), nullable=False),
    sa.Column('id', exact(), nullable=False),
    sa.Column('user_name', exact(), nullable=False),
    sa.Column('external_id', exact(), nullable=True),
    sa.Column('display_name', exact(), nullable=True),
    sa.Column('document', sa.Text(), nullable=False),
    sa.Column('comparable', json(), nullable=False),
    sa.Column('version', sa.BigInteger(), nullable=False),
    sa.Column('created_at', sa.BigInteger(), nullable=False),
    sa.Column('updated_at', sa.BigInteger(), nullable=False),
    sa.PrimaryKeyConstraint('source', 'id', name=op.f('pk_scim_users'))
    )
    with op.batch_alter_table('scim_users', schema=None) as batch_op:
        batch_op.create_index('uq_scim_users_source_user_name', ['source', 'user_name'], unique=True)
        batch_op.create_index('ix_scim_users_external_id', ['source', 'external_id', 'id'], unique=False)
        batch_op.create_index('ix_scim_users_display_name', ['source', 'display_name', 'id'], unique=False)

    op.create_table('scim_groups',
    sa.Column('source', sa.String(length=64), nullable=False),
    sa.Column('id', exact(), nullable=False),
    sa.Column('external_id', exact(), nullable=True),
    sa.Column('display_name', exact(), nullable=True),
    sa.Column('document', sa.Text(), nullable=False),
    sa.Column('comparable', json(), nullable=False),
    sa.Column('version', sa.BigInteger(), nullable=False),
    sa.Column('created_at', sa.BigInteger(), nullable=False),
    sa.Column('updated_at', sa.BigInteger(), nullable=False),
    sa.PrimaryKeyConstraint('source', 'id', name=op.f('pk_scim_groups'))
    )
    with op.batch_alter_table('scim_groups', schema=None) as batch_op:
        batch_op.create_index('ix_scim_groups_external_id', ['source', 'external_id', 'id'], unique=False)
        batch_op.create_index('ix_scim_groups_display_name', ['source', 'display_name', 'id'], unique=False)

    op.create_table('scim_members',
    sa.Column('source', sa.String(length=64), nullable=False),
    sa.Column('group_id', exact(), nullable=False),
    sa.Column('member_id', exact(), nullable=False),
    sa.Column('type', sa.Text(), nullable=True),
    sa.Column('display', sa.Text(), nullable=True),
    sa.PrimaryKeyConstraint('source', 'group_id', 'member_id', name=op.f('pk_scim_members'))
    )
    with op.batch_alter_table('scim_members', schema=None) as batch_op:
        batch_op.create_index('ix_scim_members_source_member_id', ['source', 'member_id'], unique=False)
