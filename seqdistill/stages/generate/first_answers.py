"""The first answers of each teacher, seen before the others are paid for: what they must have, only answers show.

Decides how many are seen, and when. What they must have is the caller's to say. Sends no requests.
"""

from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from typing import Any

from seqdistill.engines import Completion
from seqdistill.errors import SeqdistillError
from seqdistill.records import Sample
from seqdistill.stages.generate.plan import Planned
from seqdistill.stages.generate.samples import sample_of

TRIAL = 8  # answers of each teacher; a prompt's samples stay together, so that it may be a few more

Answered = tuple[Sample, Mapping[str, Any]]  # the sample, and the raw reply that it was read from
CheckFirst = Callable[[Sequence[Answered]], SeqdistillError | None]  # why none of these is of use; None: continue


class FirstAnswers:
    """Sees completions until each teacher has answered TRIAL times, then checks them once: `problem`."""

    def __init__(self, plan: Sequence[Planned], check: CheckFirst | None) -> None:
        """Without a check nothing is seen, and there is no problem."""
        self.problem: SeqdistillError | None = None
        self.trial = _trial(plan) if check else []  # what is requested before all else
        self._check, self._plan = check, plan
        self._seen: list[Answered] = []
        self._planned = {one.request.id: one for one in plan} if check else {}
        self._wanted = Counter(one.teacher.name for one in self.trial)

    @property
    def is_decided(self) -> bool:
        """Whether nothing more is to be seen."""
        return not self._wanted

    def see_known(self, answer: Callable[[Planned], Completion | None]) -> None:
        """Sees what `answer` has of the plan, as far as it is wanted."""
        for planned in self._plan:
            if self.is_decided:
                return
            if known := answer(planned):
                self.see(known)

    def see(self, completion: Completion) -> None:
        """Takes note of an answer; a failure says nothing of the teacher, nor does what a filter took."""
        if self.is_decided or completion.error is not None or completion.finish_reason == "content_filter":
            return
        planned = self._planned.get(completion.id)
        if planned is None or not self._wanted[planned.teacher.name]:
            return
        del self._planned[completion.id]
        self._seen.append((sample_of(planned, completion), completion.raw))
        self._wanted -= Counter([planned.teacher.name])
        if not self._wanted:
            self.decide()

    def decide(self) -> None:
        """Checks what was seen, also where it is less than was wanted."""
        self._wanted.clear()
        if self._check is not None and self._seen:
            self.problem = self._check(self._seen)
        self._seen.clear()


def _trial(plan: Sequence[Planned]) -> list[Planned]:
    """Each teacher's first prompts, with all their samples."""
    counts, last, chosen = Counter[str](), dict[str, str](), list[Planned]()
    for one in plan:
        name = one.teacher.name
        if counts[name] < TRIAL or last[name] == one.prompt.id:
            counts[name] += 1
            last[name] = one.prompt.id
            chosen.append(one)
    return chosen
