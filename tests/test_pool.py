"""The next prompts from a pool: the unsure and new ones, under the cap, once each, and the same after a kill."""

import json
import signal
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from chat_server import Body, ChatServer, answer
from generate_runs import PRICE, Child, Notes, killed_after, main_in_child, priced, prompts_file, recipe

from seqdistill.cli import main
from seqdistill.confidence import confidence_of
from seqdistill.engines import Request, open_engine
from seqdistill.errors import Incomplete, UsageError
from seqdistill.journal.asking import run_async
from seqdistill.picking import Picked, pick
from seqdistill.progress import Silent
from seqdistill.recipe.tables import Recipe, StudentConfig
from seqdistill.records import read_jsonl, write_jsonl
from seqdistill.run_prompts import picks_of, run_prompts
from seqdistill.runs import Run, StageRecord
from seqdistill.stages.evaluate.contestants import student_of
from seqdistill.stages.generate.stage import GenerateResult, generate

KNOWN = ["the bridge over the river is closed", "the library opens at nine", "buses run every hour"]
HARD_NEW = ["hard: quartz deposits beneath glaciers", "hard: violins tuned for winter concerts"]
HARD_KNOWN = "hard the bridge over the river is closed"
EASY_NEW = "easy: seventeen camels crossing deserts"
POOL = [EASY_NEW, HARD_NEW[0], HARD_KNOWN, "easy: the library opens at nine", HARD_NEW[1]]


def unsure_of_hard(body: Body) -> Body:
    """A student's reply: sure of all prompts but of those that begin with "hard"."""
    reply = answer(body)
    for token in reply["choices"][0]["logprobs"]["content"]:
        token["logprob"] = -2.0 if body["messages"][-1]["content"].startswith("hard") else -0.01
    return reply


@pytest.fixture
def teacher() -> Iterator[ChatServer]:
    with ChatServer() as server:
        yield server


@pytest.fixture
def student() -> Iterator[ChatServer]:
    with ChatServer(model=None, reply=unsure_of_hard) as server:
        yield server


def file_of(path: Path, texts: list[str], **more: Any) -> str:
    write_jsonl(path, [{"prompt": text, **more} for text in texts])
    return str(path)


def trained(run: Run) -> None:
    """What train leaves, as far as a student at an endpoint needs it."""
    folder = run.file("train", "model")
    folder.mkdir(parents=True)
    (folder / "config.json").write_text("{}")
    StageRecord(run, "train", {}, {}).finish({"model": None}, config={}, student={"base": "base"})


def with_student(wanted: Recipe, student: ChatServer) -> Recipe:
    return replace(wanted, student=StudentConfig(model="shrink:2", engine="openai", base_url=[student.url]))


def texts_of(run: Run) -> list[str]:
    return [row["prompt"] for _, row in read_jsonl(run.file("generate", "pool.jsonl"))]


def chosen(
    folder: Path, wanted: Recipe, pool: list[str], count: int, by: str = "uncertain", notes: Silent | None = None
) -> tuple[Picked, GenerateResult]:
    run = Run(folder / "run")
    found = pick(run, wanted, file_of(folder / "more.jsonl", pool), count, by, notes or Silent())
    return found, generate(run, wanted, Silent())


def test_the_next_prompts_are_those_that_the_student_is_unsure_of_and_that_are_new(
    tmp_path: Path, teacher: ChatServer, student: ChatServer
) -> None:
    wanted = with_student(recipe(teacher, prompts_file(tmp_path, KNOWN)), student)
    run = Run(tmp_path / "run")
    trained(run)
    generate(run, wanted, Silent())
    before = (run.manifest("generate") or {})["fingerprint"]
    found, result = chosen(tmp_path, wanted, POOL, 2)
    assert sorted(texts_of(run)) == sorted(HARD_NEW)
    assert (found.prompts, found.pool, found.student) == (2, 5, picks_of(run)[0].student)
    assert found.confidence == pytest.approx(0.135335) and (found.confidence_of_all or 0) > 0.4
    assert (found.novelty or 0) > 0.8 > (found.novelty_of_all or 1)
    assert (result.prompts, result.new) == (5, 2)
    samples = [row["prompt"][-1]["content"] for _, row in read_jsonl(run.file("generate", "samples.jsonl"))]
    assert samples == [*KNOWN, *texts_of(run)]
    manifest = run.manifest("generate") or {}
    assert manifest["fingerprint"] != before and manifest["inputs"]["pool"]["path"] == "generate/pool.jsonl"
    (made,) = manifest["pool"]
    assert (made["round"], made["by"], made["source"], made["prompts"]) == (1, "uncertain", "more.jsonl", 2)


