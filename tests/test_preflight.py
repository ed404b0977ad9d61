"""Preflight: what would go wrong silently or late in a training is found before its first step, and shown alone on demand."""

import json
import shutil
import signal
import subprocess
import sys
import time
from dataclasses import replace
from pathlib import Path
from typing import Any

import filter_runs
import pytest
from chat_tokenizers import chat_tokenizer, tiny_chat_model
from conftest import CHATML
from preflight_runs import ARGS, a_recipe, a_run, rows
from train_runs import trainer_of

from seqdistill.cli import main
from seqdistill.console import Console
from seqdistill.engines.chat_templates import shipped_templates
from seqdistill.errors import UsageError
from seqdistill.progress import Silent
from seqdistill.records import Sample
from seqdistill.show import show_preflight
from seqdistill.stages.train.measured import planned_steps, planned_validations
from seqdistill.stages.train.ready import check
from seqdistill.stages.train.rendering import Template, Unfit
from seqdistill.stages.train.stage import train


def edited(model: Path, folder: Path, file: str, **changes: Any) -> Path:
    """A copy of the model with other entries in one of its JSON files."""
    shutil.copytree(model, folder)
    path = folder / file
    content = json.loads(path.read_text()) if path.exists() else {}
    path.write_text(json.dumps({**content, **changes}))
    return folder


# --- the report -------------------------------------------------------------------------------------------------------


def test_preflight_alone_reports_and_trains_nothing(tiny_model: Path, tmp_path: Path) -> None:
    run = a_run(tmp_path / "run", [*rows(), filter_runs.sample("Long?", "word " * 300)])
    recipe = a_recipe(tiny_model, {"num_train_epochs": 3, "per_device_train_batch_size": 2, "max_length": 500}, unfit="drop")
    found = check(run, recipe, Silent())
    assert (found.rows, found.validation_rows, list(found.unfit.values())) == (4, 1, [1])
    assert (
        found.prompt_tokens.p50
        == found.prompt_tokens.most
        == len("<|im_start|>user\nWhich one is number 0?\n<|im_start|>assistant\n") - 22 + 1
    )
    assert found.completion_tokens.most == len("Number 0 is it.") + 1
    assert (found.end_of_turn, found.limit, found.packing_isolated) == ("<|im_end|>", 500, None)
    assert (found.method, found.same_template, found.reasoning_rows) == ({"name": "sequence"}, None, 0)
    assert 0 < found.largest_id < found.embeddings
    assert found.steps == 6
    assert found.seconds is not None and found.seconds > 0
    assert [row["trained"] for row in found.first_rows] == [f"Number {n} is it.<|im_end|>" for n in range(3)]
    assert sorted(path.name for path in run.file("train", "x").parent.iterdir()) == [".lock"]


def test_a_cut_student_is_checked_without_being_kept(tiny_model: Path, tmp_path: Path) -> None:
    run = a_run(tmp_path / "run")
    found = check(run, a_recipe("shrink:2", teacher=tiny_model), Silent())
    assert found.parameters < 40_000
    assert not run.file("train", "base").exists()
    assert not run.file("train", ".base.new").exists()


def test_the_predicted_steps_are_the_steps_done(tiny_model: Path, tmp_path: Path) -> None:
    for number, args in enumerate(
        [
            {"num_train_epochs": 2, "per_device_train_batch_size": 2, "gradient_accumulation_steps": 3},
            {"num_train_epochs": 0.4, "per_device_train_batch_size": 1},
            {"max_steps": 3, "per_device_train_batch_size": 4},
            {"num_train_epochs": 1, "per_device_train_batch_size": 3, "dataloader_drop_last": True},
        ]
    ):
        run = a_run(tmp_path / f"run{number}", rows(5))
        recipe = a_recipe(tiny_model, args)
        assert check(run, recipe, Silent()).steps == train(run, recipe, Silent()).steps, args


