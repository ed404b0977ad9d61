"""Rows of a run to review, hostile text among them."""

from typing import Any

import filter_runs
from filter_runs import rejected

from seqdistill.records import Sample

HOSTILE = "<script>alert(1)</script>\u202eevil\u2028\x07\n=cmd|' /C calc'!A0\n\n\"quoted\", äöü 漢\t"


def sample(number: int, text: str, **keys: Any) -> Sample:
    return filter_runs.sample(f"Notice {number}?", text, id=f"p{number}:teacher:0", prompt_id=f"p{number}", **keys)


ROWS = {
    "train.jsonl": [sample(0, "The road is closed."), sample(1, HOSTILE), sample(2, "- a list\n- of two")],
    "validation.jsonl": [sample(3, "Open again.", reasoning="it said so", slice="hard", reference="Open.")],
    "rejected.jsonl": [
        rejected(sample(4, "The road is shut."), "near_duplicate", "pair similarity 0.9", "p0:teacher:0"),
        rejected(sample(5, "As the test says."), "contamination", "exact match"),
        rejected(sample(6, "'tis =1+1"), "finish_reason", "finish_reason is 'length', not stop"),
    ],
}
