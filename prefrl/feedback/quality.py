"""How well raters rate: pace, agreement, consistency, side bias, drift, and who to look at.

Everything is computed from stored answers alone; nobody is dropped here. Power (binomial, exact):

    gold, 15 of 20       a rater right 95 % of the time fails with 0.03 %, 90 %: 1.1 %;
                         a coin passes with 2.1 %
    sides, 24 of 30      an unbiased rater is flagged with 0.14 %; one who presses one side 95 %
                         of the time with 99.9 %
    as others, 60 of 100 a rater right 85 % of the time, as are the others, is below with 0.05 %
                         where queries have two answers, 1.1 % where they have five; a coin, 97 %
    repeats, 12 of 20    the same rater is below with 4.6 %, a coin with 75 %: too weak alone, so
                         a spammer is named for poor gold, or for others and repeats together
"""

from __future__ import annotations

import math
from collections import Counter, defaultdict
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

import numpy as np

from prefrl.feedback.agreement import Interval, Share, alpha, mean_kappa
from prefrl.feedback.records import Act, Label
from prefrl.feedback.replies import TARGETS, Comparison, Rating, Reply, agrees

GOLD_NEEDED, GOLD_PASS = 10, 0.75  # 15 of 20
SIDE_NEEDED, SIDE_SHARE = 30, 0.8
REPEATS_NEEDED, REPEATS_PASS = 8, 0.6
OTHERS_NEEDED, OTHERS_COIN, OTHERS_INVERTED = 20, 0.6, 0.35
FAST_NEEDED, FAST_SHARE = 20, 0.3
FAST_SECONDS = 1.1  # the viewer takes none in the first 0.8, or until a clip has played once
SLOPE_PER_50 = 0.25  # share of the median by which response times change in 50 answers
CUSUM_DRIFT, CUSUM_LIMIT = 0.1, 3.0


@dataclass(frozen=True, slots=True, kw_only=True)
class RaterQuality:
    """One rater."""

    name: str
    answers: int
    per_hour: float
    """Within sittings, breaks of more than five minutes left out; nan where no times are known."""
    seconds: tuple[float, float, float]
    """Quartiles of the response times; nan where none are known."""
    fast: Share
    """Answers within `FAST_SECONDS`."""
    left: Share
    """Of decided comparisons, those for the clip on the left."""
    ties: Share
    cannot: Share
    skips: int
    flags: int
    gold: Share
    """Right answers to gold items."""
    repeats: Share
    """Repeats answered as before."""
    others: Share
    """Decided comparisons on which another rater, decided too, says the same."""
    kappa: Interval
    """Mean of Cohen's kappa with each other rater, over shared comparisons."""
    slope: float
    """Change of the response time in 50 answers, as a share of its median; nan if unknown."""
    cusum: float
    """Largest sum of errors in gold and repeats above what the first half would explain."""
    warnings: tuple[str, ...]
    """What to look at, in words."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Quality:
    """All raters of a store, and how far they agree."""

    raters: list[RaterQuality]
    raw: Share
    """Pairs of answers to one comparison that are the same."""
    alpha: Interval
    """Krippendorff's, nominal, over comparisons (left, tie and right by segment)."""
    alpha_ratings: Interval
    """Krippendorff's, ordinal, over ratings."""


def measure(labels: Iterable[Label], acts: Iterable[Act], *, seed: int = 0) -> Quality:
    """Figures of everybody who has answered.

    Args:
        labels: live answers, in order of arrival: normal, extra, stale, gold and repeats.
        seed: of the bootstrap.
    """
    kept = [x for x in labels if x.live and x.query.purpose != "practice"]
    generator = np.random.default_rng(seed)
    by_rater: dict[str, list[Label]] = defaultdict(list)
    for label in kept:
        by_rater[label.rater].append(label)
    shared = _shared([x for x in kept if x.query.purpose == "normal"])
    done = list(acts)
    return Quality(
        raters=[
            _rater(name, mine, shared, [a for a in done if a.rater == name], generator)
            for name, mine in sorted(by_rater.items())
        ],
        raw=_raw(shared),
        alpha=alpha(shared, generator=generator, level="nominal"),
        alpha_ratings=alpha(_rated(kept), generator=generator, level="ordinal"),
    )


def _shared(labels: Sequence[Label]) -> dict[str, dict[str, float]]:
    """query -> rater -> the choice's target, of comparisons."""
    table: dict[str, dict[str, float]] = defaultdict(dict)
    for x in labels:
        if isinstance(x.reply, Comparison) and x.reply.choice in TARGETS:
            table[x.query.id][x.rater] = TARGETS[x.reply.choice]
    return dict(table)


def _rated(labels: Sequence[Label]) -> dict[str, dict[str, float]]:
    table: dict[str, dict[str, float]] = defaultdict(dict)
    for x in labels:
        if isinstance(x.reply, Rating) and x.query.purpose == "normal":
            table[x.query.id][x.rater] = float(x.reply.value)
    return dict(table)


def _raw(shared: dict[str, dict[str, float]]) -> Share:
    found = []
    for votes in shared.values():
        values = list(votes.values())
        pairs = [(a, b) for i, a in enumerate(values) for b in values[i + 1 :]]
        found.append((sum(a == b for a, b in pairs), len(pairs)))
    return Share.of_groups([group for group in found if group[1]])