def test_a_second_choice_takes_the_next_and_going_on_without_a_pool_keeps_them(
    tmp_path: Path, teacher: ChatServer, student: ChatServer
) -> None:
    wanted = with_student(recipe(teacher, prompts_file(tmp_path, KNOWN)), student)
    run = Run(tmp_path / "run")
    trained(run)
    chosen(tmp_path, wanted, POOL, 2)
    answered = len(student.requests)
    found, _ = chosen(tmp_path, wanted, POOL, 1)
    assert (found.round, found.prompted) == (2, 2)
    assert texts_of(run)[2] == HARD_KNOWN or texts_of(run)[2] == EASY_NEW
    assert [one.round for one in picks_of(run)] == [1, 1, 2]
    assert len(student.requests) == answered, "the student's answers are in the journal"
    asked = len(teacher.requests)
    assert generate(run, wanted, Silent()).up_to_date
    again = generate(run, replace(wanted, generate=replace(wanted.generate, samples=2)), Silent())
    assert (again.prompts, again.new) == (6, 6) and len(teacher.requests) == asked + 6


def test_no_prompted_prompt_no_test_prompt_and_no_repetition_is_chosen(
    tmp_path: Path, teacher: ChatServer, student: ChatServer
) -> None:
    test = "hard: name the eleven rivers that meet below the old town of Passau"
    wanted = with_student(recipe(teacher, prompts_file(tmp_path, KNOWN)), student)
    wanted = replace(wanted, task=replace(wanted.task, test=file_of(tmp_path / "test.jsonl", [test])))
    trained(Run(tmp_path / "run"))
    pool = [f" {KNOWN[0]}\n", test, f"Please, {test}", HARD_NEW[0], f"{HARD_NEW[0]} "]
    notes = Notes()
    found, _ = chosen(tmp_path, wanted, pool, 9, notes=notes)
    assert texts_of(Run(tmp_path / "run")) == [HARD_NEW[0]]
    assert (found.prompts, found.prompted, found.tested) == (1, 1, 2)
    assert any("1 of 9 prompts are chosen: the pool has no more" in note for note in notes.notes)
    with pytest.raises(UsageError, match="none of its 4 prompts is left: 2 are prompts of the run already, 2 hold a test item"):
        chosen(tmp_path, wanted, pool, 9)


def test_no_prompt_of_a_group_of_the_test_set_is_chosen(tmp_path: Path, teacher: ChatServer) -> None:
    wanted = recipe(teacher, prompts_file(tmp_path, KNOWN))
    wanted = replace(wanted, task=replace(wanted.task, test=file_of(tmp_path / "test.jsonl", [HARD_KNOWN], group="a")))
    write_jsonl(tmp_path / "more.jsonl", [{"prompt": EASY_NEW, "group": "a"}, {"prompt": HARD_NEW[0], "group": "b"}])
    found = pick(Run(tmp_path / "run"), wanted, str(tmp_path / "more.jsonl"), 2, "uncertain", Silent())
    assert (texts_of(Run(tmp_path / "run")), found.tested) == ([HARD_NEW[0]], 1)


def test_prompts_that_are_like_each_other_are_not_chosen_together(
    tmp_path: Path, teacher: ChatServer, student: ChatServer
) -> None:
    wanted = with_student(recipe(teacher, prompts_file(tmp_path, KNOWN)), student)
    trained(Run(tmp_path / "run"))
    pool = [HARD_NEW[0], f"{HARD_NEW[0]} today", f"{HARD_NEW[0]} again", HARD_NEW[1]]
    chosen(tmp_path, wanted, pool, 2)
    assert len({text.split()[1] for text in texts_of(Run(tmp_path / "run"))}) == 2


def test_without_a_trained_student_novelty_alone_decides_and_it_is_said(tmp_path: Path, teacher: ChatServer) -> None:
    notes = Notes()
    pool = [HARD_KNOWN, EASY_NEW, "the library opens"]
    found, _ = chosen(tmp_path, recipe(teacher, prompts_file(tmp_path, KNOWN)), pool, 1, notes=notes)
    assert texts_of(Run(tmp_path / "run")) == [EASY_NEW]
    assert (found.student, found.confidence, found.novelty) == (None, None, 1.0)
    assert "generate: the run has no trained student yet: chosen by novelty alone" in notes.notes


def test_a_student_without_log_probabilities_is_said_and_novelty_alone_decides(tmp_path: Path, teacher: ChatServer) -> None:
    def silent(body: Body) -> Body:
        return answer({**body, "logprobs": False})

    notes = Notes()
    with ChatServer(model=None, reply=silent) as server:
        wanted = with_student(recipe(teacher, prompts_file(tmp_path, KNOWN)), server)
        trained(Run(tmp_path / "run"))
        chosen(tmp_path, wanted, [HARD_KNOWN, EASY_NEW], 1, notes=notes)
    assert texts_of(Run(tmp_path / "run")) == [EASY_NEW]
    assert any("no log-probabilities" in note for note in notes.notes)


