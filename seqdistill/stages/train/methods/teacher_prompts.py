"""A teacher that reads its own view of a prompt, with instructions that the student learns to do without.

Owns the teacher's tokens of each prompt, and their place before what the student wrote. Computes no loss.
"""

from collections.abc import Sequence
from typing import Any

from seqdistill.engines.chat_templates import set_defaults
from seqdistill.engines.loading import load, longest_input
from seqdistill.errors import UsageError
from seqdistill.records import Message
from seqdistill.run_prompts import run_prompts, teacher_view
from seqdistill.stages.train.methods import TrainingSetup
from seqdistill.stages.train.methods.targets import student_numbering

Prompts = dict[tuple[int, ...], list[int]]  # a prompt's tokens as the teacher reads it, by those that the student reads


def teacher_prompts(setup: TrainingSetup) -> Prompts:
    """Each prompt as the teacher reads it, in the student's numbering; empty where it reads what the student reads.

    Raises UsageError for a view that holds tokens which the student's vocabulary lacks.
    """
    known = {prompt.id: prompt for prompt in run_prompts(setup.run, setup.recipe, setup.progress)}
    samples = list({sample.prompt_id: sample for part in setup.fitting.values() for sample in part}.values())
    views = [teacher_view(sample, known) for sample in samples]
    if views == [sample.prompt for sample in samples]:
        return {}
    teacher = setup.recipe.teacher
    tokenizer = load("AutoTokenizer", teacher)
    set_defaults(tokenizer, teacher.chat_template_kwargs)
    numbering = student_numbering(setup.recipe, setup.tokenizer, setup.before_cuts)
    read = [numbering[tokens] for tokens in _tokens(tokenizer, views)]
    if lacking := sum((tokens < 0).any() for tokens in read):
        raise UsageError(
            f"[train] method = 'on_policy': the teacher reads {lacking} of {len(read)} prompts with instructions that hold "
            "tokens which the student's vocabulary lacks",
            "use a student with the whole vocabulary (vocabulary = 'all'), or method = 'soft'",
        )
    own = _tokens(setup.tokenizer, [sample.prompt for sample in samples])
    return {tuple(mine): tokens.tolist() for mine, tokens in zip(own, read, strict=True)}


def _tokens(tokenizer: Any, prompts: Sequence[list[Message]]) -> list[list[int]]:
    """The tokens of prompts, as TRL makes them."""
    rendered = tokenizer.apply_chat_template(list(prompts), add_generation_prompt=True, tokenize=True, return_dict=True)
    return list(rendered["input_ids"])


class OwnView:
    """Has a teacher read its own view of each prompt, wherever it is called with a batch of the student's."""

    def __init__(self, teacher: Any, prompts: Prompts, answer_tokens: int) -> None:
        """`answer_tokens`: the most that the student writes. Raises UsageError where that is too much for the teacher."""
        self._prompts, self._rows, self._width = prompts, list[list[int]](), 0
        longest, room = max(map(len, prompts.values())), longest_input(teacher.config)
        if longest + answer_tokens > room:
            raise UsageError(
                f"[train] method = 'on_policy': the teacher's longest prompt has {longest} tokens, and with {answer_tokens} of "
                f"an answer that is more than its context of {room}",
                "shorten the instructions in the task's template, or set max_completion_length in [train.args]",
            )
        teacher.base_model.register_forward_pre_hook(self._replaced, with_kwargs=True)

    def begin(self, inputs: dict[str, Any]) -> None:
        """Takes the prompts of a batch, which TRL calls the teacher with next."""
        rows = zip(inputs["prompt_ids"], inputs["prompt_mask"].bool(), strict=True)
        self._rows = [self._prompts[tuple(tokens[mask].tolist())] for tokens, mask in rows]
        self._width = inputs["completion_ids"].shape[1]

    def _replaced(self, _model: Any, args: Any, called: dict[str, Any]) -> Any:
        """The call with (B, P + C) tokens as one with the teacher's prompts, padded on the left, before the same answers."""
        import torch

        tokens, mask = called["input_ids"], called["attention_mask"]
        longest = max(map(len, self._rows))
        prompts, real = tokens.new_zeros(len(self._rows), longest), mask.new_zeros(len(self._rows), longest)
        for number, row in enumerate(self._rows):
            prompts[number, longest - len(row) :] = torch.tensor(row)
            real[number, longest - len(row) :] = 1
        answers = slice(tokens.shape[1] - self._width, None)
        replaced = {
            "input_ids": torch.cat([prompts, tokens[:, answers]], 1),
            "attention_mask": torch.cat([real, mask[:, answers]], 1),
        }
        return args, {**called, **replaced}
