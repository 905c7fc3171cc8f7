"""What machines can do at most."""

import sqlalchemy as sa
from alembic import op

revision = "0003"
down_revision = "0002"


def upgrade() -> None:
    op.create_table(
        "tw_peaks",
        sa.Column("id", sa.Integer(), nullable=False),
        sa.Column("machine_id", sa.Integer(), nullable=False),
        sa.Column("target_json", sa.Text(), nullable=False),
        sa.Column("flop_per_sec", sa.Double(), nullable=False),
        sa.Column("bandwidths_json", sa.Text(), nullable=False),
        sa.Column("measured_at", sa.DateTime(), nullable=False),
        sa.ForeignKeyConstraint(
            ["machine_id"], ["tw_machines.id"], name="fk_tw_peaks_machine_id_tw_machines"
        ),
        sa.PrimaryKeyConstraint("id", name="pk_tw_peaks"),
    )
    op.create_index("ix_tw_peaks_machine_id", "tw_peaks", ["machine_id"])
