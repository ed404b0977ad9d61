"""`vllm serve`, through the openai engine."""

from engine_contract import ask, check_engine_contract

from seqdistill.engines import Request, open_engine
from seqdistill.recipe.tables import ModelConfig


def test_the_openai_engine_answers_the_engine_contract_on_vllm_serve(served: str) -> None:
    check_engine_contract(open_engine(ModelConfig(model="teacher", engine="openai", base_url=[served])), longest=2000)


def test_many_requests_at_once_are_all_answered(served: str) -> None:
    engine = open_engine(ModelConfig(model="teacher", engine="openai", base_url=[served]))
    requests = [Request(f"p{n}", [{"role": "user", "content": f"Count to {n}."}], max_tokens=8, seed=n) for n in range(64)]
    assert all(completion.error is None for completion in ask(engine, requests).values())