@pytest.mark.parametrize(
    "args",
    [
        {"num_train_epochs": 2},
        {"max_steps": 5, "eval_steps": 2},
        {"max_steps": 5, "eval_strategy": "steps", "eval_steps": 0.5},
        {"max_steps": 4, "eval_strategy": "no"},
        {"max_steps": 4, "eval_strategy": "epoch", "eval_on_start": True},
    ],
    ids=str,
)
def test_the_predicted_validations_are_those_done(tiny_model: Path, tmp_path: Path, args: dict[str, Any]) -> None:
    run, recipe = a_run(tmp_path, rows(5)), a_recipe(tiny_model, {"per_device_train_batch_size": 2, **args})
    trainer = trainer_of(run, recipe)
    planned = planned_validations(trainer, planned_steps(trainer))
    train(run, recipe, Silent())
    lines = [json.loads(line) for line in run.file("train", "log.jsonl").read_text().splitlines()]
    assert planned == sum(line["eval_loss"] is not None for line in lines)


def test_steps_and_memory_are_those_of_all_processes_and_models(tiny_model: Path, tmp_path: Path) -> None:
    args = {"num_train_epochs": 2, "per_device_train_batch_size": 2}
    alone, three = (
        check(a_run(tmp_path / f"{count}", rows(16)), a_recipe(tiny_model, args, processes=count), Silent()) for count in (1, 3)
    )
    assert (alone.steps, three.steps) == (16, 6), "three batches of 2 at a time"
    assert three.memory_bytes == 3 * alone.memory_bytes, "on a CPU they share it"
    found = [
        check(a_run(tmp_path / name, rows(16)), a_recipe("shrink:2", args, teacher=tiny_model, **terms), Silent())
        for name, terms in (("text", {}), ("features", {"features": 1.0}))
    ]
    from transformers import AutoModelForCausalLM

    teacher = 4 * AutoModelForCausalLM.from_pretrained(tiny_model).num_parameters()
    assert found[1].memory_bytes - found[0].memory_bytes == teacher


def test_packing_that_joins_no_rows_is_said_and_its_sequences_are_counted(tiny_model: Path, tmp_path: Path) -> None:
    packed = {**ARGS, "packing": True}
    found = [
        check(a_run(tmp_path / f"{number}", rows(16)), a_recipe(tiny_model, {**packed, **more}), Silent())
        for number, more in enumerate(({}, {"max_length": 500}))
    ]
    assert [one.packed_sequences for one in found] == [16, 2]
    assert ["raise max_length in" in " ".join(one.notes) for one in found] == [True, False]
    assert found[1].memory_bytes > 2 * found[0].memory_bytes, "a batch is of longer sequences"


def test_the_command_prints_the_report_or_one_json_object(
    tiny_model: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("NO_COLOR", "1")
    run = a_run(tmp_path / "run")
    command = ["train", str(run.path), "--student", str(tiny_model), "--set", "train.args.max_steps=2", "--preflight"]
    assert main(command) == 0
    assert not (run.path / "run.json").exists(), "a later command knows nothing of its flags"
    shown = capsys.readouterr().out
    assert ">>>Number 0 is it.<|im_end|><<<" in shown
    assert "preflight: ready to train" in shown
    for fact in ("clipped", "each row", "end of turn", "padding", "token ids", "chat template", "generation config", "memory"):
        assert f"\n  {fact} " in shown, fact
    monkeypatch.delenv("NO_COLOR")
    monkeypatch.setenv("FORCE_COLOR", "1")
    monkeypatch.setenv("TERM", "xterm")
    show_preflight(Console(), check(run, a_recipe(tiny_model), Silent()))
    coloured = capsys.readouterr().out
    assert "\x1b[1;32mNumber 0 is it.<|im_end|>\x1b[0m" in coloured and ">>>" not in coloured
    monkeypatch.setenv("NO_COLOR", "1")
    assert main([*command, "--json"]) == 0
    assert json.loads(capsys.readouterr().out)["steps"] == 2
    assert main([*command, "--set", "train.args.packing_strategy=wrapped", "--json"]) == 2
    assert json.loads(capsys.readouterr().out)["exit_code"] == 2
    assert run.manifest("train") is None


# --- what the model or its files have wrong ---------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("generation", "left_out"),
    [
        ({"temperature": 0.6}, ["temperature"]),
        ({"temperature": 0.6, "top_p": 0.9, "top_k": 20, "do_sample": False}, ["temperature", "top_p", "top_k"]),
        ({"temperature": 0.6, "do_sample": True}, []),
        ({"length_penalty": 0.5, "early_stopping": True}, ["length_penalty", "early_stopping"]),
    ],
)
def test_a_generation_config_that_cannot_be_saved_does_not_lose_the_training(
    tiny_model: Path, tmp_path: Path, generation: dict[str, Any], left_out: list[str]
) -> None:
    from transformers import GenerationConfig

    student = edited(tiny_model, tmp_path / "student", "generation_config.json", **generation)
    run = a_run(tmp_path / "run")
    result = train(run, a_recipe(student), Silent())
    saved = json.loads((result.path / "generation_config.json").read_text())
    assert all(saved[name] == value for name, value in generation.items() if name not in left_out)
    assert not set(left_out) & saved.keys()
    assert saved["eos_token_id"] == GenerationConfig.from_pretrained(tiny_model).eos_token_id
    assert bool((run.manifest("train") or {})["notes"]) == bool(left_out)


