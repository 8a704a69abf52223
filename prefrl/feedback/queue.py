"""Which query a rater gets next, and who holds which: raters at their desks, and packs that are
out, each under its id.

A lease lives from `granted` to `expires`. Clocks jump: a lease that was granted in the future
does not live either and ends as soon as it is seen, so that it comes not to life when its time
has come. After a jump of an hour a query is asked twice at worst.
"""

from __future__ import annotations

import json
import secrets
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from prefrl.feedback.database import Database
from prefrl.feedback.records import Query
from prefrl.feedback.rows import SKIP, hashed, query_row, read_query

SLACK = 10.0  # seconds by which clocks are set back in daily life

DONE_BY_ME = """SELECT 1 FROM label WHERE label.query = {id} AND label.rater = :rater
    AND (label.live = 1 OR label.kind = 'flag' OR label.answer = :skip)"""
ANSWERED = """SELECT count(*) FROM label
    WHERE label.query = {id} AND label.live = 1 AND label.status IS NULL"""
OUT = """SELECT count(*) FROM lease JOIN pack ON pack.id = lease.rater
    WHERE lease.query = {id} AND {whose}
    AND lease.expires > :now AND lease.granted <= :now + :slack"""
LEASED = """SELECT count(*) FROM lease WHERE lease.query = {id} AND lease.rater != :rater
    AND lease.expires > :now AND lease.granted <= :now + :slack"""
OLD = """SELECT query FROM queue WHERE policy_step < :step
    AND NOT EXISTS (SELECT 1 FROM lease WHERE lease.query = queue.query
        AND lease.expires > :now AND lease.granted <= :now + :slack)"""
WANTED = f"""SELECT queue.query FROM queue JOIN query ON query.id = queue.query
    WHERE NOT EXISTS ({DONE_BY_ME.format(id="queue.query")})
    AND NOT EXISTS (SELECT 1 FROM lease
        WHERE lease.query = queue.query AND lease.rater = :rater)
    AND NOT ({OUT.format(id="queue.query", whose="pack.rater = :rater")})
    AND ({ANSWERED.format(id="queue.query")}) + ({LEASED.format(id="queue.query")})
        < coalesce(query.need, 1)
    AND queue.policy_step NOT IN (SELECT value FROM json_each(:full_windows))
    ORDER BY queue.priority DESC, queue.policy_step DESC, queue.query"""
CONTROL = f"""SELECT id FROM query WHERE purpose = :purpose
    AND NOT EXISTS ({DONE_BY_ME.format(id="query.id")})
    AND NOT EXISTS (SELECT 1 FROM label JOIN query AS twin ON twin.id = label.query
        WHERE label.rater = :rater AND label.live = 1
        AND twin.purpose IS NULL AND twin.segments = query.segments)
    AND NOT EXISTS (SELECT 1 FROM lease WHERE lease.query = query.id AND lease.rater = :rater)
    AND id NOT IN (SELECT query FROM retired)
    ORDER BY priority DESC, id"""
ASKED_HERE = f"""SELECT coalesce(sum(max(0, coalesce(query.need, 1)
        - ({ANSWERED.format(id="queue.query")}) - ({OUT.format(id="queue.query", whose="1")}))), 0)
    FROM queue JOIN query ON query.id = queue.query
    WHERE NOT EXISTS (SELECT 1 FROM label WHERE label.query = queue.query
        AND (label.kind = 'flag' OR label.answer = :skip))"""
SHARES = """SELECT 'all', (SELECT count(*) FROM label WHERE rater = :rater AND live = 1)
        + (SELECT count(*) FROM lease WHERE rater = :rater)
    UNION ALL SELECT purpose, count(*) FROM query WHERE purpose IS NOT NULL
        AND (EXISTS (SELECT 1 FROM label
            WHERE label.query = query.id AND label.rater = :rater AND label.live = 1)
        OR EXISTS (SELECT 1 FROM lease
            WHERE lease.query = query.id AND lease.rater = :rater))
    GROUP BY purpose"""
DERIVED = f"""SELECT id, priority, policy_step FROM query WHERE purpose IS NULL
    AND id NOT IN (SELECT query FROM retired)
    AND ({ANSWERED.format(id="query.id")}) < coalesce(need, 1)"""


@dataclass(frozen=True, slots=True, kw_only=True)
class Lease:
    """A query in somebody's hands."""

    query: str
    rater: str
    """Or the id of a pack."""
    token: str
    place: int
    """Among the rater's own: lower ones are shown first."""
    granted: float
    expires: float

    def lives(self, now: float) -> bool:
        """Is it in force?"""
        return self.granted - SLACK <= now < self.expires


