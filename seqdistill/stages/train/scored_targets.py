"""`seqdistill targets RUN`: a local teacher scores the rows of filter, for texts that came without its log-probabilities.

Writes targets/targets.parquet, in the form of generate's logprobs.parquet. A teacher scores a text much faster than it writes
one. What a training makes of the targets is `methods`' matter. A teacher in transformers gives the normalisers with which
targets are exact at any temperature; vLLM gives the likeliest tokens alone, which are exact at temperature 1.
"""

import shutil
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from itertools import islice
from pathlib import Path
from typing import Any

from seqdistill.engines import take_size
from seqdistill.engines.chat_templates import set_defaults
from seqdistill.engines.generation_config import stop_ids
from seqdistill.engines.loading import default_device, load, longest_input
from seqdistill.engines.logits import log_normalizers
from seqdistill.engines.logprob_file import read_logprob_rows, write_logprob_rows
from seqdistill.engines.logprobs import TEMPERATURES, TokenLogprobs, by_ids, is_same_temperature
from seqdistill.engines.models import identity
from seqdistill.engines.vllm_offline import load_llm
from seqdistill.errors import UsageError
from seqdistill.progress import Progress
from seqdistill.recipe.tables import ModelConfig, Recipe
from seqdistill.records import Prompt, Sample, read_samples
from seqdistill.run_prompts import run_prompts, teacher_view, view_files
from seqdistill.runs import Run, StageRecord
from seqdistill.stages.train.rendering import Row, Template, Unfit

TOP = 20
BATCH_TOKENS = 8_192  # of padded rows in one forward pass
BATCH_SCORED = 1_024  # of these, tokens with a distribution over the whole vocabulary in memory
PART_ROWS = 256  # rows that are lost at most when the command is stopped


@dataclass(frozen=True)
class TargetsResult:
    """What was scored; `path` is targets.parquet."""

    rows: int
    tokens: int  # that were scored
    left_out: int  # rows too long for the teacher, or that its chat template cannot render
    seconds: float
    up_to_date: bool
    path: Path


def score_targets(run: Run, recipe: Recipe, top: int, model: str | None, progress: Progress) -> TargetsResult:
    """Scores each row's completion after the teacher's view of its prompt, and writes the `top` likeliest tokens.

    `model` is the teacher as files, where the recipe's is an endpoint. Raises UsageError for a teacher that is not files, or
    whose template cannot be scored with. Stopped and run again, it continues.
    """
    teacher = _local_teacher(recipe, model)
    _check_temperature(recipe, teacher)
    files = {name: run.need("filter", f"{name}.jsonl") for name in ("train", "validation")}
    settings = {"targets.top": top, "targets.teacher": identity(teacher), "train.reasoning": recipe.train.trains_reasoning}
    if teacher.engine == "vllm":
        settings["targets.engine"] = "vllm"
    with run.locked("targets"):
        record = StageRecord(run, "targets", settings, {**files, **view_files(run, recipe)})
        path, work = run.file("targets", "targets.parquet"), run.file("targets", ".work")
        if record.up_to_date():
            record.remove_work()
            return _result(run, up_to_date=True)
        if model is None and (others := len(recipe.teachers) - 1) > 0:
            progress.note(f"targets: {teacher.model} scores all rows, those of {others} other teachers too; --model chooses")
        samples = [sample for file in files.values() for sample in read_samples(file)]
        scorer: Scorer | VLLMScorer = VLLMScorer(teacher, top) if teacher.engine == "vllm" else Scorer(teacher, top)
        prompts = {prompt.id: prompt for prompt in run_prompts(run, recipe, progress)}
        rows, left_out = _rendered(samples, scorer, prompts, recipe.train.trains_reasoning)
        for name, reason in islice(left_out.items(), 1):
            progress.note(f"targets: {len(left_out)} of {len(samples)} rows cannot be scored, the first is {name!r}: {reason}")
        if not rows:
            raise UsageError(f"none of {len(samples)} rows can be scored", next(iter(left_out.values()), "see filter/"))
        _open_work(work, record.fingerprint)
        progress.start("scoring the rows", len(rows), "rows")
        parts = [
            _scored_file(work / f"{number:06}.parquet", rows[start : start + PART_ROWS], scorer, progress)
            for number, start in enumerate(range(0, len(rows), PART_ROWS))
        ]
        progress.end()
        scorer.close()
        with record.new_files() as new:
            write_logprob_rows(new / path.name, (row for part in parts for row in read_logprob_rows(part)))
        record.finish(
            {"targets.parquet": len(rows)},
            config=asdict(recipe),
            teacher={"name": teacher.model, "identity": identity(teacher), "engine": teacher.engine},
            counts={
                "rows": len(rows),
                "tokens": sum(len(row.tokens) - row.start for row in rows),
                "left_out": len(left_out),
            },
        )
        shutil.rmtree(work)
    return _result(run, up_to_date=False)


