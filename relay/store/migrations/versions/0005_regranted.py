"""When somebody said that what a revocation took was granted again."""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

revision = '0005'
down_revision = '0004'
branch_labels = None
depends_on = None


def upgrade() -> None:
    op.add_column('revocations', sa.Column('regranted_at', sa.BigInteger()))
    where = sa.text('regranted_at IS NOT NULL')
    op.create_index(
        'ix_revocations_regranted', 'revocations', ['person_id'], sqlite_where=where, postgresql_where=where
    )
