"""Segments, queries, answers, synthetic raters, and the store that keeps them."""

from prefrl.feedback.errors import DamagedSegment, DamagedStore, DiskFull
from prefrl.feedback.oracles import ORACLES, Oracle, OracleContext, make_oracle
from prefrl.feedback.records import Answer, Comparison, Label, Query, answer_id
from prefrl.feedback.schedule import LabelSchedule
from prefrl.feedback.segment import Provenance, Segment, decode_segment, encode_segment
from prefrl.feedback.store import FeedbackStore

__all__ = [
    "ORACLES",
    "Answer",
    "Comparison",
    "DamagedSegment",
    "DamagedStore",
    "DiskFull",
    "FeedbackStore",
    "Label",
    "LabelSchedule",
    "Oracle",
    "OracleContext",
    "Provenance",
    "Query",
    "Segment",
    "answer_id",
    "decode_segment",
    "encode_segment",
    "make_oracle",
]
