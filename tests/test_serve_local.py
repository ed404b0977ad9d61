"""The student in this process: its stream is its answer, its confidence is eval's, requests that wait share a batch."""

import threading
from pathlib import Path
from typing import Any

import openai
import pytest
from chat_server import ChatServer
from finished_runs import finished_run
from served_runs import recipe_of

from seqdistill.confidence import confidence_of
from seqdistill.engines import Request, open_engine
from seqdistill.journal.asking import run_async
from seqdistill.recipe.tables import ModelConfig
from seqdistill.runs import Run
from seqdistill.serve.server import ServeOptions, Serving
from seqdistill.tasks.answer_form import AnswerForm


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