@pytest.mark.parametrize("at_load", [True, False])
def test_a_token_id_beyond_the_embedding_is_named(tmp_path: Path, at_load: bool) -> None:
    tokenizer = chat_tokenizer(CHATML)
    student = tiny_chat_model(tmp_path / "student", tokenizer)
    if at_load:
        tokenizer.add_special_tokens({"additional_special_tokens": ["<|end|>"]})
        tokenizer.chat_template = CHATML.replace("<|im_end|>", "<|end|>")
        tokenizer.save_pretrained(student)
    else:
        tokenizer.add_special_tokens({"pad_token": "<|fill|>"})
        tokenizer.save_pretrained(student)
    with pytest.raises(UsageError, match=r"gives '<\|(end|fill)\|>' the id \d+, but its model has embeddings for ids up to"):
        train(a_run(tmp_path / "run"), a_recipe(student), Silent())


def test_an_end_of_turn_that_only_the_generation_config_names_is_one(tmp_path: Path) -> None:
    template = CHATML.replace("<|im_end|>", "<end>")
    tokenizer = chat_tokenizer(template, special=False, more=("<end>",))
    with pytest.raises(UsageError, match="not a special token"):
        train(a_run(tmp_path / "run"), a_recipe(tiny_chat_model(tmp_path / "without", tokenizer)), Silent())
    stop = tokenizer.convert_tokens_to_ids("<end>")
    student = tiny_chat_model(tmp_path / "with", tokenizer, eos_token_id=[tokenizer.eos_token_id, stop])
    result = train(a_run(tmp_path / "run"), a_recipe(student), Silent())
    assert stop in json.loads((result.path / "generation_config.json").read_text())["eos_token_id"]


def test_a_row_ends_at_the_first_stop_behind_the_answer(tmp_path: Path) -> None:
    template = CHATML.replace("<|im_end|>\n{% endfor", "<|im_end|>\n{% endfor").replace(
        "{% if add_gen", "{% if not add_generation_prompt %}{{ eos_token }}{% endif %}{% if add_gen"
    )
    tokenizer = chat_tokenizer(template)
    stop = tokenizer.convert_tokens_to_ids("<|im_end|>")
    for name, stops, end in (("one", tokenizer.eos_token_id, "<|im_end|>\n<eos>"), ("both", [stop], "<|im_end|>")):
        student = tiny_chat_model(tmp_path / name, tokenizer, eos_token_id=stops)
        found = check(a_run(tmp_path / f"run-{name}"), a_recipe(student), Silent())
        assert found.first_rows[0]["trained"] == f"Number 0 is it.{end}"


# --- what the template does to some rows only ---------------------------------------------------------------------------

STRICT = CHATML.replace(
    "{% for", "{% if messages[0]['role'] == 'system' %}{{ raise_exception('no system role') }}{% endif %}{% for", 1
)


def with_system(text: str) -> Sample:
    prompt = [{"role": "system", "content": text}, {"role": "user", "content": "u"}]
    return replace(filter_runs.sample("x", "y"), prompt=prompt)


SILENT = CHATML.replace("{% for message in messages %}", "{% for message in messages if message['role'] != 'system' %}")


