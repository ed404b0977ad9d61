"""Personal data and people's decisions in the filter: what is masked, dropped, overruled, and what the report never shows."""

import json
from pathlib import Path
from typing import Any

import pytest
from chat_server import Body, ChatServer, answer
from filter_runs import filtered, kept_ids, make_run, rows_of, rules_of, sample

from seqdistill.decisions import Decision, appending, decisions_file, hash_of_text
from seqdistill.progress import Silent
from seqdistill.recipe.reading import resolve
from seqdistill.records import Sample
from seqdistill.review.page import Review
from seqdistill.runs import Run
from seqdistill.stages.filter.stage import filter_samples

MAIL, PHONE = "anna@example.org", "(212) 555-0143"
PLAIN = {"near_duplicates": {"scope": "off"}, "duplicates": False, "integrity": {"stock_share": 0.0}, "validation": 0.0}
MASK = {"action": "mask"}


def rows() -> list[Sample]:
    return [
        sample("When is the hall open?", "From nine to five."),
        sample(f"Who is {MAIL}?", f"Anna, {MAIL}, {PHONE}.", reference=f"Anna {PHONE}"),
        sample("Is Mill Lane closed?", "Yes, until May.", finish_reason="length"),
    ]


def report(run: Run) -> dict[str, object]:
    text = run.file("filter", "report.json").read_text(encoding="utf-8")
    assert MAIL not in text and PHONE not in text
    return dict(json.loads(text))


def decide(run: Run, row: Sample, word: str, completion: str | None = None, seen: str | None = None) -> None:
    decided = Decision(row.id, word, completion, hash_of_text(seen or row.text), "maria", "2026-01-01T00:00:00+00:00")
    with appending(run) as append:
        append(decided)


@pytest.mark.parametrize(("action", "kept"), [("off", 2), ("annotate", 2), ("mask", 2), ("drop", 1)])
def test_personal_data_is_counted_masked_or_dropped_and_never_reported(tmp_path: Path, action: str, kept: int) -> None:
    run = make_run(tmp_path, rows())
    assert filtered(run, personal_data={"action": action}, **PLAIN).kept == kept
    reported = report(run)
    values = {} if action == "off" else {"email": 1, "phone": 1}
    assert reported["personal_data"] == {"action": action, "rows": int(action != "off"), "values": values}
    written = run.file("filter", "train.jsonl").read_text(encoding="utf-8")
    assert (MAIL in written) == (action in ("off", "annotate"))
    if action == "mask":
        row = rows_of(run, "train.jsonl")[1]
        assert (row["prompt"][0]["content"], row["reference"]) == ("Who is [EMAIL_1]?", "Anna [PHONE_1]")
        assert row["completion"][0]["content"] == "Anna, [EMAIL_1], [PHONE_1]."
    if action == "drop":
        assert rows_of(run, "rejected.jsonl")[0]["reason"] == "1 email, 1 phone"


@pytest.mark.parametrize("action", ["annotate", "mask"])
def test_a_judge_is_shown_a_row_as_it_will_be_trained_on(tmp_path: Path, action: str) -> None:
    def reply(body: Body) -> Body:
        said = answer(body)
        said["choices"][0]["message"]["content"] = '{"score": 7}'
        return said

    run = make_run(tmp_path, rows())
    with ChatServer(model="judge", reply=reply) as server:
        judge = {"model": "judge", "engine": "openai", "base_url": [server.url]}
        keys = {"score": {"by": "judge"}, "personal_data": {"action": action}, **PLAIN}
        filter_samples(run, resolve({"filter": keys, "judge": judge}), Silent())
        shown = json.dumps(server.requests)
    assert ("[EMAIL_1]" in shown, MAIL in shown, PHONE in shown) == (action == "mask", action != "mask", action != "mask")


def test_examples_of_rejected_rows_name_personal_data_by_kind(tmp_path: Path) -> None:
    run = make_run(tmp_path, [*rows(), sample("Who?", f"Ask {MAIL} or {PHONE}", finish_reason="length")])
    filtered(run, **PLAIN)
    assert "Ask [EMAIL] or [PHONE]" in json.dumps(report(run)["examples"])


def test_people_overrule_the_rules(tmp_path: Path) -> None:
    hall, anna, lane = rows()
    run = make_run(tmp_path, [hall, anna, lane])
    filtered(run, **PLAIN)
    assert rules_of(run) == {lane.id: "finish_reason"}
    decide(run, hall, "reject")
    decide(run, anna, "edit", f"Ask the town.\n{MAIL}")
    decide(run, lane, "accept")
    result = filtered(run, personal_data=MASK, **PLAIN)
    assert not result.up_to_date
    assert rules_of(run) == {hall.id: "review"} and result.by_rule == {"review": 1}
    kept = {row["id"]: row for row in rows_of(run, "train.jsonl")}
    assert kept[anna.id]["completion"][0]["content"] == "Ask the town.\n[EMAIL_1]"
    assert (kept[anna.id]["finish_reason"], kept[anna.id]["teacher"]) == ("human", "teacher")
    assert kept[lane.id]["finish_reason"] == "length"
    counts = {"accepted": 1, "edited": 1, "rejected": 1, "stale": 0, "unknown": 0, "refused": 0}
    assert report(run)["review"] == counts
    assert filtered(run, personal_data=MASK, **PLAIN).up_to_date


