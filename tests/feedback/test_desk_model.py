"""Desks under any sequence of acts and jumps of the clock, held against a small model."""

from __future__ import annotations

import tempfile
from typing import Any

from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, rule

from prefrl.feedback import Assignment, Comparison, Desk, DeskConfig
from tests.feedback.helpers import filled

RATERS = ("ann", "bob", "eve")
LEASE, SLACK = 90.0, 10.0


class Model:
    """What the store should hold: votes, leases and trainable answers, as plain dictionaries."""

    def __init__(self, need: dict[str, int], order: list[str]) -> None:
        self.need, self.order = need, order
        self.votes: dict[tuple[str, str], str] = {}  # (query, rater) -> "ok", "extra"
        self.passed: set[tuple[str, str]] = set()
        self.leases: dict[str, dict[str, tuple[float, float]]] = {r: {} for r in RATERS}
        self.log: dict[str, list[tuple[str, int]]] = {r: [] for r in RATERS}  # with a vote's number
        self.number: dict[tuple[str, str], int] = {}
        self.count = 0
        self.wanted = dict.fromkeys(RATERS, 0)

    def lives(self, lease: tuple[float, float], now: float) -> bool:
        return now < lease[1] and lease[0] <= now + SLACK

    def room(self, query: str, rater: str, now: float) -> bool:
        others = [self.leases[r].get(query) for r in RATERS if r != rater]
        leased = sum(x is not None and self.lives(x, now) for x in others)
        return self.answered(query) + leased < self.need[query]

    def answered(self, query: str) -> int:
        return sum(q == query and v == "ok" for (q, _), v in self.votes.items())

    def renew(self, rater: str, now: float, *, all_of_them: bool) -> None:
        self.settle(now)
        for query, lease in list(self.leases[rater].items()):
            if self.lives(lease, now) and not all_of_them:
                continue
            if self.lives(lease, now) or self.room(query, rater, now):
                self.leases[rater][query] = (now, now + LEASE)
            else:
                del self.leases[rater][query]

    def settle(self, now: float) -> None:
        """Leases from the future are over."""
        for leases in self.leases.values():
            for query, (granted, _) in list(leases.items()):
                if granted > now + SLACK:
                    leases[query] = (now, now)

    def take(self, rater: str, count: int, now: float) -> list[str]:
        self.wanted[rater] = count
        self.fill(rater, now)
        return list(self.leases[rater])[:count]

    def fill(self, rater: str, now: float) -> None:
        """As many leases as this rater last asked for."""
        self.renew(rater, now, all_of_them=False)
        mine = self.leases[rater]
        for query in self.order:
            done = (query, rater) in self.votes or (query, rater) in self.passed
            free = len(mine) < self.wanted[rater] and query not in mine and not done
            if free and self.room(query, rater, now):
                mine[query] = (now, now + LEASE)

    def submit(self, rater: str, query: str) -> str:
        self.leases[rater].pop(query, None)
        self.count += 1
        self.log[rater].append((query, self.count))
        if (query, rater) in self.votes:
            return "extra"  # kept, but not alive
        outcome = "ok" if self.answered(query) < self.need[query] else "extra"
        self.votes[query, rater] = outcome
        self.number[query, rater] = self.count
        return outcome

    def undo(self, rater: str, now: float) -> str | None:
        for query, number in reversed(self.log[rater][-20:]):
            if self.number.get((query, rater)) == number:
                del self.votes[query, rater], self.number[query, rater]
                mine = {q: x for q, x in self.leases[rater].items() if q != query}
                self.leases[rater] = {query: (now, now + LEASE), **mine}
                return query
        return None


