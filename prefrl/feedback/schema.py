"""The tables of the two databases, as numbered migrations.

A migration is never edited once released: a change is a new one at the end. `row_sha` covers
the columns of a row that are not NULL, so a migration may add nullable columns without
touching old rows. Leases, the queue and the beat have none: they can be lost without harm.
"""

from __future__ import annotations

import functools
import hashlib
import json
import sqlite3
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any


@dataclass(frozen=True, slots=True, kw_only=True)
class Schema:
    """What a database file of ours looks like."""

    application_id: int
    """Marks the file as ours."""
    migrations: tuple[tuple[str, ...], ...]
    """Statements that lead from version i to i + 1."""
    checked_at_open: bool
    """Small enough to be read whole by an integrity check at every opening."""


LABELS = Schema(
    application_id=0x50464C42,  # "PFLB"
    checked_at_open=True,
    migrations=(
        (
            """CREATE TABLE run (
                id INTEGER PRIMARY KEY CHECK (id = 1), task TEXT NOT NULL,
                seed INTEGER NOT NULL, row_sha BLOB NOT NULL
            )""",
            """CREATE TABLE segment_ref (
                id TEXT PRIMARY KEY, task TEXT NOT NULL, seed INTEGER NOT NULL,
                policy_step INTEGER NOT NULL, env INTEGER NOT NULL, episode INTEGER NOT NULL,
                t0 INTEGER NOT NULL, steps INTEGER NOT NULL,
                ended INTEGER NOT NULL, true_reward BLOB NOT NULL, row_sha BLOB NOT NULL
            )""",
            """CREATE TABLE query (
                id TEXT PRIMARY KEY, segments TEXT NOT NULL, policy_step INTEGER NOT NULL,
                reason TEXT NOT NULL, priority REAL NOT NULL, row_sha BLOB NOT NULL
            )""",
            """CREATE TABLE label (
                seq INTEGER PRIMARY KEY AUTOINCREMENT, id TEXT NOT NULL UNIQUE,
                query TEXT NOT NULL REFERENCES query (id), rater TEXT NOT NULL,
                kind TEXT NOT NULL, answer TEXT NOT NULL, live INTEGER NOT NULL,
                row_sha BLOB NOT NULL
            )""",
            "CREATE UNIQUE INDEX one_vote ON label (query, rater) WHERE live = 1",
        ),
        (
            *(
                f"ALTER TABLE query ADD COLUMN {column}"
                for column in ("form TEXT", "need INTEGER", "purpose TEXT", "expected TEXT")
            ),
            "ALTER TABLE query ADD COLUMN repeat_of TEXT",
            "CREATE INDEX query_control ON query (purpose) WHERE purpose IS NOT NULL",
            *(
                f"ALTER TABLE label ADD COLUMN {column}"
                for column in ("session TEXT", "viewing TEXT", "supersedes TEXT", "time REAL")
            ),
            "ALTER TABLE label ADD COLUMN status TEXT",  # NULL: counts; else "extra" or "stale"
            "ALTER TABLE label ADD COLUMN ended INTEGER",  # seq of the row that withdrew it
            "CREATE INDEX label_votes ON label (query, rater)",
            "CREATE INDEX label_rater ON label (rater, seq)",
            "CREATE INDEX label_ended ON label (ended) WHERE ended IS NOT NULL",
            """CREATE TABLE lease (
                query TEXT NOT NULL REFERENCES query (id), rater TEXT NOT NULL,
                token TEXT NOT NULL UNIQUE, place INTEGER NOT NULL,
                granted REAL NOT NULL, expires REAL NOT NULL, PRIMARY KEY (query, rater)
            )""",
            "CREATE INDEX lease_rater ON lease (rater, place)",
            """CREATE TABLE retired (
                query TEXT PRIMARY KEY REFERENCES query (id), reason TEXT NOT NULL,
                row_sha BLOB NOT NULL
            )""",
            # normal queries that want answers: what `query`, `label` and `retired` say, indexed
            """CREATE TABLE queue (
                query TEXT PRIMARY KEY REFERENCES query (id), priority REAL NOT NULL,
                policy_step INTEGER NOT NULL
            )""",
            "CREATE INDEX queue_order ON queue (priority DESC, policy_step DESC, query)",
            """INSERT INTO queue SELECT id, priority, policy_step FROM query
                WHERE id NOT IN (SELECT query FROM label WHERE live = 1)""",
            """CREATE TABLE instruction (
                version INTEGER PRIMARY KEY, text TEXT NOT NULL, row_sha BLOB NOT NULL
            )""",
            """CREATE TABLE session (
                id TEXT PRIMARY KEY, rater TEXT NOT NULL, app TEXT NOT NULL,
                started REAL NOT NULL, row_sha BLOB NOT NULL
            )""",
            """CREATE TABLE edited (
                label INTEGER PRIMARY KEY REFERENCES label (seq),
                segment TEXT NOT NULL REFERENCES segment_ref (id), row_sha BLOB NOT NULL
            )""",
            """CREATE TABLE beat (
                id INTEGER PRIMARY KEY CHECK (id = 1), step INTEGER NOT NULL,
                labels_due INTEGER NOT NULL, labels INTEGER NOT NULL, time REAL NOT NULL
            )""",
        ),
        (
            """CREATE TABLE consent (
                id TEXT PRIMARY KEY, session TEXT NOT NULL REFERENCES session (id),
                version INTEGER NOT NULL, text_sha TEXT NOT NULL, time REAL NOT NULL,
                row_sha BLOB NOT NULL
            )""",
            """CREATE TABLE pack (
                id TEXT PRIMARY KEY, rater TEXT, queries TEXT NOT NULL, made REAL NOT NULL,
                row_sha BLOB NOT NULL
            )""",
        ),
        (),  # answers may hold a probability, which an older prefrl would call malformed
    ),
)

CLIPS = Schema(
    application_id=0x5046434C,  # "PFCL"
    checked_at_open=False,
    migrations=(
        (
            """CREATE TABLE clip (
                id TEXT PRIMARY KEY, view BLOB NOT NULL, recipe BLOB NOT NULL,
                sha256 BLOB NOT NULL
            )""",
        ),
        (
            """CREATE TABLE picture (
                id TEXT PRIMARY KEY, data BLOB NOT NULL, sha256 BLOB NOT NULL
            )""",
        ),
    ),
)


@functools.cache
def tables(schema: Schema, version: int) -> frozenset[tuple[str, ...]]:
    """(type, name, table, SQL) of all that a database of this version holds."""
    memory = sqlite3.connect(":memory:")
    try:
        for statements in schema.migrations[:version]:
            for statement in statements:
                memory.execute(statement)
        return frozenset(map(tuple, memory.execute(LISTED)))
    finally:
        memory.close()


LISTED = "SELECT type, name, tbl_name, coalesce(sql, '') FROM sqlite_master"


def row_sha(row: Mapping[str, Any]) -> bytes:
    """SHA-256 of a row's columns that are not NULL, except the hash itself."""
    content = {
        name: value.hex() if isinstance(value, bytes) else value
        for name, value in sorted(row.items())
        if value is not None and name != "row_sha"
    }
    return hashlib.sha256(json.dumps(content).encode()).digest()


def clip_sha(segment: str, view: bytes, recipe: bytes) -> bytes:
    """SHA-256 of what `clip` holds under one id."""
    digest = hashlib.sha256(f"{segment} {len(view)} {len(recipe)}\n".encode())
    digest.update(view)
    digest.update(recipe)
    return digest.digest()
