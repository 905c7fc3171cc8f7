"""A trial names its machine code, and says when it was timed in noise."""

import sqlalchemy as sa
from alembic import op

revision = "0002"
down_revision = "0001"


def upgrade() -> None:
    op.add_column("tw_trials", sa.Column("object_key", sa.Text(), nullable=True))
    op.add_column("tw_trials", sa.Column("yardstick_secs", sa.Double(), nullable=True))
    for name in ("is_duplicate", "is_noisy"):
        op.add_column("tw_trials", sa.Column(name, sa.Boolean(), nullable=False, server_default=sa.false()))