@pytest.mark.parametrize(("template", "text", "sees"), [(SILENT, "Be brief.", False), (CHATML, "Be brief.", True)])
@pytest.mark.parametrize("switch", ["", " /no_think", "/think\n"])
def test_what_the_template_leaves_out_of_the_prompt_is_found_but_for_switches(
    template: str, text: str, sees: bool, switch: str
) -> None:
    obeying = template.replace("message['content']", "message['content'].replace('/no_think', '').replace('/think', '')")
    row = with_system(switch + text if switch.endswith("\n") else text + switch)
    for one in (template, obeying):
        try:
            assert Template(chat_tokenizer(one)).render(row, reasoning=False).start > 0
        except Unfit as reason:
            assert not sees and "does not see the system's text" in str(reason)
        else:
            assert sees


@pytest.mark.parametrize(
    ("row", "reason"),
    [
        (filter_runs.sample("Hm?", "  \n"), "the answer is empty"),
        (filter_runs.sample("Hm?", "a<|im_end|>b"), "the answer holds control tokens"),
        (filter_runs.sample("Hm?", "word " * 300), "tokens, more than 1024"),
        (with_system("s"), "the template refuses the messages: no system role"),
    ],
)
def test_a_row_that_cannot_be_trained_on_is_named_and_can_be_left_out(tmp_path: Path, row: Sample, reason: str) -> None:
    student = tiny_chat_model(tmp_path / "student", chat_tokenizer(STRICT))
    run = a_run(tmp_path / "run", [*rows(), replace(row, id="odd")])
    with pytest.raises(UsageError, match=rf"1 of 6 rows .*'odd': .*{reason}") as caught:
        train(run, a_recipe(student), Silent())
    assert "--unfit drop" in caught.value.hint
    train(run, a_recipe(student, unfit="drop"), Silent())
    assert reason in (run.manifest("train") or {})["unfit"]["odd"]


def test_half_a_character_is_a_fault_of_its_row() -> None:
    template = Template(chat_tokenizer(CHATML))
    for row in (filter_runs.sample("Hm?", "a \ud83d b"), filter_runs.sample("Hm \ud83d?", "a")):
        with pytest.raises(Unfit, match="half a character"):
            template.render(row, reasoning=False)


def test_a_character_that_the_tokenizer_cannot_write_is_found(tmp_path: Path) -> None:
    from tokenizers import Tokenizer, models, pre_tokenizers
    from transformers import PreTrainedTokenizerFast

    words = {word: i for i, word in enumerate(("<unk>", "<|im_end|>", "<|im_start|>", "user", "assistant", "say", "yes", "."))}
    plain = Tokenizer(models.WordLevel(words, unk_token="<unk>"))
    plain.pre_tokenizer = pre_tokenizers.Whitespace()
    tokenizer = PreTrainedTokenizerFast(
        tokenizer_object=plain, unk_token="<unk>", eos_token="<|im_end|>", additional_special_tokens=["<|im_start|>"]
    )
    tokenizer.chat_template = CHATML
    student = tiny_chat_model(tmp_path / "student", tokenizer)
    with pytest.raises(UsageError, match="does not see the user's text"):
        train(a_run(tmp_path / "run"), a_recipe(student), Silent())


# --- which template ---------------------------------------------------------------------------------------------------


def test_a_configured_chat_template_and_its_variables_are_trained_with_and_saved(tiny_model: Path, tmp_path: Path) -> None:
    from transformers import AutoTokenizer

    run = a_run(tmp_path / "run")
    own = tmp_path / "own.jinja"
    own.write_text(CHATML.replace("assistant\n", "assistant{% if loud %} LOUD{% endif %}\n"))
    own.write_text("{% set loud = loud if loud is defined else false %}" + CHATML.replace("user", "user"))
    qwen = a_recipe(tiny_model, chat_template="qwen3", chat_template_kwargs={"enable_thinking": False})
    result = train(run, qwen, Silent())
    manifest = run.manifest("train") or {}
    assert manifest["example"]["given"].endswith("<|im_start|>assistant\n<think>\n\n</think>\n\n")
    assert manifest["example"]["trained"] == "Number 0 is it.<|im_end|>"
    saved = AutoTokenizer.from_pretrained(result.path)
    assert (
        saved.apply_chat_template(rows()[0].prompt, add_generation_prompt=True, tokenize=False) == manifest["example"]["given"]
    )
    assert train(run, qwen, Silent()).up_to_date
    assert not train(run, a_recipe(tiny_model, chat_template=str(own)), Silent()).up_to_date
    with pytest.raises(UsageError, match=r"chat_template = 'qwen33'.*did you mean 'qwen3'"):
        train(run, a_recipe(tiny_model, chat_template="qwen33"), Silent())
    with pytest.raises(UsageError, match="'enable thinking': not a variable's name"):
        train(run, a_recipe(tiny_model, chat_template_kwargs={"enable thinking": False}), Silent())


