"""The student in this process: its stream is its answer, its confidence is eval's, requests that wait share a batch."""

import threading
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import openai
import pytest
from chat_server import ChatServer
from finished_runs import finished_run
from served_runs import recipe_of

from seqdistill.confidence import confidence_of
from seqdistill.engines import Completion, Request, open_engine
from seqdistill.engines.answer_markup import AnswerMarkup, answer_so_far, read_answer
from seqdistill.journal.asking import run_async
from seqdistill.recipe.tables import ModelConfig
from seqdistill.runs import Run
from seqdistill.serve.local import LocalStudent
from seqdistill.serve.server import ServeOptions, Serving
from seqdistill.serve.student import Wanted
from seqdistill.tasks.answer_form import AnswerForm

MESSAGES: Any = [{"role": "user", "content": "q"}]
PIECES: dict[str, tuple[list[str], AnswerMarkup]] = {  # an answer as a tokenizer without tokens of its own for the tags cuts it
    "plain": (["The", " answer", " is", " 42", "."], AnswerMarkup()),
    "tags in pieces": (
        ["<", "think", ">", "\n", "6 * 7", "\n", "</", "think", ">", "\n\n", "The", " answer", "."],
        AnswerMarkup(),
    ),
    "tags as tokens": (["<think>", "\n", "6 * 7", "\n", "</think>", "\n\n", "The", " answer", "."], AnswerMarkup()),
    "a short answer": (["<", "think", ">", "x", "</", "think", ">", "\n\n", "yes"], AnswerMarkup()),
    "two blocks": (["<think>", "a", "</think>", "<", "think", ">", "b", "</think>", " yes", " it is"], AnswerMarkup()),
    "a block in a block": (["<think>", "a <think> b", "</think>", " c", "</think>", "yes"], AnswerMarkup()),
    "nothing but reasoning": (["<", "think", ">", "x", " y"], AnswerMarkup()),
    "nearly a tag": (["<", "th", "ink", "er", ">", " is", " an", " element"], AnswerMarkup()),
    "opened by the prompt": (["6 * 7", "</", "think", ">", "\n", "yes", " it", " is"], AnswerMarkup(opened="<think>\n")),
    "the template's tags": (
        ["<", "plan", ">", "6 * 7", "</", "plan", ">", "yes", " it", " is"],
        AnswerMarkup(opens="<plan>", closes="</plan>"),
    ),
    "an empty block before": (["<", "no", ">", "yes", " it", " is"], AnswerMarkup(before="<no>")),
    "white space behind": (["yes", " it is", "\n"], AnswerMarkup(after="\n<|im_end|>")),
    "channels": (
        [
            "<|channel|>",
            "analysis",
            "<|message|>",
            "a",
            "<|end|>",
            "<|start|>",
            "<|channel|>",
            "final",
            "<|message|>",
            "yes",
            " it",
        ],
        AnswerMarkup(),
    ),
    "within tags of its own": (
        ["<think>", "a", "</think>", "<", "response", ">", "yes", " it", "</", "response>"],
        AnswerMarkup(),
    ),
}


class Pieces:
    """An engine that writes these pieces; all that is read of them is read as the real one does."""

    def __init__(self, pieces: list[str], markup: AnswerMarkup) -> None:
        self.pieces, self.markup = pieces, markup

    def decode(self, tokens: Sequence[int], skip_special_tokens: bool = False) -> str:
        return "".join(self.pieces[token] for token in tokens)

    def text_of(self, tokens: Sequence[int], request: Request) -> str:
        return answer_so_far(self, self.markup, tokens, formed=request.has_form)

    def answer_all(self, requests: list[Request], heard: Any, done: Any, unwanted: Any) -> None:
        tokens = list(range(len(self.pieces)))
        content, reasoning, _ = read_answer(self, self.markup, tokens)
        for request in requests:
            for at in tokens:
                heard(request.id, tokens[: at + 1], dict)
            done(Completion(request.id, content, reasoning, "stop", prompt_tokens=3, completion_tokens=len(tokens)))


