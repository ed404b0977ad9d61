"""Every chat template in TRL's package: trained with, and what is trained on is right, or refused with the reason."""

import re
from dataclasses import replace
from pathlib import Path

import filter_runs
import pytest
from chat_tokenizers import chat_tokenizer, tiny_chat_model
from conftest import CHATML
from train_runs import trainer_of

from seqdistill.engines import Completion
from seqdistill.engines.chat_templates import shipped_templates
from seqdistill.errors import UsageError
from seqdistill.progress import Silent
from seqdistill.recipe.tables import Recipe, StudentConfig, TrainConfig
from seqdistill.stages.train.methods.preference import pair_of, thoughts_left_out
from seqdistill.stages.train.rendering import Template, Unfit
from seqdistill.stages.train.stage import train

CLOSED = "the template closes the think block before the answer"
LOST = "the template does not keep the reasoning"  # it writes an empty block itself, and the reasoning would follow that

# name -> what is trained behind the prompt for the answer {A}; the same with the reasoning {R}, or why there can be none
ACCEPTED = {
    "cohere": ("{A}<|END_OF_TURN_TOKEN|>", "<think>\n{R}\n</think>\n\n{A}<|END_OF_TURN_TOKEN|>"),
    "cohere2": (
        "{A}<|END_RESPONSE|><|END_OF_TURN_TOKEN|>",
        "<think>\n{R}\n</think>\n\n{A}<|END_RESPONSE|><|END_OF_TURN_TOKEN|>",
    ),
    "cohere2_training": (
        "{A}<|END_RESPONSE|><|END_OF_TURN_TOKEN|>",
        "<think>\n{R}\n</think>\n\n{A}<|END_RESPONSE|><|END_OF_TURN_TOKEN|>",
    ),
    "cohere_training": ("{A}<|END_OF_TURN_TOKEN|>", "<think>\n{R}\n</think>\n\n{A}<|END_OF_TURN_TOKEN|>"),
    "deepseek_r1_distill": ("\n</think>\n\n{A}<｜end▁of▁sentence｜>", "{R}\n</think>\n\n{A}<｜end▁of▁sentence｜>"),
    "deepseek_r1_distill_training": ("\n</think>\n\n{A}<｜end▁of▁sentence｜>", "{R}\n</think>\n\n{A}<｜end▁of▁sentence｜>"),
    "deepseekv3": ("\n</think>\n\n{A}<｜end▁of▁sentence｜>", "{R}\n</think>\n\n{A}<｜end▁of▁sentence｜>"),
    "deepseekv3_training": ("\n</think>\n\n{A}<｜end▁of▁sentence｜>", "{R}\n</think>\n\n{A}<｜end▁of▁sentence｜>"),
    "diffusion_gemma": ("{A}<turn|>", "<|channel>thought\n{R}\n<channel|>{A}<turn|>"),
    "diffusion_gemma_training": ("{A}<turn|>", "<|channel>thought\n{R}\n<channel|>{A}<turn|>"),
    "gemma": ("{A}<end_of_turn>", "<think>\n{R}\n</think>\n\n{A}<end_of_turn>"),
    "gemma3": ("{A}<end_of_turn>", "<think>\n{R}\n</think>\n\n{A}<end_of_turn>"),
    "gemma3_training": ("{A}<end_of_turn>", "<think>\n{R}\n</think>\n\n{A}<end_of_turn>"),
    "gemma4_31b": ("{A}<turn|>", CLOSED),
    "gemma4": ("{A}<turn|>", "<think>\n{R}\n</think>\n\n{A}<turn|>"),
    "gemma4_v2": ("{A}<turn|>", "<think>\n{R}\n</think>\n\n{A}<turn|>"),
    "gemma4_v3": ("{A}<turn|>", "<think>\n{R}\n</think>\n\n{A}<turn|>"),
    "gemma4_v4": ("{A}<turn|>", "<think>\n{R}\n</think>\n\n{A}<turn|>"),
    "gemma4_v5": ("{A}<turn|>", "<|channel>thought\n{R}\n<channel|>{A}<turn|>"),
    "gemma_training": ("{A}<end_of_turn>", "<think>\n{R}\n</think>\n\n{A}<end_of_turn>"),
    "glm4moe_training": ("\n<think></think>\n{A}<|user|>", "\n<think>{R}</think>\n{A}<|user|>"),
    "gptoss": (
        "<|channel|>final<|message|>{A}<|return|>",
        "<|channel|>analysis<|message|>{R}<|end|><|start|>assistant<|channel|>final<|message|>{A}<|return|>",
    ),
    "gptoss_training": (
        "<|channel|>final<|message|>{A}<|return|>",
        "<|channel|>analysis<|message|>{R}<|end|><|start|>assistant<|channel|>final<|message|>{A}<|return|>",
    ),
    "kimi_k2_thinking": ("<think></think>{A}<|im_end|>", LOST),
    "lfm2": ("{A}<|im_end|>", "<think>\n{R}\n</think>\n\n{A}<|im_end|>"),
    "lfm2_2_5": ("{A}<|im_end|>", "<think>{R}</think>{A}<|im_end|>"),
    "lfm2_2_5_v2": ("{A}<|im_end|>", "<think>{R}</think>{A}<|im_end|>"),
    "lfm2_2_5_vl": ("{A}<|im_end|>", "<think>{R}</think>{A}<|im_end|>"),
    "lfm2_training": ("{A}<|im_end|>", "<think>\n{R}\n</think>\n\n{A}<|im_end|>"),
    "lfm2_v2": ("{A}<|im_end|>", "<think>\n{R}\n</think>\n\n{A}<|im_end|>"),
    "lfm2_v2_training": ("{A}<|im_end|>", "<think>\n{R}\n</think>\n\n{A}<|im_end|>"),
    "llama3": ("{A}<|eot_id|>", "<think>\n{R}\n</think>\n\n{A}<|eot_id|>"),
    "llama3_1": ("{A}<|eot_id|>", "<think>\n{R}\n</think>\n\n{A}<|eot_id|>"),
    "llama3_2": ("{A}<|eot_id|>", "<think>\n{R}\n</think>\n\n{A}<|eot_id|>"),
    "llama3_training": ("{A}<|eot_id|>", "<think>\n{R}\n</think>\n\n{A}<|eot_id|>"),
    "mistral_nemo": ("{A}<eos>", "<think>\n{R}\n</think>\n\n{A}<eos>"),  # the system's text only before a last user's
    "muse_glimmer": (
        " to=user<|message|>{A}<|eot|>",
        " to=self<|message|>{R}<|eom|><|start|>assistant to=user<|message|>{A}<|eot|>",
    ),
    "muse_glimmer_training": (
        " to=user<|message|>{A}<|eot|>",
        " to=self<|message|>{R}<|eom|><|start|>assistant to=user<|message|>{A}<|eot|>",
    ),
    "nemotron_3_5_lightning": ("</think>{A}<|im_end|>", "{R}</think>{A}<|im_end|>"),
    "nemotron_3_5_lightning_training": ("</think>{A}<|im_end|>", "{R}</think>{A}<|im_end|>"),
    "nemotron_3_nano": ("</think>{A}<|im_end|>", "{R}\n</think>\n{A}<|im_end|>"),
    "nemotron_3_nano_training": ("</think>{A}<|im_end|>", "{R}\n</think>\n{A}<|im_end|>"),
    "nemotron_3_super": ("</think>{A}<|im_end|>", "{R}\n</think>\n{A}<|im_end|>"),
    "nemotron_3_super_training": ("</think>{A}<|im_end|>", "{R}\n</think>\n{A}<|im_end|>"),
    "nemotron_3_ultra": ("</think>{A}<|im_end|>", "{R}</think>{A}<|im_end|>"),
    "nemotron_3_ultra_training": ("</think>{A}<|im_end|>", "{R}</think>{A}<|im_end|>"),
    "nemotron_nano_v2": ("\n</think>\n\n{A}\n<SPECIAL_12>", "{R}\n</think>\n\n{A}\n<SPECIAL_12>"),
    "phi3": ("{A}<|end|>\n<eos>", "<think>\n{R}\n</think>\n\n{A}<|end|>\n<eos>"),
    "phi3_5": ("{A}<|end|>\n<eos>", "<think>\n{R}\n</think>\n\n{A}<|end|>\n<eos>"),
    "phi3_5_training": ("{A}<|end|>\n<eos>", "<think>\n{R}\n</think>\n\n{A}<|end|>\n<eos>"),
    "phi3_training": ("{A}<|end|>\n<eos>", "<think>\n{R}\n</think>\n\n{A}<|end|>\n<eos>"),
    "qwen2_5": ("{A}<|im_end|>", "<think>\n{R}\n</think>\n\n{A}<|im_end|>"),
    "qwen2_5_training": ("{A}<|im_end|>", "<think>\n{R}\n</think>\n\n{A}<|im_end|>"),
    "qwen2_5_vl": ("{A}<|im_end|>", "<think>\n{R}\n</think>\n\n{A}<|im_end|>"),
    "qwen2_5_vl_training": ("{A}<|im_end|>", "<think>\n{R}\n</think>\n\n{A}<|im_end|>"),
    "qwen3": ("<think>\n\n</think>\n\n{A}<|im_end|>", "<think>\n{R}\n</think>\n\n{A}<|im_end|>"),
    "qwen3_5_nothink": ("{A}<|im_end|>", CLOSED),
    "qwen3_5_nothink_training": ("{A}<|im_end|>", CLOSED),
    "qwen3_5_think": ("\n</think>\n\n{A}<|im_end|>", "{R}\n</think>\n\n{A}<|im_end|>"),
    "qwen3_5_think_training": ("\n</think>\n\n{A}<|im_end|>", "{R}\n</think>\n\n{A}<|im_end|>"),
    "qwen3_6": ("\n</think>\n\n{A}<|im_end|>", "{R}\n</think>\n\n{A}<|im_end|>"),
    "qwen3_6_training": ("\n</think>\n\n{A}<|im_end|>", "{R}\n</think>\n\n{A}<|im_end|>"),
    "qwen3_8": ("\n</think>\n\n{A}<|im_end|>", "{R}\n</think>\n\n{A}<|im_end|>"),
    "qwen3_8_training": ("\n</think>\n\n{A}<|im_end|>", "{R}\n</think>\n\n{A}<|im_end|>"),
    "qwen3_instruct_2507": ("{A}<|im_end|>", "<think>\n{R}\n</think>\n\n{A}<|im_end|>"),
    "qwen3_instruct_2507_training": ("{A}<|im_end|>", "<think>\n{R}\n</think>\n\n{A}<|im_end|>"),
    "qwen3_training": ("<think>\n\n</think>\n\n{A}<|im_end|>", "<think>\n{R}\n</think>\n\n{A}<|im_end|>"),
    "qwen3_vl": ("{A}<|im_end|>", "<think>\n{R}\n</think>\n\n{A}<|im_end|>"),
    "qwen3_vl_training": ("{A}<|im_end|>", "<think>\n{R}\n</think>\n\n{A}<|im_end|>"),
    "qwq": ("{A}<|im_end|>", CLOSED),
}