def _result(run: Run, *, up_to_date: bool) -> TargetsResult:
    manifest = run.manifest("targets") or {}
    path = run.file("targets", "targets.parquet")
    return TargetsResult(**manifest["counts"], seconds=manifest["seconds"], up_to_date=up_to_date, path=path)


def _local_teacher(recipe: Recipe, model: str | None) -> ModelConfig:
    """The teacher as files. Raises UsageError for none, and for an endpoint, which scores no text that it did not write."""
    teacher = recipe.teacher
    if model is not None:
        return replace(teacher, model=model, engine="transformers", revision=None)
    if not teacher.model:
        raise UsageError("no teacher is configured", "pass --model, or set model in the recipe's [teacher]")
    if teacher.engine == "openai":
        raise UsageError(
            f"the teacher {teacher.model!r} is an endpoint: it returns log-probabilities of what it writes, not of other texts",
            "`seqdistill generate RUN --logprobs 20` takes them as it writes; or pass the same model's files with --model",
        )
    return teacher


def _check_temperature(recipe: Recipe, teacher: ModelConfig) -> None:
    """Raises UsageError where the targets are wanted at a temperature at which this teacher's would not be exact."""
    config = recipe.train
    if config.method != "soft" or config.temperature == 1 or config.approximate:
        return
    if teacher.engine != "vllm" and not any(is_same_temperature(known, config.temperature) for known in TEMPERATURES):
        known = ", ".join(f"{known:g}" for known in TEMPERATURES)
        raise UsageError(
            f"[train] temperature = {config.temperature:g}: normalisers are stored at {known}",
            "set it to 1 or to one of these; approximate = true compares the likeliest tokens alone, at any temperature",
        )
    if teacher.engine == "vllm":
        raise UsageError(
            f"[train] temperature = {config.temperature:g} needs normalisers, and vLLM gives none: its targets are exact at 1",
            "set temperature = 1, or --teacher-engine transformers; approximate = true compares the likeliest tokens alone",
        )


def _rendered(
    samples: Sequence[Sample], scorer: "Scorer | VLLMScorer", prompts: Mapping[str, Prompt], reasoning: bool
) -> tuple[list[Row], dict[str, str]]:
    """(the rows as the teacher's tokens, longest first; by sample id, why others cannot be scored)."""
    template = Template(scorer.tokenizer, scorer.stops, of="teacher")
    rows, left_out = [], {}
    for sample in samples:
        try:
            row = template.render(replace(sample, prompt=teacher_view(sample, prompts)), reasoning)
            if len(row.tokens) > scorer.longest:
                raise Unfit(f"{len(row.tokens)} tokens, more than the teacher's {scorer.longest}")
            rows.append(row)
        except Unfit as reason:
            left_out[sample.id] = str(reason)
    return sorted(rows, key=lambda row: (-len(row.tokens), row.id)), left_out


# --- scoring --------------------------------------------------------------------------------------------------------------


