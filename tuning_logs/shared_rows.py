"""Rows that many trials refer to, and that never change once they are stored: read once, kept."""

import zlib
from collections.abc import Callable, Collection, Iterable, Mapping, Sequence
from typing import Any, TypeVar

from sqlalchemy import select
from sqlalchemy.dialects import sqlite
from sqlalchemy.orm import InstrumentedAttribute, Session

from tunewright.core.types import MachineInfo, TargetSpec
from tunewright.tuning_logs import codec
from tunewright.tuning_logs.compression import Dictionary
from tunewright.tuning_logs.tables import Base, DictionaryRow, MachineRow, SetupRow, TargetRow

_T = TypeVar("_T")

# SQLite refuses a statement with more than 32,766 values.
MAX_KEYS_PER_QUERY = 5_000
# A dictionary is a trace or the features of one candidate: some kilobytes.
_MAX_KEPT = 10_000


def chunks(keys: Iterable[_T], size: int = MAX_KEYS_PER_QUERY) -> Iterable[list[_T]]:
    """Distinct keys in parts that one statement can take."""
    unique = list(dict.fromkeys(keys))
    return (unique[start : start + size] for start in range(0, len(unique), size))


def ids_by_key(
    session: Session, key_column: InstrumentedAttribute[str], keys: Iterable[str]
) -> dict[str, int]:
    """Row ids of those keys that are stored."""
    found: dict[str, int] = {}
    for some in chunks(keys):
        query = select(key_column, key_column.class_.id).where(key_column.in_(some))
        found.update((key, row_id) for key, row_id in session.execute(query))
    return found


def ensure_ids(
    session: Session, key_column: InstrumentedAttribute[str], rows: Iterable[codec.Fields]
) -> dict[str, int]:
    """Row ids of all `rows` by their key; those that are new are stored.

    Two writers may store the same row at once; one of them finds the other's.
    """
    by_key = {row[key_column.key]: row for row in rows}
    ids = ids_by_key(session, key_column, by_key)
    new = [row for key, row in by_key.items() if key not in ids]
    if new:
        insert_or_ignore(session, key_column.class_, new)
        ids.update(ids_by_key(session, key_column, (row[key_column.key] for row in new)))
    return ids


def insert_or_ignore(session: Session, table: Any, rows: Sequence[codec.Fields]) -> None:
    """Store rows but for those whose unique key is taken."""
    if session.get_bind().dialect.name == "postgresql":
        # Imported where it is needed: a command that reads a file is not kept waiting for it.
        from sqlalchemy.dialects import postgresql

        session.execute(postgresql.insert(table.__table__).on_conflict_do_nothing(), rows)
    else:
        session.execute(sqlite.insert(table.__table__).on_conflict_do_nothing(), rows)


def machine_ids(session: Session, machines: Iterable[MachineInfo]) -> dict[MachineInfo, int]:
    fields = {machine: codec.machine_fields(machine) for machine in machines}
    ids = ensure_ids(session, MachineRow.machine_key, fields.values())
    return {machine: ids[row["machine_key"]] for machine, row in fields.items()}


def target_ids(session: Session, targets: Iterable[TargetSpec]) -> dict[TargetSpec, int]:
    fields = {target: codec.target_fields(target) for target in targets}
    ids = ensure_ids(session, TargetRow.target_json, fields.values())
    return {target: ids[row["target_json"]] for target, row in fields.items()}


def setup_ids(session: Session, setups: Iterable[codec.Setup]) -> dict[codec.Setup, int]:
    fields = {setup: codec.setup_fields(setup) for setup in setups}
    ids = ensure_ids(session, SetupRow.setup_key, fields.values())
    return {setup: ids[row["setup_key"]] for setup, row in fields.items()}


class SharedRows:
    """What trials refer to, by row id."""

    def __init__(self) -> None:
        self._machines: dict[int, MachineInfo] = {}
        self._setups: dict[int, codec.Setup] = {}
        self._dictionaries: dict[int, Dictionary] = {}
        self._task_dictionaries: dict[tuple[int, str], Dictionary] = {}

    def machines(self, session: Session, ids: Collection[int]) -> Mapping[int, MachineInfo]:
        return _looked_up(self._machines, session, MachineRow, ids, codec.machine_from_fields)

    def setups(self, session: Session, ids: Collection[int]) -> Mapping[int, codec.Setup]:
        return _looked_up(self._setups, session, SetupRow, ids, codec.setup_from_fields)

    def dictionaries(self, session: Session, ids: Collection[int]) -> Mapping[int, Dictionary]:
        return _looked_up(self._dictionaries, session, DictionaryRow, ids, _dictionary)

    def task_dictionaries(
        self, session: Session, contents: Mapping[int, bytes], *, kind: str
    ) -> dict[int, Dictionary]:
        """The dictionary of each task, by the task's row id; where there is none, `contents` becomes it."""
        missing = [task_id for task_id in contents if (task_id, kind) not in self._task_dictionaries]
        if missing:
            self._find_task_dictionaries(session, missing, kind)
        new = sorted(task_id for task_id in missing if (task_id, kind) not in self._task_dictionaries)
        if new:
            rows = [
                {"task_id": task_id, "kind": kind, "content_zlib": zlib.compress(contents[task_id])}
                for task_id in new
            ]
            insert_or_ignore(session, DictionaryRow, rows)
            # Not kept before the transaction is committed.
            return self._kept(contents, kind) | _read_task_dictionaries(session, new, kind)
        return self._kept(contents, kind)

    def _find_task_dictionaries(self, session: Session, task_ids: Collection[int], kind: str) -> None:
        if len(self._task_dictionaries) > _MAX_KEPT:
            self._task_dictionaries.clear()
        found = _read_task_dictionaries(session, task_ids, kind)
        self._task_dictionaries.update(((task_id, kind), known) for task_id, known in found.items())

    def _kept(self, task_ids: Iterable[int], kind: str) -> dict[int, Dictionary]:
        known = self._task_dictionaries
        return {task_id: known[task_id, kind] for task_id in task_ids if (task_id, kind) in known}


def _read_task_dictionaries(session: Session, task_ids: Iterable[int], kind: str) -> dict[int, Dictionary]:
    found: dict[int, Dictionary] = {}
    columns = (DictionaryRow.task_id, DictionaryRow.id, DictionaryRow.content_zlib)
    for some in chunks(task_ids):
        query = select(*columns).where(DictionaryRow.kind == kind, DictionaryRow.task_id.in_(some))
        for task_id, row_id, content_zlib in session.execute(query):
            found[task_id] = Dictionary(row_id, zlib.decompress(content_zlib))
    return found


def _looked_up(
    known: dict[int, _T],
    session: Session,
    table: type[Base],
    ids: Collection[int],
    made_from: Callable[[Mapping[str, Any]], _T],
) -> Mapping[int, _T]:
    missing = [row_id for row_id in dict.fromkeys(ids) if row_id not in known]
    if not missing:
        return known
    if len(known) > _MAX_KEPT:
        known.clear()
        missing = list(dict.fromkeys(ids))
    columns: Any = table.__table__.c
    for some in chunks(missing):
        query = select(*columns).where(columns.id.in_(some))
        known.update((row["id"], made_from(dict(row))) for row in session.execute(query).mappings())
    return known


def _dictionary(row: Mapping[str, Any]) -> Dictionary:
    return Dictionary(row["id"], zlib.decompress(row["content_zlib"]))
