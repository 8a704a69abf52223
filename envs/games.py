"""The seven Atari games of Christiano et al. 2017 (arXiv:1706.03741), appendix A.

Blanked, as there: the score in all seven, the enemy count in BeamRider (it falls by one with
every rewarded kill) and the dashboard in Enduro. State stays visible: Seaquest's lives and
oxygen, BeamRider's torpedoes, the bonus ship that shares its rows with Space Invaders' score.
Breakout's row of digits goes whole: besides the score it counts the balls missed. A test pokes
other scores into the console's memory and sees no masked pixel change.

The paper charges the oracle for an episode end, except in Pong, and gives no size. Here it
is three of the game's usual rewards.
"""

from __future__ import annotations

from .masks import Rectangle
from .task import Game, Task


def _game(
    name: str,
    rom: str,
    *,
    score: tuple[Rectangle, ...],
    end_penalty: float,
    prefer: str,
    reduced: tuple[str, ...] = (),
    switches_on: int = 0,
) -> Task:
    return Task(
        id=f"ALE/{name}-v5",
        domain="atari",
        segment_steps=25,
        fps=15.0,
        horizon=None,
        end_penalty=end_penalty,
        instructions=prefer,
        details=Game(rom=rom, score=score, reduced=reduced, switches_on=switches_on),
    )


GAMES = (
    _game(
        "BeamRider",
        "beam_rider",
        score=(Rectangle(9, 19, 58, 109), Rectangle(31, 42, 17, 35)),
        end_penalty=132.0,
        prefer="Prefer destroying more enemy ships; losing your ship is bad.",
    ),
    _game(
        "Breakout",
        "breakout",
        score=(Rectangle(0, 15),),
        end_penalty=3.0,
        prefer="Prefer hitting more bricks; missing the ball is bad, holding it back too.",
    ),
    _game(
        "Enduro",
        "enduro",
        score=(Rectangle(160, 192, 46, 114),),
        end_penalty=3.0,
        prefer="Prefer overtaking more cars; being overtaken, crashing or standing is bad.",
    ),
    _game(
        "Pong",
        "pong",
        score=(Rectangle(0, 22),),
        end_penalty=0.0,
        prefer="You are on the right, in green. Prefer scoring, then returning the ball.",
        reduced=("NOOP", "RIGHT", "LEFT"),
        switches_on=3,
    ),
    _game(
        "Qbert",
        "qbert",
        score=(Rectangle(5, 13, 32, 73),),
        end_penalty=75.0,
        prefer="Prefer changing the colour of more cubes; being caught or falling off is bad.",
        reduced=("NOOP", "UP", "RIGHT", "LEFT", "DOWN"),
    ),
    _game(
        "Seaquest",
        "seaquest",
        score=(Rectangle(8, 18, 57, 107),),
        end_penalty=60.0,
        prefer="Prefer shooting more fish and submarines and saving divers; dying is bad.",
    ),
    _game(
        "SpaceInvaders",
        "space_invaders",
        score=(Rectangle(9, 21, 2, 66),),
        end_penalty=60.0,
        prefer="Prefer shooting more invaders; being hit is bad.",
    ),
)
