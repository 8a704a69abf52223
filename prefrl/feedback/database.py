"""One SQLite file, opened so that what was acknowledged survives.

TRUNCATE journal and full synchronisation: in kill and power-loss tests no acknowledged label
was lost; WAL has a bug with several writers before SQLite 3.51.3. Not for network file
systems.
"""

from __future__ import annotations

import os
import sqlite3
import sys
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from prefrl.errors import UserError
from prefrl.feedback.errors import DamagedStore, DiskFull
from prefrl.feedback.schema import LISTED, Schema, row_sha, tables
from prefrl.feedback.turns import Turns

WAIT_SECONDS = 30.0  # for another process to finish its transaction
MOMENTS = 0.01  # most commits are over by then: not worth a place in line
PRAGMAS = (
    "journal_mode=TRUNCATE",
    "synchronous=FULL",
    "mmap_size=0",
    "foreign_keys=ON",
    "trusted_schema=OFF",
    "cell_size_check=ON",
    "secure_delete=ON",  # what is forgotten is overwritten
)
DAMAGED = {  # SQLITE_ERROR: our statements are fixed, so the tables are not as we made them
    sqlite3.SQLITE_CORRUPT,
    sqlite3.SQLITE_NOTADB,
    sqlite3.SQLITE_ERROR,
}
UNREACHABLE = {
    sqlite3.SQLITE_READONLY,
    sqlite3.SQLITE_CANTOPEN,
    sqlite3.SQLITE_PERM,
    sqlite3.SQLITE_IOERR,
}

NOTHING_STORED = (
    "the last call stored nothing, everything before it is safe; free some space and go on"
)
TRACES_LEFT = (
    "all is stored, but traces of what was removed may be left in the file; free some space and "
    "give the same command again"
)


def lock_of(path: Path) -> Path:
    """The file by which writers take turns: `labels.lock` beside `labels.db`."""
    return path.with_suffix(".lock")