def test_a_random_choice_is_the_same_twice_of_the_same_size_and_needs_no_student(
    tmp_path: Path, teacher: ChatServer, student: ChatServer
) -> None:
    pool = [
        f"prompt number {n} about {word}"
        for n, word in enumerate(["ash", "birch", "cedar", "elm", "fir", "hazel", "larch", "maple", "oak"])
    ]
    found = []
    for name, seed in (("a", 0), ("b", 0), ("c", 1)):
        folder = tmp_path / name
        folder.mkdir()
        wanted = with_student(recipe(teacher, prompts_file(folder, KNOWN), seed=seed), student)
        trained(Run(folder / "run"))
        picked, _ = chosen(folder, wanted, pool, 4, by="random")
        assert (picked.prompts, picked.novelty) == (4, None)
        found.append(texts_of(Run(folder / "run")))
    assert found[0] == found[1] != found[2] and found[0] != pool[:4]
    assert student.requests == []


def test_no_more_is_chosen_than_the_budget_surely_pays(tmp_path: Path, teacher: ChatServer) -> None:
    pool = [f"topic {n}" for n in range(8)]
    dear = priced(recipe(teacher, prompts_file(tmp_path, KNOWN)))
    run = Run(tmp_path / "run")
    paid = generate(run, dear, Silent()).spent_usd or 0.0
    bound = (256 + 2 + 16 + 6 + len(json.dumps([{}, {}, {}]))) / 1e6 * PRICE["prompt"] + 20 / 1e6 * PRICE["completion"]
    capped = replace(dear, generate=replace(dear.generate, budget=paid + 3.5 * bound))
    notes = Notes()
    found, result = chosen(tmp_path, capped, pool, 8, notes=notes)
    assert (found.prompts, result.new) == (3, 3)
    assert (result.spent_usd or 0) <= paid + 3.5 * bound
    assert any("3 of 8 prompts are chosen: the budget cannot surely pay for more" in note for note in notes.notes)
    before = run.file("generate", "pool.jsonl").read_bytes()
    empty = replace(capped, generate=replace(capped.generate, budget=result.spent_usd))
    with pytest.raises(Incomplete, match="the budget of"):
        pick(run, empty, str(tmp_path / "more.jsonl"), 8, "uncertain", Silent())
    assert run.file("generate", "pool.jsonl").read_bytes() == before


@pytest.mark.parametrize("where", ["student", "teacher"])
def test_a_killed_choice_ends_with_the_bytes_of_one_that_was_not_killed(
    tmp_path: Path, teacher: ChatServer, student: ChatServer, where: str
) -> None:
    def arguments(folder: Path) -> list[str]:
        ends = ["--teacher-engine", "openai", "--teacher-base-url", teacher.url]
        ends += ["--set", "student.engine='openai'", "--set", f"student.base_url=['{student.url}']"]
        wanted = ["--pool", str(tmp_path / "more.jsonl"), "--next", "3", "--concurrency", "1"]
        return [
            "generate",
            str(folder / "run"),
            "--prompts",
            str(folder / "prompts.jsonl"),
            "--teacher",
            "teacher",
            *ends,
            *wanted,
        ]

    file_of(tmp_path / "more.jsonl", POOL)
    for name in ("whole", "killed"):
        (tmp_path / name).mkdir()
        prompts_file(tmp_path / name, KNOWN)
        trained(Run(tmp_path / name / "run"))
    assert main(arguments(tmp_path / "whole")) == 0
    wanted = arguments(tmp_path / "killed")
    server, requests = (student, 3) if where == "student" else (teacher, 5)
    code = killed_after(server, requests, signal.SIGKILL, Child(target=main_in_child, args=(wanted,)))
    assert code == -signal.SIGKILL
    assert (tmp_path / "killed/run/generate/pool.jsonl").exists() == (where == "teacher")
    assert main(wanted) == 0
    for name in ("samples.jsonl", "pool.jsonl", "picks.jsonl"):
        assert (tmp_path / "killed/run/generate" / name).read_bytes() == (tmp_path / "whole/run/generate" / name).read_bytes()


