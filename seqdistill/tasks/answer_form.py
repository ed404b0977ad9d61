"""What form a task's answers must have: a JSON schema, or one of some choices; and what is wrong with a text that breaks it.

How a model is made to keep to the form is each engine's own business. Nothing is fetched: a schema's references must be
within it.
"""

import json
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from functools import cached_property
from typing import Any

from seqdistill.errors import UsageError

SHOWN = 200  # characters of a reason
DRAFTS = ("https://json-schema.org/", "http://json-schema.org/")  # jsonschema has them itself


@dataclass(frozen=True)
class AnswerForm:
    """A JSON schema (draft 2020-12 unless it names another), or choices. Without either every text is fine."""

    schema: Mapping[str, Any] = field(default_factory=dict)
    choices: tuple[str, ...] = ()

    def __bool__(self) -> bool:
        """Whether any form is required."""
        return bool(self.schema or self.choices)

    @property
    def kind(self) -> str:
        """The kind of a task's answers: "text", "choices" or "schema"."""
        return "choices" if self.choices else "schema" if self.schema else "text"

    def check(self) -> None:
        """Raises UsageError for both at once, an invalid schema, and choices that are empty, the same or never met."""
        if self.schema and self.choices:
            raise UsageError("[generate] has both schema and choices", "set one of them: choices are a schema of their own")
        if "" in self.choices or len(set(self.choices)) < len(self.choices):
            raise UsageError(
                f"[generate] choices = {list(self.choices)!r}: an empty or repeated choice", 'choices = ["yes", "no"]'
            )
        if padded := next((choice for choice in self.choices if choice != choice.strip()), None):
            raise UsageError(
                f"[generate] choices: {padded!r} begins or ends with white space, so no answer can meet it",
                f"write {padded.strip()!r}",
            )
        if self.schema and (fault := schema_fault(self.schema)):
            raise UsageError(f"[generate.schema]{fault}", "a JSON schema, see json-schema.org")

    def fault(self, text: str) -> str | None:
        """What is wrong with an answer, in words; None when it has the form. Raises UsageError for an unknown reference."""
        if self.choices:
            return None if text.strip() in self.choices else f"none of the {len(self.choices)} choices"
        if not self.schema:
            return None
        try:
            value = json.loads(text, parse_constant=_no_json)
        except ValueError as error:
            return f"not JSON: {error}"[:SHOWN]
        except RecursionError:
            return "JSON nested too deeply"
        return self._broken(value)

    def _broken(self, value: Any) -> str | None:
        from jsonschema.exceptions import best_match
        from referencing.exceptions import Unresolvable

        try:
            error = best_match(self._validator.iter_errors(value))
        except Unresolvable as unknown:
            raise UsageError(f"[generate.schema] refers to {unknown.ref!r}, which is not in it", "put it under $defs") from None
        except RecursionError:
            return "JSON nested too deeply"
        return None if error is None else f"{error.json_path}: {error.message}"[:SHOWN]

    @cached_property
    def _validator(self) -> Any:
        from referencing import Registry

        # an empty registry: the default one fetches over the network
        return _draft(self.schema)(self.schema, registry=Registry())


def schema_fault(schema: Mapping[str, Any]) -> str | None:
    """The first thing that is wrong with a JSON schema, after its place; None for one that answers can be checked with."""
    from jsonschema.exceptions import SchemaError

    try:
        _draft(schema).check_schema(schema)
    except SchemaError as error:
        return f"{error.json_path.removeprefix('$')}: {error.message[:SHOWN]}"
    except (AttributeError, TypeError, ValueError):
        return f".$schema: {schema.get('$schema')!r} is not the address of a draft"[:SHOWN]
    lost = next(_lost_references(schema), None)
    return None if lost is None else f" refers to {lost!r}, which is no schema in it: put it under $defs"


def _draft(schema: Mapping[str, Any]) -> Any:
    """The validator's class for the draft that a schema names; for an unknown one, that for the latest."""
    from jsonschema import Draft202012Validator
    from jsonschema.validators import validator_for

    return validator_for(schema, default=Draft202012Validator)


def _lost_references(schema: Mapping[str, Any]) -> Iterator[str]:
    """The references in a schema that lead to no schema: the check of an answer would fail at them."""
    from referencing import Registry
    from referencing.jsonschema import DRAFT202012, specification_with

    root = specification_with(schema.get("$schema", ""), default=DRAFT202012).create_resource(schema)
    found = [(root, Registry().resolver_with_root(root))]
    for resource, resolver in found:
        found += [(part, resolver.in_subresource(part)) for part in resource.subresources()]
        reference = resource.contents.get("$ref") if isinstance(resource.contents, Mapping) else None
        if isinstance(reference, str) and not _leads_to_schema(resolver, reference):
            yield reference


def _leads_to_schema(resolver: Any, reference: str) -> bool:
    from referencing.exceptions import Unresolvable

    try:
        return isinstance(resolver.lookup(reference).contents, (Mapping, bool))
    except Unresolvable:
        return reference.startswith(DRAFTS)
    except (LookupError, TypeError, ValueError):  # a path through what is no schema
        return False


def _no_json(word: str) -> Any:
    raise ValueError(f"{word} is no JSON value")