NO_TEXT = "the template drops the answer"  # these want a list of parts, and pass over plain text
REFUSED = {
    "glm4moe": "the template ends an answer with .*, not a special token",
    "glm_4_6": "the template ends an answer with .*, not a special token",
    "idefics3": NO_TEXT,
    "idefics3_training": NO_TEXT,
    "llava_next": "the template refuses the messages",
    "llava_next_training": "the template refuses the messages",
    "smolvlm": NO_TEXT,
    "smolvlm_training": NO_TEXT,
}
DATED = ("gptoss", "gptoss_training", "llama3_2", "muse_glimmer", "muse_glimmer_training")


OWN = {path.stem: path for path in (Path(__file__).parent / "chat_templates").glob("*.jinja")}  # that TRL does not ship
SHORT = (
    "<",
    ">",
    "|",
    "i",
    "d",
    "end",
    "id",
    "turn",
    "s",
    "im_end",
    "User",
    "_",
    "1",
    "e\n",
    " a",
)  # parts of what ends a turn


def template_of(name: str) -> str:
    return (OWN.get(name) or shipped_templates()[name]).read_text(encoding="utf-8")


def test_no_reasoning_follows_a_think_block_that_the_prompt_has_closed() -> None:
    """DeepSeek V3.1 and V4, which do not think unless they are told to, are prompted with the end of a block alone."""
    closing = CHATML.replace("assistant\n{% endif %}", "assistant\n</think>{% endif %}").replace(
        "\n{{ message['content'] }}",
        "\n{% if message['role'] == 'assistant' %}</think>{% endif %}{{ message['content'] }}",
    )
    tokenizer = chat_tokenizer(closing)
    row, template = filter_runs.sample("Where?", "Here."), Template(tokenizer)
    assert tokenizer.decode(template.render(row, reasoning=False).tokens).endswith("assistant\n</think>Here.<|im_end|>")
    with pytest.raises(Unfit, match=CLOSED):
        template.render(replace(row, reasoning="They say so."), reasoning=True)