def test_a_template_that_differs_from_the_teacher_s_or_writes_the_date_is_mentioned(tiny_model: Path, tmp_path: Path) -> None:
    dated = "{{ mode }}{% if strftime_now is defined %}{{ strftime_now('%d %b %Y') }}{% endif %}" + CHATML
    student = tiny_chat_model(tmp_path / "student", chat_tokenizer(dated))
    found = check(a_run(tmp_path / "run"), a_recipe(student, teacher=tiny_model), Silent())
    assert any("writes today's date" in note for note in found.notes)
    assert any("teacher and student have different chat templates" in note for note in found.notes)
    with_mode = a_recipe(student, teacher=student, chat_template_kwargs={"mode": "quick"})
    with_mode = replace(with_mode, teacher=replace(with_mode.teacher, chat_template_kwargs={"mode": "quick"}))
    assert check(a_run(tmp_path / "mode"), with_mode, Silent()).same_template
    same = check(a_run(tmp_path / "same"), a_recipe(tiny_model, teacher=tiny_model), Silent())
    assert (same.notes, same.same_template, found.same_template) == ([], True, False)


@pytest.mark.parametrize("several", [False, True])
def test_the_variables_of_a_student_s_own_templates_are_trained_with_and_saved_for_everybody(
    tmp_path: Path, several: bool
) -> None:
    from transformers import AutoTokenizer

    qwen = shipped_templates()["qwen3"].read_text(encoding="utf-8")
    tokenizer = chat_tokenizer(qwen)
    if several:
        tokenizer.chat_template = {"default": qwen, "tool_use": qwen}
    student, run = tiny_chat_model(tmp_path / "student", tokenizer), a_run(tmp_path / "run")
    result = train(run, a_recipe(student, chat_template_kwargs={"enable_thinking": False}), Silent())
    given = (run.manifest("train") or {})["example"]["given"]
    assert given.endswith("<|im_start|>assistant\n<think>\n\n</think>\n\n")
    saved = AutoTokenizer.from_pretrained(result.path)
    assert saved.apply_chat_template(rows()[0].prompt, add_generation_prompt=True, tokenize=False) == given
    assert isinstance(saved.chat_template, dict) == several
    modes = {(part.is_dir(), part.stat().st_mode & 0o777) for part in result.path.rglob("*")}
    assert modes == ({(False, 0o644), (True, 0o755)} if several else {(False, 0o644)})


# --- packing ----------------------------------------------------------------------------------------------------------


def test_packed_rows_that_do_not_read_one_another_are_trained(tiny_model: Path, tmp_path: Path) -> None:
    found = check(a_run(tmp_path / "run"), a_recipe(tiny_model, {**ARGS, "packing": True, "max_length": 400}), Silent())
    assert found.packing_isolated is True


@pytest.mark.parametrize(
    "joining",
    [
        {"padding_free": True, "max_length": 500},
        {"shuffle_dataset": True},
        {"packing": True, "eval_packing": True},
        {"packing": True, "eval_packing": False},
    ],
)
def test_rows_in_one_sequence_are_trained_where_the_student_keeps_them_apart(
    tiny_model: Path, tmp_path: Path, joining: dict[str, Any]
) -> None:
    assert train(a_run(tmp_path / "run"), a_recipe(tiny_model, {**ARGS, **joining}), Silent()).steps == 2


def test_validation_rows_that_are_packed_into_padded_batches_are_refused(tiny_model: Path, tmp_path: Path) -> None:
    """No model keeps them apart then: they come with a mask of ones and without their places."""
    with pytest.raises(UsageError, match=r"\[train.args\] eval_packing: with this student, packed rows attend to one another"):
        check(a_run(tmp_path / "run"), a_recipe(tiny_model, {**ARGS, "eval_packing": True}), Silent())