def test_a_local_student_is_as_sure_as_its_engine_says(tmp_path: Path, teacher: ChatServer, tiny_model: Path) -> None:
    wanted = recipe(teacher, prompts_file(tmp_path, KNOWN), max_tokens=6)
    run = Run(tmp_path / "run")
    run.file("train", "").mkdir(parents=True)
    run.file("train", "model").symlink_to(tiny_model)
    StageRecord(run, "train", {}, {}).finish({"model": None}, config={}, student={"base": "base"})
    found = pick(run, wanted, file_of(tmp_path / "more.jsonl", POOL[:2]), 2, "uncertain", Silent())
    model = student_of(run, wanted).model
    assert model is not None and found.prompts == 2
    requests = [
        Request(one.prompt_id, [{"role": "user", "content": text}], 6, logprobs=0)
        for one, text in zip(picks_of(run), texts_of(run), strict=True)
    ]

    async def confidences() -> dict[str, float | None]:
        engine = open_engine(model)
        return {one.id: confidence_of(one, wanted_form) async for one in engine.stream(requests)}

    from seqdistill.tasks.answer_form import AnswerForm

    wanted_form = AnswerForm()
    expected = run_async(confidences())
    for one in picks_of(run):
        assert one.confidence == pytest.approx(expected[one.prompt_id], abs=2e-3) and 0 < (one.confidence or 0) < 1


def test_a_pool_may_be_a_table_and_may_lack_the_columns_of_references(tmp_path: Path, teacher: ChatServer) -> None:
    prompts = tmp_path / "prompts.csv"
    prompts.write_text("question,answer\nwhat is left,right\n")
    (tmp_path / "more.csv").write_text("question,note\nwhat is up,nan\nwhat is north,\n")
    wanted = recipe(teacher, prompts)
    wanted = replace(wanted, task=replace(wanted.task, columns={"prompt": "question", "reference": "answer"}))
    run = Run(tmp_path / "run")
    pick(run, wanted, str(tmp_path / "more.csv"), 1, "uncertain", Silent())
    assert generate(run, wanted, Silent()).prompts == 2
    assert [prompt.reference for prompt in run_prompts(run, wanted, Silent())] == ["right", None]


def test_the_prompts_of_the_task_may_come_to_hold_what_was_chosen(tmp_path: Path, teacher: ChatServer) -> None:
    wanted = recipe(teacher, prompts_file(tmp_path, KNOWN))
    chosen(tmp_path, wanted, [EASY_NEW], 1)
    prompts_file(tmp_path, [*KNOWN, EASY_NEW])
    result = generate(Run(tmp_path / "run"), wanted, Silent())
    assert (result.prompts, result.new) == (4, 0)


WRONG = [
    (["--next", "2"], "belong together"),
    (["--pool", "more.jsonl"], "belong together"),
    (["--pick", "random"], "belong together"),
    (["--pool", "more.jsonl", "--next", "2", "--pick", "randm"], "did you mean 'random'?"),
    (["--pool", "more.jsonl", "--next", "2", "--dry-run"], "--pool with --dry-run"),
    (["--pool", "missing.jsonl", "--next", "2"], "missing.jsonl"),
    (["--pool", "clash.jsonl", "--next", "2"], "the id 'a' is also that of another prompt of the run"),
]


@pytest.mark.parametrize(("flags", "says"), WRONG)
def test_a_wrong_choice_is_refused_before_any_request(
    tmp_path: Path,
    teacher: ChatServer,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
    flags: list[str],
    says: str,
) -> None:
    monkeypatch.chdir(tmp_path)
    write_jsonl(tmp_path / "prompts.jsonl", [{"prompt": KNOWN[0], "id": "a"}])
    file_of(tmp_path / "more.jsonl", POOL)
    write_jsonl(tmp_path / "clash.jsonl", [{"prompt": KNOWN[1], "id": "a"}])
    start = ["generate", "run", "--prompts", "prompts.jsonl", "--teacher", "teacher", "--teacher-engine", "openai"]
    assert main([*start, "--teacher-base-url", teacher.url, *flags]) == 2
    assert says in " ".join(capsys.readouterr().err.split())
    assert teacher.requests == [] and not (tmp_path / "run/generate/pool.jsonl").exists()


def test_the_command_shows_what_was_chosen_and_gives_it_as_json(
    tmp_path: Path, teacher: ChatServer, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    prompts_file(tmp_path, KNOWN)
    file_of(tmp_path / "more.jsonl", POOL)
    start = ["generate", "run", "--prompts", "prompts.jsonl", "--teacher", "teacher", "--teacher-engine", "openai"]
    wanted = [*start, "--teacher-base-url", teacher.url, "--pool", "more.jsonl", "--next"]
    assert main([*wanted, "1"]) == 0
    shown = capsys.readouterr().out
    assert "choice 1 from the pool" in shown and "1 of 5 prompts, new" in shown
    assert main([*wanted, "2", "--json"]) == 0
    result = json.loads(capsys.readouterr().out)
    assert (result["prompts"], result["picked"]["round"], result["picked"]["prompts"]) == (6, 2, 2)