def test_the_two_tables_name_every_template_in_trl_s_package() -> None:
    assert sorted([*ACCEPTED, *REFUSED]) == sorted([*shipped_templates(), *OWN])


@pytest.mark.parametrize("name", ACCEPTED)
def test_a_short_answer_is_not_mistaken_for_a_part_of_what_ends_the_turn(name: str) -> None:
    template = Template(chat_tokenizer(template_of(name)))
    for reasoning, wanted in zip((False, True), ACCEPTED[name], strict=True):
        for answer in SHORT if wanted not in (CLOSED, LOST) else ():
            row = template.render(filter_runs.sample("Which one?", answer, reasoning="Hm."), reasoning)
            said = template.decode(row.tokens[row.start :])
            assert "".join(said.split()) == "".join(wanted.replace("{A}", answer).replace("{R}", "Hm.").split())


@pytest.mark.parametrize("name", ACCEPTED)
def test_the_student_sees_the_whole_conversation_or_the_row_is_refused(name: str) -> None:
    template = Template(chat_tokenizer(template_of(name)))
    turns = [("system", "Be terse."), ("user", "FIRST?"), ("assistant", "That one."), ("user", "Which one? /no_think")]
    for first in (0, 1):
        prompt = [{"role": role, "content": text} for role, text in turns[first:]]
        try:
            row = template.render(replace(filter_runs.sample("Hm?", "Both."), prompt=prompt), reasoning=False)
        except Unfit as reason:
            assert name.startswith("gemma") and "System role not supported" in str(reason)
            continue
        given = template.decode(row.tokens[: row.start])
        assert all(text.removesuffix(" /no_think") in given for _, text in turns[first:])