@pytest.mark.parametrize(
    ("name", "joining"),
    [
        ("packing", {"packing": True, "max_length": 400}),
        ("padding_free", {"padding_free": True}),
        ("eval_packing", {"eval_packing": True, "max_length": 400}),
    ],
)
def test_packed_rows_that_read_one_another_are_refused(tmp_path: Path, name: str, joining: dict[str, Any]) -> None:
    import torch
    from transformers import Mamba2Config, Mamba2ForCausalLM

    tokenizer = chat_tokenizer(CHATML)
    torch.manual_seed(0)
    model = Mamba2ForCausalLM(
        Mamba2Config(
            vocab_size=len(tokenizer),
            hidden_size=16,
            num_heads=4,
            head_dim=8,
            state_size=8,
            n_groups=1,
            num_hidden_layers=2,
            chunk_size=8,
            initializer_range=0.3,
        )
    )
    model.save_pretrained(tmp_path / "student")
    tokenizer.save_pretrained(tmp_path / "student")
    with pytest.raises(UsageError, match=rf"\[train.args\] {name}: .* packed rows attend to one another"):
        check(a_run(tmp_path / "run"), a_recipe(tmp_path / "student", {**ARGS, **joining}), Silent())


# --- stopped by a signal ------------------------------------------------------------------------------------------------

COMMAND = """
import signal, sys, time
from pathlib import Path
from seqdistill.cli import main
from seqdistill.console import Console, open_streams
start, advance, steps = Console.start, Console.advance, [-1000]
def started(self, what, total, unit):
    start(self, what, total, unit)
    steps[0] = 0 if what.startswith("training") else -1000
def advanced(self, count=1, facts=None):
    advance(self, count, facts)
    steps[0] += count == 1
    if steps[0] == 5:
        steps[0] = -1000
        Path(sys.argv[1]).write_text("")
        while not Path(sys.argv[1] + ".sent").exists():  # so that it comes in the midst, however slow the machine
            time.sleep(0.01)
Console.start, Console.advance = started, advanced
signal.signal(signal.SIGINT, signal.default_int_handler)  # a shell's background job ignores it
open_streams()
sys.exit(main(sys.argv[2:]))
"""


def test_signals_save_the_step_and_the_training_resumes_there(tiny_model: Path, tmp_path: Path) -> None:
    args = ["max_steps=40", "per_device_train_batch_size=1", "learning_rate=0.01"]
    flags = [part for arg in args for part in ("--set", f"train.args.{arg}")]
    whole, stopped = (a_run(tmp_path / name, rows(16)) for name in ("whole", "stopped"))
    command = ["train", str(stopped.path), "--student", str(tiny_model), *flags]
    steps = []
    for number, code in ((signal.SIGINT, 130), (signal.SIGTERM, 1), (signal.SIGHUP, 1)):
        started = tmp_path / number.name
        process = subprocess.Popen(
            [sys.executable, "-c", COMMAND, str(started), *command], stderr=subprocess.PIPE, stdout=subprocess.PIPE, text=True
        )
        while not started.exists() and process.poll() is None:
            time.sleep(0.01)
        if number == signal.SIGHUP:  # its terminal is gone, as is a `tee` that the same Ctrl-C ended
            assert process.stderr is not None
            process.stderr.close()
        process.send_signal(number)
        Path(f"{started}.sent").write_text("")
        said = process.communicate()[1]
        assert process.returncode == code, said
        assert "stopping after step" in said or number == signal.SIGHUP
        (checkpoint,) = stopped.file("train", ".work").glob("checkpoint-*")
        steps.append(int(checkpoint.name.removeprefix("checkpoint-")))
        assert stopped.manifest("train") is None
    assert 0 < steps[0] < steps[1] < steps[2] < 40
    assert main([*command, "-q"]) == main(["train", str(whole.path), *command[2:], "-q"]) == 0
    for file in ("model/model.safetensors", "log.jsonl"):
        assert whole.file("train", file).read_bytes() == stopped.file("train", file).read_bytes()