class Scorer:
    """A local teacher that reads texts. Options of [teacher.options] that concern it: dtype, device."""

    def __init__(self, model: ModelConfig, top: int) -> None:
        """Loads the model. Raises UsageError for one that cannot be loaded."""

        self.tokenizer = load("AutoTokenizer", model)
        self._model = load("AutoModelForCausalLM", model, dtype=model.options.get("dtype", "auto"))
        set_defaults(self.tokenizer, model.chat_template_kwargs)
        self.stops = stop_ids(self._model.generation_config.eos_token_id)
        self._device = default_device(model.options)
        self._model.to(self._device).eval()
        self.longest: int = longest_input(self._model.config)
        self._top = min(top, self._model.config.get_text_config(decoder=True).vocab_size)

    def close(self) -> None:
        """Nothing is left running."""

    @staticmethod
    def batches(rows: Sequence[Row]) -> Iterator[Sequence[Row]]:
        """Rows that one forward pass reads; the longest come first."""
        batch: list[Row] = []
        for row in rows:
            scored = sum(len(one.tokens) - one.start for one in [*batch, row])
            if batch and ((len(batch) + 1) * len(batch[0].tokens) > BATCH_TOKENS or scored > BATCH_SCORED):
                yield batch
                batch = []
            batch.append(row)
        if batch:
            yield batch

    def score(self, rows: Sequence[Row]) -> Iterator[tuple[str, TokenLogprobs]]:
        """Each row's id and the log-probabilities of its trained tokens."""
        import torch

        width = max(len(row.tokens) for row in rows)
        tokens, mask = (torch.zeros(len(rows), width, dtype=torch.long) for _ in range(2))
        scored = torch.zeros(len(rows), width, dtype=torch.bool)  # the places whose next token is scored
        for number, row in enumerate(rows):
            length = len(row.tokens)
            tokens[number, :length] = torch.tensor(row.tokens)
            mask[number, :length] = 1
            scored[number, row.start - 1 : length - 1] = True
        scored = scored.to(self._device)
        hook = self._model.get_output_embeddings().register_forward_pre_hook(lambda _, hidden: hidden[0][scored])
        try:
            with torch.inference_mode():
                passed = {"input_ids": tokens.to(self._device), "attention_mask": mask.to(self._device)}
                logprobs = self._model(**passed, use_cache=False).logits.float().log_softmax(-1)  # (N, V)
        finally:
            hook.remove()
        answers = [row.tokens[row.start :] for row in rows]
        chosen = torch.tensor([token for answer in answers for token in answer], device=self._device)
        values = logprobs.gather(-1, chosen[:, None])[:, 0].tolist()
        top, normalizers = logprobs.topk(self._top), log_normalizers(logprobs).tolist()
        ids, top_values, at = top.indices.tolist(), top.values.tolist(), 0
        for row, answer in zip(rows, answers, strict=True):
            place = slice(at, at := at + len(answer))
            yield (
                row.id,
                TokenLogprobs(**by_ids(answer, values[place], ids[place], top_values[place], normalizers[place])),
            )


class VLLMScorer:
    """A teacher in vLLM that reads texts: its log-probabilities of a prompt's own tokens. [teacher.options] are vllm.LLM's."""

    def __init__(self, model: ModelConfig, top: int) -> None:
        """Loads the model. Raises MissingExtra without vLLM, UsageError for a model or an option that it does not take."""
        options = {"max_logprobs": max(top, 20), **model.options}
        take_size(options, "batch_size", 1)  # the engine's alone
        self._llm = load_llm(model, options)
        self.tokenizer: Any = self._llm.get_tokenizer()
        set_defaults(self.tokenizer, model.chat_template_kwargs)
        config = self._llm.model_config
        self.stops = stop_ids(config.try_get_generation_config().get("eos_token_id"))
        self.longest: int = config.max_model_len - 1  # vLLM writes one token more
        self._top = min(top, config.get_vocab_size())

    def score(self, rows: Sequence[Row]) -> Iterator[tuple[str, TokenLogprobs]]:
        """Each row's id and the log-probabilities of its trained tokens."""
        from vllm import SamplingParams

        sampling = SamplingParams(max_tokens=1, temperature=0.0, prompt_logprobs=self._top, detokenize=False)
        prompts = [{"prompt_token_ids": row.tokens} for row in rows]
        for row, output in zip(rows, self._llm.generate(prompts, sampling, use_tqdm=False), strict=True):
            places = output.prompt_logprobs[row.start :]
            answer = row.tokens[row.start :]
            ranked = [sorted(place.items(), key=lambda item: item[1].rank)[: self._top] for place in places]
            yield (
                row.id,
                TokenLogprobs(
                    **by_ids(
                        answer,
                        [place[token].logprob for place, token in zip(places, answer, strict=True)],
                        [[token for token, _ in place] for place in ranked],
                        [[found.logprob for _, found in place] for place in ranked],
                    )
                ),
            )

    def close(self) -> None:
        """Ends vLLM's worker processes."""
        self._llm.llm_engine.engine_core.shutdown()
        del self._llm

    @staticmethod
    def batches(rows: Sequence[Row]) -> Iterator[Sequence[Row]]:
        """All rows at once: vLLM makes its own batches."""
        yield rows


def _scored_file(path: Path, rows: Sequence[Row], scorer: "Scorer | VLLMScorer", progress: Progress) -> Path:
    """The file with some rows' scores; rows of a file that is there are not scored again."""
    if path.exists():
        progress.advance(len(rows))
        return path

    def scores() -> Iterator[tuple[str, TokenLogprobs]]:
        for batch in scorer.batches(rows):
            yield from scorer.score(batch)
            progress.advance(len(batch))

    write_logprob_rows(path, scores())
    return path


def _open_work(work: Path, owner: str) -> None:
    """Keeps the parts of an unfinished scoring with these settings and inputs, and removes any others."""
    note = work / "fingerprint"
    if not note.exists() or note.read_text(encoding="utf-8") != owner:
        shutil.rmtree(work, ignore_errors=True)
        work.mkdir(parents=True)
        note.write_text(owner, encoding="utf-8")