class Queue:
    """The tables `queue`, `lease` and `retired`; what writes wants to be inside a transaction."""

    def __init__(self, database: Database) -> None:
        self._database = database

    # ---- queries ----------------------------------------------------------------------

    def add(self, query: Query) -> None:
        """A query, unless it is there."""
        if self._database.insert("query", query_row(query)):
            self.refresh(query)

    def has(self, id: str) -> bool:
        """Is there a query `id`?"""
        return self._database.has("query", id)

    def query(self, id: str) -> Query:
        """The query `id`.

        Raises:
            ValueError: there is none.
        """
        rows = self._database.verified("query", "WHERE id = ?", (id,))
        if not rows:
            raise ValueError(f"query {id} is not in the store: add_queries first")
        return read_query(rows[0])

    def refresh(self, query: Query) -> None:
        """Put it into the queue, or take it out, as its answers say."""
        if query.purpose != "normal":
            return
        if self.is_retired(query.id) or self.answered(query.id) >= query.need:
            self._database.rows("DELETE FROM queue WHERE query = ?", (query.id,))
        else:
            row = {"query": query.id, "priority": float(query.priority)}
            self._database.insert("queue", {**row, "policy_step": query.policy_step})

    def answered(self, id: str) -> int:
        """Answers that count towards `need`."""
        return int(self._database.rows(ANSWERED.format(id="?"), (id,))[0][0])

    def is_retired(self, id: str) -> bool:
        """Is it no longer asked?"""
        return bool(self._database.rows("SELECT 1 FROM retired WHERE query = ?", (id,)))

    def retire(self, id: str, reason: str) -> None:
        """Ask it no more; answers that come all the same are stale."""
        self._database.insert("retired", hashed({"query": id, "reason": reason}))
        self._database.rows("DELETE FROM queue WHERE query = ?", (id,))

    def wants(self, id: str) -> bool:
        """Is it open?"""
        return bool(self._database.rows("SELECT 1 FROM queue WHERE query = ?", (id,)))

    def size(self) -> int:
        """How many normal queries are still wanted."""
        return int(self._database.rows("SELECT count(*) FROM queue")[0][0])

    def asked_here(self, *, now: float) -> int:
        """How many answers are still sure to be asked for here.

        Not those that the packs which are out can bring; and none to what somebody has passed
        over or flagged: it stays open to others, but there may be no others.
        """
        given = {"now": now, "slack": SLACK, "skip": SKIP}
        return int(self._database.rows(ASKED_HERE, given)[0][0])

    def older_than(self, step: int, *, now: float) -> list[str]:
        """Ids of what was asked before this step of the run, is wanted, and in nobody's hands."""
        rows = self._database.rows(OLD, {"step": step, "now": now, "slack": SLACK})
        return [row[0] for row in rows]

    # ---- what is next -----------------------------------------------------------------

    def next_normal(self, rater: str, *, now: float, cap: int | None) -> str | None:
        """The first open query that this rater may still answer."""
        return next(iter(self.upcoming(rater, now=now, cap=cap, count=1)), None)

    def upcoming(self, rater: str, *, now: float, cap: int | None, count: int) -> list[str]:
        """The first so many of them."""
        about = {**self._about(rater, now, cap), "count": count}
        return [row[0] for row in self._database.rows(f"{WANTED} LIMIT :count", about)]

    def waiting(self, rater: str, *, now: float, cap: int | None) -> int:
        """How many open queries this rater could be given."""
        sql = f"SELECT count(*) FROM ({WANTED})"
        return int(self._database.rows(sql, self._about(rater, now, cap))[0][0])

    def next_control(self, rater: str, purpose: str) -> str | None:
        """The first gold or practice item whose question this rater has not answered."""
        return next(iter(self.controls(rater, purpose, count=1)), None)

    def controls(self, rater: str, purpose: str, *, count: int) -> list[str]:
        """The first so many of them."""
        about = {"rater": rater, "purpose": purpose, "skip": SKIP, "count": count}
        return [row[0] for row in self._database.rows(f"{CONTROL} LIMIT :count", about)]

    def repeatable(self, rater: str, *, distance: int, last: int) -> list[str]:
        """Queries this rater answered, `distance` to `distance + last` answers ago, once."""
        sql = """SELECT label.query FROM label JOIN query ON query.id = label.query
            WHERE label.rater = ? AND label.live = 1 AND query.purpose IS NULL
            AND coalesce(query.form, '') != 'edit'
            ORDER BY label.seq DESC LIMIT ? OFFSET ?"""
        mine = [row[0] for row in self._database.rows(sql, (rater, last, distance))]
        sql = """SELECT query.repeat_of FROM query JOIN label ON label.query = query.id
            WHERE query.purpose = 'repeat' AND label.rater = ?
            UNION SELECT query.repeat_of FROM query JOIN lease ON lease.query = query.id
            WHERE query.purpose = 'repeat' AND lease.rater = ?"""
        again = {row[0] for row in self._database.rows(sql, (rater, rater))}
        return [id for id in mine if id not in again]

    def shares(self, rater: str) -> dict[str, int]:
        """How many items of each purpose this rater has answered or holds; "all" together."""
        return {row[0]: row[1] for row in self._database.rows(SHARES, {"rater": rater})}

    def _about(self, rater: str, now: float, cap: int | None) -> dict[str, Any]:
        full = self._full_windows(rater, cap) if cap is not None else []
        about = {"rater": rater, "now": now, "slack": SLACK, "skip": SKIP}
        return {**about, "full_windows": json.dumps(full)}

    def _full_windows(self, rater: str, cap: int) -> list[int]:
        """Policy steps of which this rater has had enough."""
        sql = """SELECT policy_step FROM query WHERE purpose IS NULL AND id IN (
            SELECT query FROM label WHERE rater = :rater AND live = 1
            UNION SELECT query FROM lease WHERE rater = :rater
            ) GROUP BY policy_step HAVING count(*) >= :cap"""
        return [row[0] for row in self._database.rows(sql, {"rater": rater, "cap": cap})]

    # ---- leases -----------------------------------------------------------------------

    def end_those_of_the_future(self, now: float) -> None:
        """The clock has been set back: what was granted before that is over."""
        sql = "UPDATE lease SET granted = :now, expires = :now WHERE granted > :now + :slack"
        self._database.rows(sql, {"now": now, "slack": SLACK})

    def held(self, rater: str) -> list[Lease]:
        """A rater's leases, living or not, in the order in which they are shown."""
        sql = "SELECT * FROM lease WHERE rater = ? ORDER BY place"
        return [Lease(**dict(row)) for row in self._database.rows(sql, (rater,))]

    def may_hold(self, id: str, rater: str, *, now: float) -> bool:
        """Could this rater have it, if it were not theirs already?"""
        query = self.query(id)
        if self.is_retired(id):
            return False
        if query.purpose != "normal":
            return True
        about = {"rater": rater, "now": now, "slack": SLACK}
        (leased,) = self._database.rows(f"SELECT ({LEASED.format(id=':id')})", {**about, "id": id})
        return self.answered(id) + int(leased[0]) < query.need

    def grant(self, lease: Lease) -> None:
        """Store a lease, or renew it."""
        row = {name: getattr(lease, name) for name in Lease.__dataclass_fields__}
        self.drop(lease.query, lease.rater)
        self._database.insert("lease", row)

    def drop(self, id: str, rater: str) -> None:
        """Give it back."""
        self._database.rows("DELETE FROM lease WHERE query = ? AND rater = ?", (id, rater))

    def lend(self, pack: str, queries: Sequence[str], *, now: float, seconds: float) -> None:
        """A pack goes out: nobody is asked meanwhile."""
        for place, query in enumerate(queries):
            self.grant(
                Lease(
                    query=query,
                    rater=pack,
                    token=secrets.token_hex(16),
                    place=place,
                    granted=now,
                    expires=now + seconds,
                )
            )

    def recall(self) -> int:
        """Give back what all packs hold; returns how much it was."""
        held = "FROM lease WHERE rater IN (SELECT id FROM pack)"
        (count,) = self._database.rows(f"SELECT count(*) {held}")[0]
        self._database.rows(f"DELETE {held}")
        return int(count)

    def release(self, rater: str) -> int:
        """Give back all that a rater or a pack holds; returns how much it was."""
        held = self.held(rater)
        self._database.rows("DELETE FROM lease WHERE rater = ?", (rater,))
        return len(held)

    def check(self) -> None:
        """Is the queue what queries, labels and retirements say?

        Raises:
            DamagedStore: it is not.
        """
        got = {tuple(row) for row in self._database.rows("SELECT * FROM queue")}
        if got != {tuple(row) for row in self._database.rows(DERIVED)}:
            raise self._database.damaged("its queue is not what its answers say")