class Database:
    """A connection that belongs to the process that opened it.

    Args:
        create: make the tables where the file is missing or empty; else that is damage.
        on_full: called once a write has failed on a full disk; says what it freed.
    """

    def __init__(
        self, path: Path, schema: Schema, *, create: bool, on_full: Callable[[], str]
    ) -> None:
        self.path, self._on_full = path, on_full
        self._pid = os.getpid()
        try:
            self._handle = sqlite3.connect(path, timeout=WAIT_SECONDS, isolation_level=None)
        except sqlite3.Error as error:
            raise UserError(f"cannot open {path}: {error}") from error
        self._handle.row_factory = sqlite3.Row
        self._turns = Turns(lock_of(path), seconds=WAIT_SECONDS)
        try:
            with self.turn(), self._explained():
                self._prepare(schema, create)
        except BaseException:
            self.close()
            raise

    def close(self) -> None:
        """Close the connection, in the process that opened it."""
        if os.getpid() == self._pid:
            self._handle.close()
            self._turns.close()

    def rows(self, sql: str, values: Sequence[Any] | Mapping[str, Any] = ()) -> list[sqlite3.Row]:
        """All rows of a query, or of one statement inside `transaction`."""
        with self.moment(), self._explained():
            return self._connection().execute(sql, values).fetchall()

    @contextmanager
    def moment(self) -> Iterator[None]:
        """All that is read inside is of one moment. May be nested, also in a transaction.

        Where somebody is writing just now, this waits in line with those who write: asking again
        and again one might never meet a pause.
        """
        connection = self._connection()
        if connection.in_transaction:
            yield
            return
        with self._explained():
            if not self._begun_soon():
                with self.turn():
                    self._begin_reading()
        try:
            yield
        finally:
            if connection.in_transaction:
                connection.execute("ROLLBACK")

    @contextmanager
    def transaction(self) -> Iterator[None]:
        """All that is written inside is stored when this returns, or nothing is."""
        connection = self._connection()
        with self.turn(), self._explained():
            connection.execute("BEGIN IMMEDIATE")
            try:
                yield
                connection.execute("COMMIT")
            except BaseException:
                if connection.in_transaction:  # a full disk has rolled back already
                    connection.execute("ROLLBACK")
                raise

    @contextmanager
    def turn(self) -> Iterator[None]:
        """Nobody else writes meanwhile; a transaction takes its turn by itself.

        Raises:
            UserError: nobody gave way for `WAIT_SECONDS`.
        """
        with self._turns.turn() as got:
            if not got:
                raise self._locked()
            yield

    def insert(self, table: str, row: Mapping[str, Any]) -> bool:
        """Insert `row` unless its key or a unique index is taken; was it inserted?"""
        names, marks = ", ".join(row), ", ".join("?" * len(row))
        sql = f"INSERT INTO {table} ({names}) VALUES ({marks}) ON CONFLICT DO NOTHING"
        with self._explained():
            return self._connection().execute(sql, tuple(row.values())).rowcount == 1

    def update(self, table: str, key: str, row: Mapping[str, Any]) -> None:
        """Replace the row whose `key` is that of `row`."""
        names = [name for name in row if name != key]
        sql = f"UPDATE {table} SET {', '.join(f'{n} = ?' for n in names)} WHERE {key} = ?"
        with self._explained():
            self._connection().execute(sql, (*(row[n] for n in names), row[key]))

    def verified(
        self, table: str, where: str = "", values: Sequence[Any] = ()
    ) -> list[sqlite3.Row]:
        """Whole rows whose `row_sha` has been checked.

        Raises:
            DamagedStore: a row is not what was written.
        """
        found = self.rows(f"SELECT * FROM {table} {where}", values)
        for row in map(dict, found):
            if row_sha(row) != row.get("row_sha"):
                raise self.damaged(f"the {table} {row.get('id')!r} is not what was written")
        return found

    def has(self, table: str, id: str) -> bool:
        """Is there a row of this id?"""
        return bool(self.rows(f"SELECT 1 FROM {table} WHERE id = ?", (id,)))

    def vacuum(self) -> None:
        """Write the file anew, so that nothing of deleted rows is left in it."""
        with self.turn(), self._explained(full=TRACES_LEFT):
            self._connection().execute("VACUUM")

    def copy(self, path: Path) -> None:
        """Write all of it into a new file."""
        with self.turn(), self._explained():
            self._connection().execute("VACUUM INTO ?", (str(path),))

    def check(self) -> None:
        """Read the whole file.

        Raises:
            DamagedStore: its pages or references are broken.
        """
        found = [row[0] for row in self.rows("PRAGMA integrity_check(3)")]
        if found != ["ok"]:
            raise self.damaged("; ".join(found))
        if self.rows("PRAGMA foreign_key_check"):
            raise self.damaged("rows refer to others that are missing")

    def damaged(self, what: str) -> DamagedStore:
        """The error for `what` was found."""
        return DamagedStore(
            f"{self.path} is damaged: {what}; every answer is also in "
            f"{self.path.parent / 'labels.jsonl'}: restore the database from a backup"
        )

    def _prepare(self, schema: Schema, create: bool) -> None:
        name = self.path.name
        application, version, listed = self._look()
        blank = not listed
        if blank and not create:
            raise self.damaged("it is empty")
        if application != schema.application_id and not (blank and application == 0):
            raise UserError(
                f"{self.path} is not a {name} of prefrl (application id {application:#x}, "
                f"wanted {schema.application_id:#x}): give another run directory"
            )
        if not blank and version < 1:
            raise self.damaged(f"its schema version is {version}")
        if version > len(schema.migrations):
            raise UserError(
                f"{self.path} was written by a newer prefrl (schema {version}, this one knows "
                f"up to {len(schema.migrations)}): update prefrl"
            )
        if not blank and listed != tables(schema, version):
            names = sorted({row[1] for row in listed ^ tables(schema, version)})
            raise self.damaged(f"its tables are not those of prefrl: {', '.join(names)[:200]}")
        for pragma in (*PRAGMAS, *(["fullfsync=ON"] if sys.platform == "darwin" else [])):
            self._handle.execute(f"PRAGMA {pragma}")
        if schema.checked_at_open:
            self.check()
        if version < len(schema.migrations):
            self._migrate(schema)

    def _look(self) -> tuple[int, int, frozenset[tuple[str, ...]]]:
        """(application id, version, tables), of one moment: another process may be migrating."""
        self._handle.execute("BEGIN")
        try:
            application, version = self._pragma("application_id"), self._pragma("user_version")
            return application, version, frozenset(map(tuple, self._handle.execute(LISTED)))
        finally:
            if self._handle.in_transaction:
                self._handle.execute("ROLLBACK")

    def _migrate(self, schema: Schema) -> None:
        with self.transaction():
            version = self._pragma("user_version")  # another process may have been faster
            for statements in schema.migrations[version:]:
                for statement in statements:
                    self._handle.execute(statement)
            self._handle.execute(f"PRAGMA application_id={schema.application_id}")
            self._handle.execute(f"PRAGMA user_version={len(schema.migrations)}")

    def _pragma(self, name: str) -> int:
        return int(self._handle.execute(f"PRAGMA {name}").fetchone()[0])

    def _connection(self) -> sqlite3.Connection:
        if os.getpid() != self._pid:
            raise RuntimeError(
                f"{self.path} was opened by process {self._pid} and is used by its fork "
                f"{os.getpid()}: open the store after forking"
            )
        return self._handle

    def _begun_soon(self) -> bool:
        """Begin to read, unless somebody is writing just now and for some moments."""
        self._handle.execute(f"PRAGMA busy_timeout={round(1e3 * MOMENTS)}")
        try:
            self._begin_reading()
        except sqlite3.OperationalError as error:
            if _code(error) != sqlite3.SQLITE_BUSY:
                raise
            return False
        finally:
            self._handle.execute(f"PRAGMA busy_timeout={round(1e3 * WAIT_SECONDS)}")
        return True

    def _begin_reading(self) -> None:
        """Nobody's commit goes through from here on."""
        self._handle.execute("BEGIN")
        try:
            self._handle.execute("SELECT 1 FROM sqlite_master LIMIT 1")
        except sqlite3.Error:
            self._handle.execute("ROLLBACK")
            raise

    def _locked(self) -> UserError:
        return UserError(
            f"{self.path} was locked for {WAIT_SECONDS:.0f} s by another process: stop it"
        )

    @contextmanager
    def _explained(self, *, full: str = NOTHING_STORED) -> Iterator[None]:
        try:
            yield
        except UnicodeDecodeError as error:  # the name of a table or column
            raise self.damaged(str(error)) from error
        except sqlite3.DatabaseError as error:
            code = _code(error)
            if code == sqlite3.SQLITE_FULL:
                raise DiskFull(
                    f"the disk of {self.path} is full; {self._on_full()}: {full}"
                ) from error
            if code in DAMAGED or "decode to UTF-8" in str(error):
                raise self.damaged(str(error)) from error
            if code == sqlite3.SQLITE_BUSY:
                raise self._locked() from error
            if code in UNREACHABLE:
                raise UserError(
                    f"cannot read or write {self.path}: {error}; check its permissions and disk"
                ) from error
            raise


def _code(error: sqlite3.Error) -> int:
    """Which error it is, without the extended part."""
    return getattr(error, "sqlite_errorcode", 0) & 0xFF
