"""Revocations of what was removed before."""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

revision = '0004'
down_revision = '0003'
branch_labels = None
depends_on = None


def upgrade() -> None:
    op.add_column('revocations', sa.Column('again', sa.Boolean(), server_default=sa.false(), nullable=False))
