"""One headless Chromium for all tests of pages."""

from collections.abc import Iterator

import pytest
from chromium import started
from selenium.webdriver import Chrome


@pytest.fixture(scope="session")
def chromium() -> Iterator[Chrome]:
    browser = started()
    yield browser
    browser.quit()
