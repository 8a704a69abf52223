"""Segments, queries, answers, synthetic raters, and the store that keeps them."""

from prefrl.feedback.desk import Desk, DeskConfig, Progress
from prefrl.feedback.errors import DamagedSegment, DamagedStore, DiskFull
from prefrl.feedback.ledger import Outcome
from prefrl.feedback.oracles import ORACLES, Oracle, OracleContext, make_oracle
from prefrl.feedback.pictures import Pictures
from prefrl.feedback.records import (
    Act,
    Answer,
    Assignment,
    Changes,
    Consent,
    Instructions,
    Label,
    Query,
    Viewing,
    answer_id,
    form_of,
)
from prefrl.feedback.register import Beat
from prefrl.feedback.replies import Comparison, Edit, Ranking, Rating, Reply, agrees
from prefrl.feedback.schedule import LabelSchedule
from prefrl.feedback.segment import Provenance, Segment, decode_segment, encode_segment
from prefrl.feedback.store import FeedbackStore
from prefrl.feedback.text import Text, read_text, text_segment

__all__ = [
    "ORACLES",
    "Act",
    "Answer",
    "Assignment",
    "Beat",
    "Changes",
    "Comparison",
    "Consent",
    "DamagedSegment",
    "DamagedStore",
    "Desk",
    "DeskConfig",
    "DiskFull",
    "Edit",
    "FeedbackStore",
    "Instructions",
    "Label",
    "LabelSchedule",
    "Oracle",
    "OracleContext",
    "Outcome",
    "Pictures",
    "Progress",
    "Provenance",
    "Query",
    "Ranking",
    "Rating",
    "Reply",
    "Segment",
    "Text",
    "Viewing",
    "agrees",
    "answer_id",
    "decode_segment",
    "encode_segment",
    "form_of",
    "make_oracle",
    "read_text",
    "text_segment",
]