@pytest.mark.parametrize(
    ("texts", "keys", "left"),
    [
        (["The library is shut on Monday.", "On Monday it is closed.", "Nothing is known."], {"score": {"by": "reference"}}, 1),
        (["The library is shut on Monday.", "the library is shut on monday", "It is."], {"score": {"by": "reference"}}, 1),
        (["The library is shut on Monday.", "the library is shut on  Monday."], {}, 1),
        (["The library is shut on Monday."], {"score": {"by": "reference"}}, None),
    ],
)
def test_where_a_person_rejects_the_best_answer_the_next_best_is_learnt(
    texts: list[str], keys: dict[str, Any], left: int | None, tmp_path: Path
) -> None:
    rows = [
        sample("Why is the library shut?", text, sample=number, reference="The library is shut on Monday.")
        for number, text in enumerate(texts)
    ]
    other = sample("Why is the pool shut?", "It is shut.", reference="It is shut.")
    run = make_run(tmp_path, [*rows, other])
    filtered(run, validation=0, **keys)
    assert kept_ids(run) == {rows[0].id, other.id}
    decide(run, rows[0], "reject")
    filtered(run, validation=0, **keys)
    assert kept_ids(run) == {other.id} | ({rows[left].id} if left else set())
    gone = {row["id"]: row for row in rows_of(run, "rejected.jsonl")}
    assert gone[rows[0].id]["rule"] == "review"
    assert {row["kept_by"] for row in gone.values()} <= {None, rows[left or 0].id}


def test_an_undone_decision_leaves_the_files_as_they_were(tmp_path: Path) -> None:
    run = make_run(tmp_path, rows())
    filtered(run, **PLAIN)
    before = run.file("filter", "train.jsonl").read_bytes()
    decide(run, rows()[0], "reject")
    filtered(run, **PLAIN)
    assert run.file("filter", "train.jsonl").read_bytes() != before
    decide(run, rows()[0], "undo")
    filtered(run, **PLAIN)
    assert run.file("filter", "train.jsonl").read_bytes() == before


def test_a_decision_on_another_answer_or_an_unknown_row_is_left_out_and_counted(tmp_path: Path) -> None:
    hall, anna, lane = rows()
    run = make_run(tmp_path, [hall, anna, lane])
    decide(run, hall, "reject", seen="an answer of last week")
    decide(run, sample("Not there?", "No."), "reject")
    filtered(run, **PLAIN)
    assert kept_ids(run) == {hall.id, anna.id}
    reported = report(run)["review"]
    assert isinstance(reported, dict) and (reported["stale"], reported["unknown"]) == (1, 1)


@pytest.mark.parametrize(("before", "after"), [("annotate", "mask"), ("mask", "annotate"), ("mask", "drop")])
def test_a_decision_holds_when_personal_data_is_masked_later_or_no_longer(tmp_path: Path, before: str, after: str) -> None:
    run = make_run(tmp_path, rows())
    filtered(run, personal_data={"action": before}, **PLAIN)
    with Review(run, "maria") as session:
        view = session.select("all", "", "Anna,")
        session.decide(session.screen(view["view"], 0, 1)["rows"][0]["number"], "reject", None, view["view"])
    result = filtered(run, personal_data={"action": after}, **PLAIN)
    assert rows()[1].id not in kept_ids(run) and result.review["stale"] == 0


def test_nobody_accepts_a_test_item_whatever_rule_took_it(tmp_path: Path) -> None:
    item = "The road to the old mill is closed from Monday to Friday for repairs."
    test = tmp_path / "test.jsonl"
    test.write_text(json.dumps({"prompt": item}) + "\n")
    hit = sample(item, "Closed.", finish_reason="length")
    run = make_run(tmp_path / "run", [*rows(), hit])
    decide(run, hit, "accept")
    filtered(run, test, **PLAIN)
    assert rules_of(run)[hit.id] == "finish_reason"
    reported = report(run)["review"]
    assert isinstance(reported, dict) and reported["refused"] == 1


def test_what_the_page_decides_holds_in_the_next_filter_and_can_be_changed_after_it(tmp_path: Path) -> None:
    run = make_run(tmp_path, rows())
    filtered(run, personal_data=MASK, **PLAIN)
    with Review(run, "maria") as session:
        view = session.select("all", "", "masked")["view"]
        assert session.select("all", "", "[email_1]")["count"] == 1
        session.decide(2, "edit", "Ask the town hall.", view)
    filtered(run, personal_data=MASK, **PLAIN)
    assert "Ask the town hall." in run.file("filter", "train.jsonl").read_text()
    with Review(run, "maria") as session:
        session.decide(2, "reject", None, session.select("all", "", "")["view"])
    filtered(run, personal_data=MASK, **PLAIN)
    assert rules_of(run)[rows()[1].id] == "review"


def test_the_card_says_how_much_people_checked(tmp_path: Path) -> None:
    run = make_run(tmp_path, rows())
    filtered(run, **PLAIN)
    assert "It was not checked by people." in (tmp_path / "README.md").read_text()
    with appending(run) as append:
        append(Decision(rows()[0].id, "accept", None, hash_of_text(rows()[0].text), "maria", "2026-01-01T00:00:00"))
    result = filtered(run, **PLAIN)
    card = (tmp_path / "README.md").read_text()
    assert result.review["accepted"] == 1
    assert f"People checked some of its {result.read} rows (1 accepted); the others were not checked by people." in card


def test_a_damaged_decisions_file_stops_the_filter(tmp_path: Path) -> None:
    from seqdistill.errors import UsageError

    run = make_run(tmp_path, rows())
    filtered(run, **PLAIN)
    decisions_file(run).parent.mkdir()
    decisions_file(run).write_text("nonsense\n")
    with pytest.raises(UsageError, match=r"decisions\.jsonl:1"):
        filtered(run, **PLAIN)