@pytest.mark.parametrize("name", ACCEPTED)
def test_what_is_trained_follows_the_prompt_as_prompted_and_ends_the_turn(name: str) -> None:
    tokenizer = chat_tokenizer(template_of(name))
    template = Template(tokenizer)
    sample = filter_runs.sample("Which one?", "The bridge is shut.", reasoning="Hm.\n\nWhich?")
    for reasoning, wanted in zip((False, True), ACCEPTED[name], strict=True):
        if wanted in (CLOSED, LOST):
            with pytest.raises(Unfit, match=wanted):
                template.render(sample, reasoning)
            continue
        row = template.render(sample, reasoning)
        prompted = tokenizer.apply_chat_template(sample.prompt, add_generation_prompt=True, return_dict=True)["input_ids"]
        assert row.tokens[: row.start] == prompted
        said = template.decode(row.tokens[row.start :])
        assert said == wanted.replace("{A}", sample.text).replace("{R}", sample.reasoning or "")
        assert row.tokens[-1] == template.end_of_turn
    assert template.dated == (name in DATED)


@pytest.mark.parametrize("name", ACCEPTED)
def test_line_breaks_around_an_answer_are_no_reason_to_stop(name: str) -> None:
    template = Template(chat_tokenizer(template_of(name)))
    for answer in ("\nThe bridge.", "\n\nThe bridge.\n\n", "  The bridge.", "A\n\n\n\nB", "```\nx\n```\n"):
        row = template.render(filter_runs.sample("Which one?", answer), reasoning=False)
        assert answer.strip() in template.decode(row.tokens[row.start :])


@pytest.mark.parametrize("name", REFUSED)
def test_a_template_that_trains_something_else_is_refused_with_the_reason(name: str) -> None:
    with pytest.raises(UsageError, match=REFUSED[name]) as caught:
        Template(chat_tokenizer(template_of(name)))
    assert ("glm4moe_training" in caught.value.hint) == (name == "glm4moe")
    if (added := re.search(r"add (\{%.*%\}) to its end", caught.value.hint)) is not None:
        assert Template(chat_tokenizer(template_of(name) + added.group(1))).end == "<eos>"
    assert (added is not None) == (name == "glm_4_6")


# A template of each kind, trained with from end to end: added special tokens, an open think block, channels, two ends.
@pytest.mark.parametrize(
    "name", ["gemma3", "llama3_2", "phi3", "qwen3_5_think", "deepseek_r1_distill", "gptoss", "glm4moe_training"]
)
@pytest.mark.parametrize("reasoning", [False, True])
def test_a_student_with_this_template_is_trained(tmp_path: Path, name: str, reasoning: bool) -> None:
    folder = tiny_chat_model(tmp_path / "student", chat_tokenizer(template_of(name)))
    rows = [filter_runs.sample(f"Which one is number {n}?", f"\nNumber {n}.", reasoning="Hm.") for n in range(4)]
    run = filter_runs.filtered_run(tmp_path / "run", {"train.jsonl": rows, "validation.jsonl": rows[:1]})
    settings = TrainConfig(reasoning=reasoning, args={"max_steps": 1, "per_device_train_batch_size": 2})
    train(run, Recipe(student=StudentConfig(model=str(folder)), train=settings), Silent())
    manifest = run.manifest("train") or {}
    wanted = ACCEPTED[name][reasoning]
    assert manifest["example"]["trained"].replace("\n", "").replace(" ", "") == (
        wanted.replace("{A}", "Number0.").replace("{R}", "Hm.").replace("\n", "").replace(" ", "")
    )
    assert any("today's date" in note for note in manifest["notes"]) == (name in DATED)


