"""Synthetic raters that read the true reward (B-Pref: Lee et al. 2021, arXiv:2111.03026).

For segments i = 0, 1 with true rewards r_i,t (an end penalty counts as part of the last one),
m the mean return of a segment and sd the spread of segment returns, in this order:

    s_i = sum_t r_i,t                        S_i = sum_t gamma^(T-1-t) r_i,t
    skip     no answer if max(s_0, s_1) <= skip * m, unless m = sd = 0: nothing is known yet
    equal    a tie if |s_0 - s_1| < equal * m
    P        sigmoid(beta (S_1 - S_0) / sd) that 1 is preferred; beta = inf: S_1 > S_0
    mistake  the preference is flipped with probability `mistake`

Differences from B-Pref, on purpose: returns are divided by sd, so that one beta means the
same for every reward scale; each threshold takes its factor once (B-Pref's PEBBLE scripts
take it twice after the first session); exact ties are ties, never the first segment; and
where m <= 0, where both thresholds would never fire, they are put in units of sd:

    skip     if max(s_0, s_1) <= m - (1 - skip) * sd      both clearly worse than the mean
    equal    if |s_0 - s_1| < equal * sd

More than two segments are put in order by the same s and S. Then skip asks for the max over all;
beta < inf draws the order from Plackett-Luce with the utilities beta S_i / sd, by adding Gumbel
noise to them, which for two segments is P above; equal ties neighbours in the order; and a
mistake, as likely as one of a pair, lets two neighbours change places.
"""

from __future__ import annotations

import hashlib
import math
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import pairwise
from typing import Any

import numpy as np

from prefrl.errors import UserError, nearest
from prefrl.feedback.records import Answer, Query, answer_id
from prefrl.feedback.replies import Choice, Comparison, Ranking
from prefrl.feedback.segment import Segment


@dataclass(frozen=True, slots=True, kw_only=True)
class OracleContext:
    """What an oracle knows of the behaviour that queries are drawn from."""

    return_spread: float
    """Standard deviation of the true returns of segments."""
    mean_segment_return: float
    """Mean true return of recent episodes, per segment; 0 while unknown."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Oracle:
    """A synthetic rater; `make_oracle` knows the usual ones by name.

    What it answers depends on `seed`, the query and the context alone: not on the order of
    queries, nor on what was answered before.
    """

    name: str
    """The rater's name in the store."""
    seed: int
    """Of its coins."""
    end_penalty: float
    """Taken off the last reward of a segment in which an episode ended."""
    rationality: float = math.inf
    """beta: inf always prefers the larger return, 0 tosses a coin."""
    gamma: float = 1.0
    """Below 1 the oracle is myopic: the last step weighs 1, each earlier one less."""
    mistake: float = 0.0
    """Share of preferences that are flipped."""
    skip: float = 0.0
    """Passes over pairs that are both poor."""
    equal: float = 0.0
    """Calls small differences ties, in units of the mean return."""
    indifference: float = 0.0
    """Calls small differences ties, in units of the spread of returns."""
    cannot: float = 0.0
    """Share of "cannot compare"."""
    negated: bool = False
    """Prefers what is worse."""

    def __post_init__(self) -> None:
        for name in ("mistake", "skip", "equal", "cannot"):
            if not 0 <= getattr(self, name) <= 1:
                raise UserError(f"{name}: got {getattr(self, name)}, wanted 0 to 1")
        for name in ("rationality", "indifference"):
            if not getattr(self, name) >= 0:
                raise UserError(f"{name}: got {getattr(self, name)}, wanted 0 or more")
        if not (self.end_penalty >= 0 and math.isfinite(self.end_penalty)):
            raise UserError(f"end_penalty: got {self.end_penalty}, wanted 0 or more")
        if not 0 < self.gamma <= 1:
            raise UserError(f"gamma: got {self.gamma}, wanted above 0, up to 1")

    def answer(self, query: Query, segments: Sequence[Segment], context: OracleContext) -> Answer:
        """Compare the two segments of `query`, or put its three to six in order."""
        if query.segments != tuple(segment.id for segment in segments):
            raise ValueError(f"query {query.id}: got other segments than it asks about")
        if query.form not in ("comparison", "ranking"):
            raise ValueError(f"query {query.id}: synthetic raters give no {query.form}")
        return Answer(
            id=answer_id(query.id, self.name),
            query=query.id,
            rater=self.name,
            reply=self._reply(segments, context, _coins(self.seed, query.id)),
        )

    def _reply(
        self, segments: Sequence[Segment], context: OracleContext, coins: np.random.Generator
    ) -> Comparison | Ranking:
        spread, mean = context.return_spread, context.mean_segment_return
        if not (spread >= 0 and math.isfinite(spread) and math.isfinite(mean)):
            raise ValueError(f"{context}: wanted finite numbers and a spread of 0 or more")
        returns = [self._return(segment, 1.0) for segment in segments]
        weighed = [self._return(segment, self.gamma) for segment in segments]
        abstains, draws, errs = coins.random(3)
        if abstains < self.cannot:
            return Comparison(choice="cannot")
        known = mean != 0 or spread > 0
        if self.skip and known and max(returns) <= self._skip_below(mean, spread):
            return Comparison(choice="skip")
        tie_below = max(self.equal * (mean if mean > 0 else spread), self.indifference * spread)
        if len(segments) > 2:
            return self._ranking(returns, weighed, tie_below, spread, errs, coins)
        if abs(returns[1] - returns[0]) < tie_below:
            return Comparison(choice="tie")
        advantage = weighed[1] - weighed[0]
        return Comparison(choice=self._preference(advantage, spread, draws, errs))

    def _ranking(
        self,
        returns: Sequence[float],
        weighed: Sequence[float],
        tie_below: float,
        spread: float,
        errs: float,
        coins: np.random.Generator,
    ) -> Ranking:
        """Best first; neighbours that are as good share a rank."""
        sign = -1.0 if self.negated else 1.0
        noisy = not math.isinf(self.rationality) and spread > 0
        which = np.unique(weighed, return_inverse=True)[1]  # exact ties share their noise
        noise = coins.gumbel(size=len(weighed))[which] if noisy else np.zeros(len(weighed))
        scale = self.rationality / spread if noisy else 1.0
        utility = [sign * scale * w + n for w, n in zip(weighed, noise, strict=True)]
        order = sorted(range(len(utility)), key=lambda i: -utility[i])
        if errs < self.mistake:
            at = int(coins.integers(len(order) - 1))
            order[at : at + 2] = order[at + 1], order[at]
        groups = [[order[0]]]
        for before, i in pairwise(order):
            alike = abs(returns[i] - returns[before]) < tie_below or utility[i] == utility[before]
            if alike:
                groups[-1].append(i)
            else:
                groups.append([i])
        return Ranking(order=tuple(tuple(sorted(group)) for group in groups))

    def _return(self, segment: Segment, gamma: float) -> float:
        """Rounded once: the same rewards in another order tie exactly."""
        rewards = segment.true_reward.tolist()
        weights = gamma ** np.arange(len(rewards) - 1, -1, -1.0)
        penalty = self.end_penalty if segment.ended else 0.0
        return math.fsum([*(w * r for w, r in zip(weights, rewards, strict=True)), -penalty])

    def _skip_below(self, mean: float, spread: float) -> float:
        return self.skip * mean if mean > 0 else mean - (1 - self.skip) * spread

    def _preference(self, advantage: float, spread: float, draws: float, errs: float) -> Choice:
        """`advantage` is the second's."""
        if self.negated:
            advantage = -advantage
        if advantage == 0:
            return "tie"
        if math.isinf(self.rationality) or spread == 0:
            second = advantage > 0
        else:
            second = draws < _sigmoid(self.rationality * advantage / spread)
        if errs < self.mistake:
            second = not second
        return "second" if second else "first"