@pytest.mark.parametrize("stop", ["", " is"])
@pytest.mark.parametrize("about", PIECES)
def test_what_is_streamed_and_what_is_answered_is_the_answer_that_eval_reads(about: str, stop: str) -> None:
    pieces, markup = PIECES[about]
    engine: Any = Pieces(pieces, markup)
    answer = read_answer(engine, markup, range(len(pieces)))[0].partition(stop or "\0")[0]
    wanted = Wanted(MESSAGES, 64, 0.0, 1.0, 1, stop=(stop,) if stop else (), top_logprobs=None)

    async def both() -> tuple[str, list[str]]:
        student = LocalStudent("m", engine)
        whole = (await student.answer(wanted))["choices"][0]["message"]["content"]
        chunks = [chunk async for part in student.stream(wanted) for chunk in part]
        return whole, [text for chunk in chunks for one in chunk["choices"] if (text := one["delta"].get("content"))]

    whole, parts = run_async(both())
    assert (whole, "".join(parts)) == (answer, answer)
    if about == "plain" and not stop:
        assert len(parts) == len(pieces)  # as it is written


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory, tiny_model: Path) -> Run:
    return finished_run(tmp_path_factory.mktemp("run") / "run", tiny_model)


def plain(run: Run, text: str) -> Any:
    """The answer of the engine alone, as eval requests it."""

    async def one() -> Any:
        engine = open_engine(ModelConfig(model=str(run.file("train", "model"))))
        request = Request("a", [{"role": "user", "content": text}], 12, logprobs=0)
        (completion,) = [one async for one in engine.stream([request])]
        return completion

    return run_async(one())


def test_the_local_student_streams_what_it_answers_with_eval_s_confidence(run: Run, tmp_path: Path) -> None:
    (run.path / "task.toml").write_text('[teacher]\nuser = "{{ prompt }}"\n')
    with ChatServer() as teacher:
        recipe = recipe_of(run, "", teacher.url, generate={"max_tokens": 12})
        recipe.student.base_url.clear()
        with (
            Serving(run, recipe, ServeOptions(port=0, threshold=0.0)) as server,
            openai.OpenAI(base_url=server.url, api_key="none", max_retries=0) as client,
        ):

            def say(text: str, **settings: Any) -> Any:
                messages: Any = [{"role": "user", "content": text}]
                return client.chat.completions.with_raw_response.create(model="any", messages=messages, **settings)

            expected = plain(run, "Say a word.")
            whole = say("Say a word.", logprobs=True, top_logprobs=2)
            choice = whole.parse().choices[0]
            assert (choice.message.content, choice.finish_reason) == (expected.content, expected.finish_reason)
            assert len(choice.logprobs.content) == whole.parse().usage.completion_tokens == expected.completion_tokens
            assert all(len(place.top_logprobs) == 2 for place in choice.logprobs.content)
            assert float(whole.headers["x-seqdistill-confidence"]) == confidence_of(expected, AnswerForm())

            long = say("Say a word.", max_tokens=100_000)  # beyond its context: as many tokens as eval's answers had
            assert long.parse().choices[0].message.content == expected.content

            parts = [c.choices[0].delta.content or "" for c in say("Say a word.", stream=True).parse() if c.choices]
            assert "".join(parts) == expected.content and len([part for part in parts if part]) > 1

            end = expected.content.split()[-1]
            stopped = say("Say a word.", stop=end).parse().choices[0]
            assert stopped.message.content == expected.content.split(end)[0] and stopped.finish_reason == "stop"

            found: dict[int, str] = {}
            threads = [
                threading.Thread(target=lambda n=n: found.update({n: say(f"Say {n}.").parse().choices[0].message.content}))
                for n in range(4)
            ]
            for thread in threads:
                thread.start()
            for thread in threads:
                thread.join()
            assert found == {n: plain(run, f"Say {n}.").content for n in range(4)}
            assert not teacher.requests