@pytest.mark.parametrize("name", ACCEPTED)
def test_an_own_answer_that_was_cut_has_no_end_of_turn_in_its_pair(name: str) -> None:
    template = Template(chat_tokenizer(template_of(name)))
    before, _, after = ACCEPTED[name][0].partition("{A}")
    for finish_reason, end in (("stop", after), ("length", "")):
        own = Completion("p", "The bridge over the", finish_reason=finish_reason)
        pair = pair_of(filter_runs.sample("Which one?", "The bridge."), own, template, 1 << 20) or {}
        assert template.decode(pair["rejected_ids"]) == f"{before}The bridge over the{end}"
        assert template.decode(pair["chosen_ids"]) == f"{before}The bridge.{after}"
        room = len(pair["prompt_ids"]) + 9
        short = pair_of(filter_runs.sample("Which one?", "The bridge."), own, template, room) or {}
        assert short["rejected_ids"] == pair["rejected_ids"][:9], "no longer than a row may be"


@pytest.mark.parametrize("name", ["qwen2_5", "qwen3", "phi3", "glm4moe_training", "gemma4_31b", "mistral_nemo"])
def test_a_pair_is_trained_behind_the_prompt_as_prompted(tmp_path: Path, name: str) -> None:
    tokenizer = chat_tokenizer(template_of(name))
    folder = tiny_chat_model(tmp_path / "student", tokenizer)
    rows = [filter_runs.sample(f"Which one is number {n}?", f"Number {n}.") for n in range(2)]
    rows = [replace(row, prompt=[{"role": "system", "content": "Be brief."}, *row.prompt]) for row in rows]
    run = filter_runs.filtered_run(tmp_path / "run", {"train.jsonl": rows, "validation.jsonl": rows[:1]})
    trainer = trainer_of(run, Recipe(student=StudentConfig(model=str(folder)), train=TrainConfig(method="preference")))
    given = tokenizer.apply_chat_template(rows[0].prompt, add_generation_prompt=True, tokenize=False)
    before, _, after = ACCEPTED[name][0].partition("{A}")
    for dataset in (trainer.train_dataset, trainer.eval_dataset):
        prompt, chosen, rejected = (tokenizer.decode(dataset[0][f"{part}_ids"]) for part in ("prompt", "chosen", "rejected"))
        assert (prompt, chosen) == (given, f"{before}Number 0.{after}")
        assert rejected.startswith(before) and rejected != chosen


@pytest.mark.parametrize("name", ["qwen3_5_think", "deepseek_r1_distill", "nemotron_nano_v2"])
def test_a_student_that_only_thinks_has_no_pairs_of_an_answer_over_nothing(tmp_path: Path, name: str) -> None:
    folder = tiny_chat_model(tmp_path / "student", chat_tokenizer(template_of(name)))
    rows = [filter_runs.sample(f"Which one is number {n}?", f"Number {n}.") for n in range(2)]
    run = filter_runs.filtered_run(tmp_path / "run", {"train.jsonl": rows, "validation.jsonl": []})
    with pytest.raises(UsageError, match=r"own answer to each of 2 rows is empty: it is still thinking") as caught:
        train(run, Recipe(student=StudentConfig(model=str(folder)), train=TrainConfig(method="preference")), Silent())
    assert "enable_thinking = false" in caught.value.hint


def test_a_student_that_thinks_before_its_own_answers_is_mentioned() -> None:
    rows = [replace(filter_runs.sample("Where?", "Here."), id=name) for name in ("a", "b")]
    thinking, silent = Completion("a", content="There.", reasoning="Hm."), Completion("b", content="There.")
    assert "thinks before 1 of its 2 own answers" in str(thoughts_left_out(rows, {"a": thinking, "b": silent}))
    assert thoughts_left_out(rows[1:], {"b": silent}) is None
