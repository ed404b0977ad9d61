"""Conversations kept as trees of messages: the branch that was last seen, or every answer with the turns before it.

Knows where a node's parent and replies are. Does not know the messages of any program; OpenAssistant's messages one a line are
put together by `pairs`.
"""

from collections.abc import Iterator, Mapping
from typing import Any

from seqdistill.engines.replies import as_dict, objects
from seqdistill.stages.generate.recorded.exchange import Row


def branch_of(nodes: Mapping[str, Any], name: Any, parent: str) -> list[Row]:
    """The nodes of a tree from its root to the named one; `parent` is the key of a node's parent. Ends in a circle, too."""
    branch: list[Row] = []
    while (node := as_dict(nodes.get(str(name)))) and len(branch) <= len(nodes):
        branch.insert(0, node)
        name = node.get(parent)
    return branch


def tree_answers(row: Row) -> list[Row] | None:
    """Every answer in one of OpenAssistant's trees; of siblings with ranks all but the best are marked as bad."""
    root = row.get("prompt")
    if not isinstance(root, Mapping) or not isinstance(root.get("replies"), list):
        return None
    return list(_answers_below(root))


def _answers_below(root: Mapping[str, Any]) -> Iterator[Row]:
    waiting: list[tuple[Row, list[Row], bool]] = [(dict(root), [], True)]  # a node, the turns before it, whether it is good
    while waiting:
        node, before, good = waiting.pop()
        turn = {"role": node.get("role"), "content": node.get("text")}
        if before and node.get("role") == "assistant":
            yield {"prompt": before, "completion": [turn], "label": good, "model": node.get("model_name")}
        replies = [one for one in objects(node.get("replies")) if not one.get("deleted")]
        best = best_rank([one.get("rank") for one in replies])
        waiting += [(one, [*before, turn], best is None or one.get("rank") == best) for one in reversed(replies)]


def best_rank(ranks: list[Any]) -> float | None:
    """The least of the ranks that are known: the best of siblings."""
    return min((rank for rank in ranks if isinstance(rank, (int, float))), default=None)
