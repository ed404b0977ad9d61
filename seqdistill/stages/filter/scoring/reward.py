"""The reward model: a Hugging Face sequence classifier with one output, run in batches, that scores each sample.

The conversation is laid out by the model's own chat template. Holds the model; does not choose.
"""

from collections.abc import Sequence
from typing import Any

from seqdistill.engines.loading import default_device, load, longest_input
from seqdistill.errors import UsageError
from seqdistill.recipe.tables import ModelConfig
from seqdistill.records import Sample

BATCH_SIZE = 16


class RewardModel:
    """A loaded reward model. Its scores have no fixed range: compare them within a prompt."""

    def __init__(self, source: str, batch_size: int = BATCH_SIZE) -> None:
        """Loads a hub id or folder. Raises UsageError for what is no reward model or has no chat template."""
        import torch

        model, what = ModelConfig(model=source), f"filter.score.reward_model = {source!r}"
        self._tokenizer = load("AutoTokenizer", model, what, padding_side="right")
        self._model = load("AutoModelForSequenceClassification", model, what)
        if self._model.config.num_labels != 1:
            raise UsageError(
                f"filter.score.reward_model = {source!r}: has {self._model.config.num_labels} outputs, a reward model has one",
                "use a sequence classifier with num_labels = 1",
            )
        if not self._tokenizer.chat_template:
            raise UsageError(f"filter.score.reward_model = {source!r}: has no chat template", "use a chat reward model")
        if self._tokenizer.pad_token is None:
            self._tokenizer.pad_token = self._tokenizer.eos_token
        if self._model.config.pad_token_id is None:
            self._model.config.pad_token_id = self._tokenizer.pad_token_id
        self._device = torch.device(default_device({}))
        self._model.to(self._device).eval()
        self._batch_size = batch_size
        self._longest: int = longest_input(self._model.config)

    def scores(self, samples: Sequence[Sample]) -> list[float | None]:
        """The reward of each sample, in their order; None for one too long for the model or refused by its chat template."""
        import torch

        encoded = [self._encode(sample) for sample in samples]
        scores: list[float | None] = [None] * len(samples)
        readable = [place for place, tokens in enumerate(encoded) if 0 < len(tokens) <= self._longest]
        readable.sort(key=lambda place: (len(encoded[place]), samples[place].id))
        for start in range(0, len(readable), self._batch_size):
            places = readable[start : start + self._batch_size]
            inputs: Any = self._tokenizer.pad({"input_ids": [encoded[place] for place in places]}, return_tensors="pt")
            with torch.inference_mode():
                rewards = self._model(**inputs.to(self._device)).logits[:, 0].float().tolist()  # (B, 1) -> (B,)
            for place, reward in zip(places, rewards, strict=True):
                scores[place] = reward if reward == reward else None  # NaN
        return scores

    def _encode(self, sample: Sample) -> list[int]:
        """The conversation's token ids; empty when the chat template rejects it (a system message, say)."""
        from jinja2 import TemplateError

        messages = [*sample.prompt, *sample.completion]
        try:
            return list(self._tokenizer.apply_chat_template(messages, tokenize=True, return_dict=True)["input_ids"])
        except TemplateError:
            return []
