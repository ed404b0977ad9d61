"""Headless Chromium as the tests of pages use it. Needs the packages chromium and chromium-driver of the system."""

import shutil
from pathlib import Path

from selenium.webdriver import Chrome, ChromeOptions, ChromeService

FLAGS = (
    *("--headless=new", "--no-sandbox", "--disable-gpu", "--disable-quic", "--disable-dev-shm-usage", "--no-first-run"),
    *(
        "--hide-scrollbars",
        "--disable-background-networking",
        "--disable-component-update",
        "--disable-sync",
        "--disable-default-apps",
    ),
)


def started(*flags: str) -> Chrome:
    """A browser; `quit` ends it."""
    binary, driver = shutil.which("chromium"), shutil.which("chromedriver")
    assert binary and driver, "apt-get install chromium chromium-driver"
    options = ChromeOptions()
    options.binary_location = binary
    options.set_capability("goog:loggingPrefs", {"browser": "ALL"})
    for flag in (*FLAGS, *flags):
        options.add_argument(flag)
    return Chrome(options=options, service=ChromeService(driver))


def resized(browser: Chrome, width: int, scheme: str = "light", media: str = "") -> None:
    """Shows pages as a window of this width does, light or dark, on a screen or in print."""
    size = {"width": width, "height": 800, "deviceScaleFactor": 1, "mobile": False}
    browser.execute_cdp_cmd("Emulation.setDeviceMetricsOverride", size)
    features = [{"name": "prefers-color-scheme", "value": scheme}]
    browser.execute_cdp_cmd("Emulation.setEmulatedMedia", {"media": media, "features": features})


def opened(browser: Chrome, page: Path) -> None:
    """Opens a file."""
    browser.get(page.absolute().as_uri())


def contrast(browser: Chrome, selector: str) -> float:
    """The WCAG contrast of an element's text with what is behind it."""
    script = """
        const color = (text) => text.match(/[\\d.]+/g).map(Number);
        const light = ([r, g, b]) => [r, g, b].map((c) => c / 255)
            .map((c) => (c <= 0.04045 ? c / 12.92 : ((c + 0.055) / 1.055) ** 2.4))
            .reduce((sum, c, n) => sum + c * [0.2126, 0.7152, 0.0722][n], 0);
        const element = document.querySelector(arguments[0]);
        let behind = element;
        while (color(getComputedStyle(behind).backgroundColor)[3] === 0 && behind.parentElement) behind = behind.parentElement;
        const ink = light(color(getComputedStyle(element).color));
        const paper = light(color(getComputedStyle(behind).backgroundColor));
        return (Math.max(ink, paper) + 0.05) / (Math.min(ink, paper) + 0.05);
    """
    return float(browser.execute_script(script, selector))