class Desks(RuleBasedStateMachine):
    """Three raters, six queries, one clock that jumps."""

    @initialize(need=st.integers(1, 2))
    def open(self, need: int) -> None:
        self.folder = tempfile.TemporaryDirectory()
        self.store, queries = filled(self.folder.name, 6, need=need)  # type: ignore[arg-type]
        self.now = 1e6
        plain = DeskConfig(gold_share=0, repeat_share=0, lease_seconds=LEASE)
        self.desks = {
            r: Desk(self.store, rater=r, config=plain, clock=lambda: self.now) for r in RATERS
        }
        order = [q.id for q in sorted(queries, key=lambda q: -q.policy_step)]
        self.model = Model(dict.fromkeys(order, need), order)
        self.given: dict[str, dict[str, Assignment]] = {r: {} for r in RATERS}
        self.sent: list[tuple[str, Assignment]] = []

    @rule(rater=st.sampled_from(RATERS), count=st.integers(1, 3))
    def take(self, rater: str, count: int) -> None:
        got = self.desks[rater].take(count)
        assert [a.query.id for a in got] == self.model.take(rater, count, self.now)
        self.given[rater] |= {a.token: a for a in got}

    @rule(rater=st.sampled_from(RATERS), pick=st.integers(0, 99), choice=st.sampled_from("ft"))
    def submit(self, rater: str, pick: int, choice: str) -> None:
        """Of all that was ever leased to this rater, however long ago."""
        if not self.given[rater]:
            return
        token = sorted(self.given[rater])[pick % len(self.given[rater])]
        assignment = self.given[rater].pop(token)
        reply = Comparison(choice="first" if choice == "f" else "tie")
        got = self.desks[rater].submit(assignment, reply, None)
        assert got == self.model.submit(rater, assignment.query.id)
        self.model.fill(rater, self.now)
        self.sent.append((rater, assignment))

    @rule(pick=st.integers(0, 99))
    def submit_again(self, pick: int) -> None:
        if self.sent:
            rater, assignment = self.sent[pick % len(self.sent)]
            reply = Comparison(choice="second")
            assert self.desks[rater].submit(assignment, reply, None) == "dup"
            self.model.fill(rater, self.now)

    @rule(rater=st.sampled_from(RATERS))
    def undo(self, rater: str) -> None:
        got, wanted = self.desks[rater].undo(), self.model.undo(rater, self.now)
        assert (got.query.id if got else None) == wanted
        if got:
            self.given[rater][got.token] = got

    @rule(rater=st.sampled_from(RATERS))
    def skip(self, rater: str) -> None:
        held = list(self.model.leases[rater])
        mine = [a for a in self.given[rater].values() if a.query.id in held]
        if mine:
            self.desks[rater].skip(mine[0])
            self.given[rater].pop(mine[0].token)
            self.model.passed.add((mine[0].query.id, rater))
            del self.model.leases[rater][mine[0].query.id]
            self.model.fill(rater, self.now)

    @rule(rater=st.sampled_from(RATERS))
    def heartbeat(self, rater: str) -> None:
        self.desks[rater].heartbeat()
        self.model.renew(rater, self.now, all_of_them=True)

    @rule(rater=st.sampled_from(RATERS))
    def leave(self, rater: str) -> None:
        self.desks[rater].leave()
        self.model.leases[rater] = {}
        self.model.wanted[rater] = 0

    @rule(seconds=st.sampled_from([1.0, 15.0, 91.0, 3600.0, -3600.0, -5.0]))
    def time_passes(self, seconds: float) -> None:
        self.now += seconds

    @invariant()
    def the_leases_are_those_of_the_model(self) -> None:
        for rater in RATERS if hasattr(self, "model") else ():
            held = [lease.query for lease in self.store.queue.held(rater)]
            assert held == list(self.model.leases[rater])

    @invariant()
    def the_store_holds_what_the_model_says(self) -> None:
        if not hasattr(self, "model"):
            return
        live = {(x.query.id, x.rater): x.status for x in self.store.feedback()}
        assert live == self.model.votes
        assert len(self.store.answers()) == self.model.count  # none lost, none doubled
        trained = {(x.query.id, x.rater) for x in self.store.labels(after=0)}
        assert trained == {key for key, status in self.model.votes.items() if status == "ok"}
        self.store.queue.check()

    def teardown(self) -> None:
        if hasattr(self, "store"):
            self.store.close()
            self.folder.cleanup()


TestDesks: Any = Desks.TestCase
TestDesks.settings = settings(max_examples=15, stateful_step_count=40, deadline=None)
