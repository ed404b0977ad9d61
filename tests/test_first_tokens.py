"""The threshold of a stream's first tokens: found as eval's is, on the same halves, and its promise holds for what is kept."""

import json
import random
from pathlib import Path

import pytest
from served_runs import served

from seqdistill.confidence import confidence_in
from seqdistill.engines import Completion, Request
from seqdistill.journal.storage import Journal, request_key
from seqdistill.records import write_jsonl
from seqdistill.runs import Run
from seqdistill.stages.evaluate.first_tokens import first_tokens_threshold

N, TOKENS = 600, 4


def evaluated(path: Path) -> Run:
    """A run whose student is good where its first four tokens are sure, whatever the eight others are."""
    run, random_ = Run(path), random.Random(1)
    rows, goods = [], {}
    with Journal(run.file("eval", "journal.jsonl")) as journal:
        for n in range(N):
            sure = random_.random()
            goods[str(n)] = random_.random() < sure**0.1
            logprobs = [-2.0 * (1 - sure)] * TOKENS + [-2.0 * random_.random()] * 8
            content = [{"token": "a", "logprob": value} for value in logprobs]
            raw = {"choices": [{"logprobs": {"content": content}}]}
            request = Request(f"{n}:student", [{"role": "user", "content": str(n)}], 16)
            completion = Completion(request.id, "text", finish_reason="stop", raw=raw)
            journal.append("the-student", [(request_key(request, "the-student"), request, completion)])
            for role, score in (("student", 100.0 if goods[str(n)] else 0.0), ("teacher", 100.0)):
                row = {"id": str(n), "model": role, "prompt": [], "completion": [{"content": "text"}], "finish_reason": "stop"}
                row |= {
                    "reference": None,
                    "slice": None,
                    "group": None,
                    "error": None,
                    "tokens": 1,
                    "seconds": 0.0,
                    "scores": {"own_teacher": score},
                }
                rows.append(row | {"confidence": confidence_in(logprobs) if role == "student" else None})
    write_jsonl(run.file("eval", "predictions.jsonl"), rows)
    scores = {"primary": "own_teacher", "margin": 5.0, "seed": 0, "judged": {"other": "teacher"}}
    scores["models"] = {"student": {"identity": "the-student"}, "teacher": {"identity": "t"}}
    run.file("eval", "scores.json").write_text(json.dumps(scores))
    deferral = {"target": 0.9, "risk": 0.05, "good_enough": 50.0, "samples": 0, "confidence": "logprob", "threshold": 0.99}
    run.file("eval", "deferral.json").write_text(json.dumps(deferral))
    (path / "goods").write_text(json.dumps(goods))
    return run


def test_the_threshold_of_the_first_tokens_keeps_its_promise(tmp_path: Path) -> None:
    run = evaluated(tmp_path / "run")
    threshold = first_tokens_threshold(run, TOKENS)
    assert threshold is not None
    goods = json.loads((run.path / "goods").read_text())
    with Journal(run.file("eval", "journal.jsonl"), writable=False) as journal:
        found = {
            row["id"].split(":")[0]: confidence_in(
                [place["logprob"] for place in row["completion"]["raw"]["choices"][0]["logprobs"]["content"][:TOKENS]]
            )
            for row in journal.rows()
        }
    kept = [goods[name] for name, confidence in found.items() if confidence >= threshold]
    assert len(kept) > N / 4 and sum(kept) / len(kept) >= 0.9
    assert first_tokens_threshold(run, TOKENS + 8) != threshold  # another confidence, another threshold


@pytest.mark.parametrize(("threshold", "by"), [(0.9, "student"), (0.95, "teacher")])
def test_a_stream_is_decided_by_the_threshold_of_its_first_tokens(tmp_path: Path, threshold: float, by: str) -> None:
    with served(tmp_path, options={"decide_on": 2, "shadow": 1.0}, first_threshold=threshold) as server:
        messages = [{"role": "user", "content": "Hello"}]
        create = server.client.chat.completions.with_raw_response.create
        stream = create(model="any", messages=messages, stream=True)  # type: ignore[arg-type]
        assert stream.headers["x-seqdistill-model"] == by
        whole = create(model="any", messages=messages)  # type: ignore[arg-type]
        assert whole.headers["x-seqdistill-model"] == "student"  # by eval's own threshold, 0.5
    checked = {row["decided_on"] for row in server.log() if row["kind"] == "shadow"}
    assert checked == ({2, 0} if by == "student" else {0})  # which threshold the confidence is to be compared with
