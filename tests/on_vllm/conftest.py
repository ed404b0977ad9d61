"""Real vLLM, CPU build, on the embedded teacher. Run by `make test-vllm` in an environment of its own."""

import os
from collections.abc import Iterator

import pytest

os.environ.setdefault("VLLM_NO_USAGE_STATS", "1")


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    for item in items:
        item.add_marker(pytest.mark.filterwarnings("default"))  # vLLM's own warnings are not ours to fix


@pytest.fixture(scope="session")
def served(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """The base URL of a `vllm serve`."""
    from server import serving

    with serving(tmp_path_factory.mktemp("serve") / "log.txt") as url:
        yield url