def _rater(
    name: str,
    labels: Sequence[Label],
    shared: dict[str, dict[str, float]],
    acts: Sequence[Act],
    generator: np.random.Generator,
) -> RaterQuality:
    compared = [x for x in labels if isinstance(x.reply, Comparison)]
    decided = [x for x in compared if _side(x) is not None]
    seconds = [x.viewing.seconds for x in labels if x.viewing]
    gold, repeats = _gold(labels), _repeats(labels)
    quartiles = np.percentile(seconds, [25, 50, 75]) if seconds else [math.nan] * 3
    choices = Counter(x.reply.choice for x in compared if isinstance(x.reply, Comparison))
    about = {
        "fast": Share.of(sum(s < FAST_SECONDS for s in seconds), len(seconds)),
        "left": Share.of(sum(_side(x) == 0 for x in decided), len(decided)),
        "gold": Share.of(sum(gold.values()), len(gold)),
        "repeats": Share.of(sum(repeats.values()), len(repeats)),
        "others": _others(name, shared),
    }
    slope, cusum = _slope(seconds), _cusum(gold | repeats)
    return RaterQuality(
        name=name,
        answers=len(labels),
        per_hour=_pace([x.time for x in labels if x.time is not None]),
        seconds=(float(quartiles[0]), float(quartiles[1]), float(quartiles[2])),
        ties=Share.of(choices["tie"], len(compared)),
        cannot=Share.of(choices["cannot"], len(compared)),
        skips=sum(a.kind == "skip" for a in acts),
        flags=sum(a.kind == "flag" for a in acts),
        kappa=mean_kappa(name, shared, generator),
        slope=slope,
        cusum=cusum,
        warnings=tuple(_warnings(**about, slope=slope, cusum=cusum)),
        **about,
    )


def _side(label: Label) -> int | None:
    """The place on the screen that was preferred; None: no side was, or nobody wrote it down."""
    if not isinstance(label.reply, Comparison) or label.viewing is None:
        return None
    place = label.reply.preferred
    return None if place is None else label.viewing.order.index(place)


def _gold(labels: Sequence[Label]) -> dict[int, bool]:
    """seq -> was it right, of gold items."""
    marked = ((x, x.query.right) for x in labels if x.query.purpose == "gold")
    return {x.seq: agrees(x.reply, right) for x, right in marked if right is not None}


def _repeats(labels: Sequence[Label]) -> dict[int, bool]:
    """seq -> was it answered as before, of repeats."""
    before: dict[str, Reply] = {x.query.id: x.reply for x in labels}
    pairs = ((x, before.get(x.query.repeat_of)) for x in labels if x.query.purpose == "repeat")
    return {x.seq: agrees(x.reply, reply) for x, reply in pairs if reply is not None}


def _others(name: str, shared: dict[str, dict[str, float]]) -> Share:
    """Against each other rater; ties take no part."""
    found = []
    for votes in shared.values():
        mine = votes.get(name, 0.5)
        theirs = [v for rater, v in votes.items() if rater != name and v != 0.5]
        if mine != 0.5 and theirs:
            found.append((sum(v == mine for v in theirs), len(theirs)))
    return Share.of_groups(found)


def _pace(times: Sequence[float]) -> float:
    gaps = np.diff(times)
    worked = gaps[(gaps > 0) & (gaps < 300)]
    return 3600 / float(worked.mean()) if len(worked) else math.nan


def _slope(seconds: Sequence[float]) -> float:
    """Least squares over the answers, outliers cut at three medians."""
    if len(seconds) < 50:
        return math.nan
    middle = float(np.median(seconds))
    cut = np.minimum(seconds, 3 * middle)
    return float(np.polyfit(np.arange(len(cut)), cut, 1)[0] * 50 / middle) if middle else math.nan


def _cusum(right: dict[int, bool]) -> float:
    """Page's one-sided sum of errors over the share in the first half (Page 1954)."""
    wrong = [not right[seq] for seq in sorted(right)]
    if len(wrong) < 16:
        return math.nan
    usual = sum(wrong[: len(wrong) // 2]) / (len(wrong) // 2)
    total = worst = 0.0
    for error in wrong:
        total = max(0.0, total + error - usual - CUSUM_DRIFT)
        worst = max(worst, total)
    return worst


def _warnings(
    *,
    fast: Share,
    left: Share,
    gold: Share,
    repeats: Share,
    others: Share,
    slope: float,
    cusum: float,
) -> Iterable[str]:
    """The flags; each says what it rests on."""
    side = max(left.value, 1 - left.value) if left.n else 0.0
    one_sided = left.n >= SIDE_NEEDED and side >= SIDE_SHARE
    if one_sided:
        which = "left" if left.value > 0.5 else "right"
        yield f"{which}-presser: {side:.0%} of {left.n} decided answers are for the {which} clip"
    failed = gold.n >= GOLD_NEEDED and gold.value < GOLD_PASS
    inverted = (gold.n >= GOLD_NEEDED and gold.high < 0.5) or (
        others.n >= OTHERS_NEEDED and others.high < OTHERS_INVERTED
    )
    coin = others.n >= OTHERS_NEEDED and others.value < OTHERS_COIN
    unsteady = repeats.n >= REPEATS_NEEDED and repeats.value < REPEATS_PASS
    if inverted:
        yield f"inverted: {gold.k} of {gold.n} gold, {others.k} of {others.n} as others"
    elif not one_sided and (failed or coin) and (unsteady or failed):
        parts = f"{gold.k} of {gold.n} gold, {repeats.k} of {repeats.n} repeats"
        yield f"spammer: {parts}, {others.k} of {others.n} as others"
    if fast.n >= FAST_NEEDED and fast.value >= FAST_SHARE:
        yield f"fast clicker: {fast.value:.0%} of {fast.n} answers within {FAST_SECONDS} s"
    if cusum >= CUSUM_LIMIT:
        yield f"tired: errors in gold and repeats grow (CUSUM {cusum:.1f})"
    elif abs(slope) >= SLOPE_PER_50:
        yield f"drift: response times change by {slope:+.0%} in 50 answers"
