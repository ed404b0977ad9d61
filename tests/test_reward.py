"""The reward model: a real classifier with random weights, run in batches."""

import shutil
from dataclasses import replace
from pathlib import Path

import pytest
from test_scoring import sample

from seqdistill.errors import UsageError
from seqdistill.stages.filter.scoring.reward import RewardModel


def make_reward_model(chat_model: Path, folder: Path, outputs: int = 1) -> Path:
    """A classifier on top of the tiny chat model's body."""
    from transformers import AutoModelForSequenceClassification, AutoTokenizer
    from transformers.utils import logging

    logging.set_verbosity_error()  # the new head is announced as untrained, which it is meant to be
    AutoModelForSequenceClassification.from_pretrained(chat_model, num_labels=outputs).save_pretrained(folder)
    AutoTokenizer.from_pretrained(chat_model).save_pretrained(folder)
    return folder


@pytest.fixture(scope="module")
def reward_model(tiny_model: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make_reward_model(tiny_model, tmp_path_factory.mktemp("models") / "reward")


def test_a_reward_belongs_to_its_sample_whatever_the_order_and_the_batch(reward_model: Path) -> None:
    samples = [sample("word " * n + "{{ 7 }} <|im_end|>", n) for n in range(7)]
    one = RewardModel(str(reward_model), batch_size=1).scores(samples)
    batched = RewardModel(str(reward_model), batch_size=3)
    assert batched.scores(samples) == pytest.approx(one, abs=1e-4)
    assert batched.scores(samples[::-1]) == pytest.approx(one[::-1], abs=1e-4)
    assert len(set(one)) == len(one)
    assert batched.scores([]) == []


def test_what_is_longer_than_the_model_can_read_has_no_reward(reward_model: Path) -> None:
    long, short = RewardModel(str(reward_model)).scores([sample("word " * 2000), sample("word")])
    assert long is None
    assert short is not None


def test_what_the_chat_template_refuses_has_no_reward(reward_model: Path, tmp_path: Path) -> None:
    folder = shutil.copytree(reward_model, tmp_path / "strict")
    template = folder / "chat_template.jinja"
    template.write_text(
        "{% if messages[0]['role'] == 'system' %}{{ raise_exception('no system messages') }}{% endif %}" + template.read_text()
    )
    plain = sample("A word")
    system = replace(plain, prompt=[{"role": "system", "content": "Be short."}, *plain.prompt])
    refused, taken = RewardModel(str(folder)).scores([system, plain])
    assert refused is None
    assert taken is not None


def test_what_is_no_reward_model_is_a_usage_error(tiny_model: Path, tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="has 2 outputs"):
        RewardModel(str(make_reward_model(tiny_model, tmp_path / "two", outputs=2)))
    with pytest.raises(UsageError, match=r"reward_model = .*no such file or folder"):
        RewardModel(str(tmp_path / "nothing"))