PRESETS: dict[str, tuple[str, dict[str, Any]]] = {
    "oracle": ("always prefers the larger true return; exact ties are ties", {}),
    "stochastic": ("prefers by a sigmoid of the difference in returns", {"rationality": 1.0}),
    "mistake": ("the oracle, but 10 % of its preferences are flipped", {"mistake": 0.1}),
    "skip": ("the oracle, but passes over pairs that are both poor", {"skip": 0.1}),
    "equal": ("the oracle, but calls small differences ties", {"equal": 0.1}),
    "myopic": ("weighs the end of a clip more than its beginning", {"gamma": 0.9}),
    # 0.45 sd: 25 % ties among normal returns, as people gave on Atari (Clean-Offline-RLHF);
    # where most returns are 0, as in Pong, more
    "crowd": (
        "ties, mistakes and abstentions about as people give them",
        {"indifference": 0.45, "mistake": 0.075, "cannot": 0.02},
    ),
    "negated": (
        "prefers the smaller true return: a control that must not learn",
        {"negated": True},
    ),
}

ORACLES: dict[str, str] = {name: about for name, (about, _) in PRESETS.items()}
"""Every synthetic rater by name, with one line about it."""


def make_oracle(name: str, *, seed: int, end_penalty: float = 0.0) -> Oracle:
    """The synthetic rater `name`.

    Args:
        seed: of its coins.
        end_penalty: what it takes off a segment in which an episode ended; its true reward
            stays the environment's.

    Raises:
        UserError: no such rater.
    """
    if name not in PRESETS:
        raise UserError(
            f"unknown rater {name!r}; {nearest(name, [*PRESETS, 'human'])} known: "
            f"{', '.join(PRESETS)}, and human"
        )
    return Oracle(name=name, seed=seed, end_penalty=end_penalty, **PRESETS[name][1])


def _coins(seed: int, query: str) -> np.random.Generator:
    """Random numbers that belong to this query."""
    digest = hashlib.sha256(f"oracle:{seed}:{query}".encode()).digest()
    return np.random.default_rng(int.from_bytes(digest, "big"))


def _sigmoid(x: float) -> float:
    return 1 / (1 + math.exp(-x)) if x >= 0 else math.exp(x) / (1 + math.exp(x))
