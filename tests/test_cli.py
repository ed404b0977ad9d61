"""The command line as a user meets it: help, exit codes, precedence, errors that name the place and the next action."""

import errno
import json
import os
import re
import subprocess
import sys
from pathlib import Path

import pytest
from filter_runs import make_run, sample
from full_disk import room_for

from seqdistill.cli import main
from seqdistill.cli.flags import passed_flags
from seqdistill.console import visible
from seqdistill.recipe.tables import TABLES, flag, settings_of
from seqdistill.runs import Run, StageRecord

HEAVY = ("torch", "transformers", "trl", "datasets", "vllm", "openai", "ray", "polars", "numpy", "pyarrow", "jinja2", "rich")


@pytest.mark.parametrize("argv", [["--help"], ["generate", "--help"], ["run", "--help"], ["--version"]])
def test_help_imports_none_of_the_heavy_packages(argv: list[str]) -> None:
    code = (
        "import sys\nfrom seqdistill.cli import main\n"
        f"code = main({argv!r})\n"
        f"print(sorted(set({HEAVY!r}) & set(sys.modules)), file=sys.stderr)\nsys.exit(code)"
    )
    answer = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert (answer.returncode, answer.stderr.strip()) == (0, "[]")


def shown(capsys: pytest.CaptureFixture[str], *argv: str) -> str:
    """What a command prints, run in this process."""
    capsys.readouterr()
    assert main(list(argv)) == 0
    return capsys.readouterr().out


