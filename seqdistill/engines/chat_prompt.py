"""A request's messages as the tokens of a model's chat template, or the failure of a request that cannot be laid out so."""

from collections.abc import Mapping, Sequence
from typing import Any

from seqdistill.engines import Completion, Request
from seqdistill.errors import UsageError

REFUSED_ALL = 8  # from this many requests on, a template that refuses all of them is wrong for the task, not for a prompt


def prompt_tokens(
    tokenizer: Any, request: Request, options: Mapping[str, Any], longest: int, lead: str
) -> list[int] | Completion:
    """The prompt's token ids. `options` go to the chat template; `longest` is the model's limit for prompt and answer.

    An answer with a form (schema, choices) begins with its first token, so what a model writes before it, `lead`, is put
    into the prompt.

    What depends on the conversation is the request's failure: a template that refuses it ("template"), or too many tokens.
    """
    from jinja2 import TemplateError

    try:
        encoded = tokenizer.apply_chat_template(
            request.messages, add_generation_prompt=True, tokenize=True, return_dict=False, **options
        )
    except (TemplateError, TypeError, ValueError, KeyError) as error:
        said = str(error).strip() or type(error).__name__
        return Completion(request.id, error="template", message=f"the model's chat template refuses the messages: {said}")
    tokens = list(encoded)
    if request.has_form:
        tokens += tokenizer.encode(lead, add_special_tokens=False) if lead else []
    if len(tokens) + request.max_tokens > longest:
        return Completion(
            request.id,
            error="too long",
            message=f"{len(tokens)} prompt tokens + max_tokens {request.max_tokens} exceed the model's {longest}",
        )
    return tokens


def check_not_all_refused(what: str, encoded: Sequence[Any]) -> None:
    """Raises UsageError when a chat template refuses every one of many requests: said once, not once for each."""
    refusals = [one.message for one in encoded if isinstance(one, Completion) and one.error == "template"]
    if len(encoded) >= REFUSED_ALL and len(refusals) == len(encoded):
        raise UsageError(
            f"{what}: all {len(encoded)} requests fail, the first one so: {refusals[0]}",
            "change the task's template (many models take no system message), chat_template_kwargs, or the model",
        )