def test_every_command_has_help_that_fits_80_columns(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("COLUMNS", "80")
    overview = shown(capsys, "--help")
    assert "..." not in overview.partition("Start here:")[2], "no sentence is cut"
    assert "Other commands" not in overview, "every command has a panel"
    commands = re.findall(r"^  ([a-z]+)  ", overview, re.MULTILINE)
    assert {"generate", "import", "filter", "train", "eval", "run", "shrink", "review"} <= set(commands)
    for page in (overview, *(shown(capsys, command, "-h") for command in commands)):
        assert max(map(len, page.splitlines())) <= 80


def test_the_examples_of_a_command_s_help_use_flags_that_it_has(capsys: pytest.CaptureFixture[str]) -> None:
    commands = re.findall(r"^  ([a-z]+)  ", shown(capsys, "--help"), re.MULTILINE)
    for command in commands:
        page, _, examples = shown(capsys, command, "-h").partition("Examples:\n")
        lines = examples.splitlines()
        assert lines and all(line.startswith(f"  seqdistill {command}") for line in lines), command
        known = set(re.findall(r"(?<= )--?[a-z][a-z-]*", page))
        assert set(re.findall(r"(?<= )--?[a-z][a-z-]*", examples)) <= known, command


def test_an_option_that_is_on_names_the_flag_that_turns_it_off(capsys: pytest.CaptureFixture[str]) -> None:
    page = " ".join(shown(capsys, "filter", "-h").split())
    assert "[on; off with --no-duplicates]" in page and "--duplicates / " not in page


@pytest.mark.parametrize(
    ("argv", "says"),
    [
        (["generat", "runs/x"], "No such command"),
        (["generate"], "Missing argument"),
        (["generate", "{tmp}/r", "--tempratur", "1"], "No such option"),
        (["generate", "{tmp}/r", "--temperature", "9"], "--temperature = 9.0: more than 5"),
        (["generate", "{tmp}/r", "--teacher-engine", "vlm"], "did you mean 'vllm'"),
        (["generate", "{tmp}/r", "-c", "{tmp}/none.toml"], "no such recipe"),
        (["generate", "{tmp}/r", "--set", "generate.sample=3"], "did you mean 'samples'"),
        (["filter", "{tmp}/r", "--near-duplicates-similarity", "9"], "--near-duplicates-similarity = 9.0: more than 1"),
        (["filter", "{tmp}/r", "--set", "filter.near_similarity=1"], "did you mean 'near_duplicates.similarity'"),
        (["generate", "{tmp}/r"], "--prompts"),
        (["filter", "{tmp}/r"], "seqdistill generate"),
        (["filter", "{tmp}/r"], "there is no run {tmp}/r: check the name, or run `seqdistill generate"),
        (["train", "{tmp}/r", "--student", "x/y"], "seqdistill filter"),
        (["eval", "{tmp}/r", "--margin", "5%"], "'5%' is not a number"),
        (["eval", "{tmp}/r", "--limit", "2.5"], "'2.5' is not a whole number"),
        (["eval", "{tmp}/r", "--shadow", "log.jsonl", "--compare", "{tmp}/o"], "--shadow with --compare"),
        (["eval", "{tmp}/r", "--shadow", "log.jsonl", "--markdown", "{tmp}/o.md"], "--shadow with --markdown"),
        (["eval", "{tmp}/r", "--shadow", "log.jsonl", "--margin", "3"], "--shadow with --margin"),
        (["eval", "{tmp}/r", "--compare", "{tmp}/o", "--target", "0.9"], "--compare with --target"),
        (["eval", "{tmp}/r", "--compare", "{tmp}/o", "--teacher", "gpt-5-mini"], "--compare with --teacher"),
        (["eval", "{tmp}/r", "--compare", "{tmp}/o", "--margin", "3"], "run `seqdistill eval"),
    ],
)
def test_wrong_use_exits_2_and_names_it(argv: list[str], says: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main([part.format(tmp=tmp_path) for part in argv]) == 2
    captured = capsys.readouterr()
    assert says.format(tmp=tmp_path) in captured.err
    assert captured.out == ""


def test_a_recipe_that_is_not_there_is_wrong_use_of_a_run_that_has_one_too(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "r").mkdir()
    (tmp_path / "r" / "recipe.toml").write_text("")
    assert main(["filter", str(tmp_path / "r"), "-c", str(tmp_path / "none.toml")]) == 2
    assert "none.toml: no such recipe" in capsys.readouterr().err


def test_a_failing_json_command_prints_exactly_one_object(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["filter", str(tmp_path / "r"), "--json"]) == 2
    answer = json.loads(capsys.readouterr().out)
    assert answer["exit_code"] == 2
    assert "seqdistill generate" in answer["next"]


def test_a_wrong_flag_with_json_prints_one_object_too(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    for words in (["generat"], ["generate", str(tmp_path / "r"), "--samples", "x"], ["filter"]):
        assert main([*words, "--json"]) == 2
        captured = capsys.readouterr()
        assert json.loads(captured.out)["exit_code"] == 2
        assert captured.err


def test_a_reader_that_leaves_ends_the_output_and_not_the_work(tmp_path: Path) -> None:
    rows = [{"prompt": "q", "completion": "an answer"}, {"prompt": "r", "completion": "cut <|im_end|>"}]
    (tmp_path / "rows.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    for words in ("import", "filter"):  # filter prints a table
        files = tmp_path / "rows.jsonl" if words == "import" else ""
        command = f"{sys.executable} -m seqdistill {words} {tmp_path / 'r'} {files} | head -1; exit ${{PIPESTATUS[0]}}"
        answer = subprocess.run(["bash", "-c", command], capture_output=True, text=True, check=False)
        assert (answer.returncode, "Traceback" in answer.stderr, "Broken" in answer.stderr) == (0, False, False)


@pytest.mark.parametrize(
    ("words", "stdout"),
    [
        ("init {} --json", "> /dev/full"),
        ("init {} --json", ">&-"),
        ("init {}", "> /dev/full"),
        ("init {}", ">&-"),
        ("status . --json", "> /dev/full"),  # which writes nothing
    ],
)
def test_a_stdout_that_takes_nothing_is_named_and_the_work_is_done(tmp_path: Path, words: str, stdout: str) -> None:
    command = f"{sys.executable} -m seqdistill {words.format(tmp_path / 'mine')} {stdout}"
    answer = subprocess.run(["bash", "-c", command], capture_output=True, text=True, check=False, cwd=tmp_path)
    assert "Traceback" not in answer.stderr and "Exception ignored" not in answer.stderr
    assert ("error: stdout: No space left on device" in answer.stderr) == ("full" in stdout)
    assert (tmp_path / "mine" / "recipe.toml").exists() or "init" not in words


def test_a_full_disk_names_the_run_and_exits_1(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def full(*_: object) -> None:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))  # as a write() says it: without a file name

    monkeypatch.setattr("seqdistill.stages.train.stage.train", full)
    assert main(["train", str(tmp_path / "r")]) == 1
    assert f"error: {tmp_path / 'r'}: No space left on device\n  next: free space" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("words", "room"),
    [
        ("filter {run}", 3_000),  # for the word pairs
        ("filter {run} --set filter.near_duplicates.scope=off", 3_000),  # for its rows
        ("filter {run} --set filter.near_duplicates.scope=off", 0),
        ("import {tmp}/other {tmp}/run/generate/samples.jsonl", 3_000),
        ("init {tmp}/mine", 500),
        ("init {tmp}/mine --from {tmp}/run/generate/samples.jsonl", 3_000),
    ],
)
def test_a_disk_that_fills_up_is_an_error_with_a_next_step(
    words: str, room: int, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    run = make_run(tmp_path / "run", [sample(f"Number {n}?", f"It is {n}, a number like all others.") for n in range(40)])
    with room_for(room):
        code = main([*words.format(run=run.path, tmp=tmp_path).split(), "--json"])
    printed = capsys.readouterr()
    assert code == json.loads(printed.out)["exit_code"] == 1
    assert re.search(r"error: .*: File too large\n  next: (free space|make room)", printed.err)


def test_a_wrong_value_in_the_recipe_is_the_files(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    recipe = tmp_path / "recipe.toml"
    recipe.write_text("[generate]\ntemperature = 'hot'\n")
    assert main(["generate", str(tmp_path / "r"), "-c", str(recipe)]) == 2
    assert f"{recipe}: [generate] temperature = 'hot'" in capsys.readouterr().err


def test_the_environment_lies_between_flag_and_recipe(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    recipe = tmp_path / "recipe.toml"
    recipe.write_text("[task]\nprompts = 'from-recipe.jsonl'\n")
    command = ["generate", str(tmp_path / "r"), "-c", str(recipe)]

    def prompts_named(*flags: str) -> str:
        assert main([*command, "--teacher", "x/y", "--teacher-engine", "openai", *flags]) == 2
        return capsys.readouterr().err

    assert "from-recipe.jsonl" in prompts_named()
    monkeypatch.setenv("SEQDISTILL_PROMPTS", "from-environment.jsonl")
    assert "from-environment.jsonl" in prompts_named()
    assert "from-flag.jsonl" in prompts_named("--prompts", "from-flag.jsonl")


@pytest.mark.parametrize("command", ["status", "show", "doctor"])
def test_what_tells_of_a_run_has_the_settings_of_the_environment_as_run_does(
    command: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr("seqdistill.doctor._packages", list)
    (tmp_path / "recipe.toml").write_text("[task]\nprompts = 'inside.jsonl'\n[teacher]\nmodel = './inside'\n")
    (tmp_path / "generate").mkdir()
    StageRecord(Run(tmp_path), "generate", {}, {}).finish({}, config={})
    monkeypatch.setenv("SEQDISTILL_TEACHER", "./outside")
    monkeypatch.setenv("SEQDISTILL_PROMPTS", "outside.jsonl")
    main([command, str(tmp_path), "--json"])
    said = capsys.readouterr().out
    assert "outside" in said and "inside" not in said


@pytest.mark.parametrize("as_json", [False, True])
@pytest.mark.parametrize(
    ("command", "variable", "value", "wrong"),
    [
        ("generate", "BUDGET", "abc", "= 'abc': expected a number"),
        ("generate", "BUDGET", "-1", "= -1: less than 0"),
        ("generate", "BUDGET", "nan", "= nan: not text, true, false or a finite number"),
        ("run", "BUDGET", "abc", "= 'abc': expected a number"),
        ("run", "SAMPLES", "1.5", "= '1.5': expected a whole number"),
        ("run", "STUDENT_PRICE", "3", ""),  # a table: no variable reaches it
        ("filter", "LIMIT", "0", "= 0: less than 1"),
        ("filter", "DUPLICATES", "perhaps", "= 'perhaps': expected true or false"),
        ("train", "LAYERS", "", ""),  # empty is unset
        ("eval", "MARGIN", "5%", "= '5%': expected a number"),
        ("serve", "BUDGET", "abc", "= 'abc': expected a number"),
        ("run", "BUGDET", "5", ": no such setting, did you mean SEQDISTILL_BUDGET?"),
        ("generate", "SAMPELS", "2", ": no such setting, did you mean SEQDISTILL_SAMPLES?"),
        ("filter", "TEACHER_API_KEY", "secret", ""),  # any name will do for a key
        ("generate", "TEACHER_ENGINE", "opnai", "= 'opnai', did you mean 'openai'?"),
    ],
)
def test_a_bad_variable_is_named_as_such_and_not_as_a_flag(
    command: str,
    variable: str,
    value: str,
    wrong: str,
    as_json: bool,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    monkeypatch.setenv(f"SEQDISTILL_{variable}", value)
    assert main([command, str(tmp_path / "r"), *(["--json"] if as_json else [])]) == 2
    printed = capsys.readouterr()
    expected = f"the environment variable SEQDISTILL_{variable}{'' if wrong.startswith(':') else ' '}{wrong}"
    assert (expected in " ".join(printed.err.split())) == bool(wrong)
    if as_json:
        assert json.loads(printed.out)["exit_code"] == 2


@pytest.mark.parametrize(
    ("variable", "text", "value"),
    [
        ("BUDGET", "3", 3.0),
        ("TEACHER_BASE_URL", "http://a/v1 http://b/v1", ["http://a/v1", "http://b/v1"]),
        ("BATCH", "1", True),
        ("BATCH", "off", False),
        ("TEACHER_TRUST_REMOTE_CODE", "true", True),
        ("SEED", "7", 7),
        ("TEACHER", "1.5", "1.5"),
    ],
)
def test_a_variable_is_read_as_its_flag_s_type(
    variable: str, text: str, value: object, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv(f"SEQDISTILL_{variable}", text)
    flags = passed_flags(("teacher", "generate"), {}, ())
    assert [found for table in flags.values() for found in table.values()] == [value]
    passed = passed_flags(("generate",), {"seed": 8}, ())
    assert passed["generate"]["seed"] == 8, "a flag overrides the variable"


def test_every_setting_is_a_flag_and_a_key_of_the_same_name(capsys: pytest.CaptureFixture[str]) -> None:
    page = "".join(shown(capsys, command, "-h") for command in ("generate", "filter", "train", "eval"))
    for table, kind in TABLES.items():
        for setting in settings_of(kind):
            if "dict" not in str(setting.kind):
                assert f"{flag(table, *setting.names)} " in page, f"[{table}] {'.'.join(setting.names)}"
    assert {"--temperature", "--teacher", "--teacher-engine", "--near-duplicates-similarity"} <= set(page.split())


def test_every_command_and_flag_in_the_readme_exists(capsys: pytest.CaptureFixture[str]) -> None:
    readme, _, _ = (Path(__file__).parents[1] / "README.md").read_text(encoding="utf-8").partition("## Benchmarks")
    commands = set(re.findall(r"^`?seqdistill ([a-z]+) +[A-Zrms]", readme.replace("`", "\n`"), re.MULTILINE))
    assert {"run", "generate", "shrink", "review"} <= commands
    assert {command: main([command, "-h"]) for command in commands} == dict.fromkeys(commands, 0)
    known = {"--help", *re.findall(r"--[a-z][a-z-]+", capsys.readouterr().out)}
    readme = re.sub(r"`(python tests|vllm|lm_eval)\b[^`]*`", "", readme)  # programs with flags of their own
    assert set(re.findall(r"(?<=[\s`])--[a-z][a-z-]+(?=[\s`])", readme)) <= known


def test_no_two_keys_of_a_command_have_one_flag() -> None:
    for tables in (("task", "teacher", "generate"), ("task", "filter", "judge"), ("task", "teacher", "student", "train")):
        flags = [flag(table, *setting.names) for table in tables for setting in settings_of(TABLES[table])]
        assert len(flags) == len(set(flags))


def test_a_terminal_never_obeys_a_models_text() -> None:
    assert visible("\x1b[2Jgone\x07\u202eabc\x9b1m\r") == "\\x1b[2Jgone\\x07\\u202eabc\\x9b1m\\r"
    assert visible("two\nlines\tand ü 漢") == "two\nlines\tand ü 漢"


def test_a_ctrl_c_before_the_command_begins_is_no_traceback(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def impatient(*_: object) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr("typer.main.get_params_from_function", impatient)  # while Typer reads what the commands take
    assert main(["status", "nowhere"]) == 130
    assert "interrupted" in capsys.readouterr().err
