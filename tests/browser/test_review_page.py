"""The review page as a person uses it, in headless Chromium: keys, editing, undo, search, narrow and dark, hostile text.

Needs the packages chromium and chromium-driver of the system (apt-get install chromium chromium-driver).
"""

from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import filter_runs
import pytest
from chromium import contrast
from filter_runs import filtered_run, rejected, reviewing
from selenium.webdriver import Chrome
from selenium.webdriver.common.action_chains import ActionChains
from selenium.webdriver.common.by import By
from selenium.webdriver.common.keys import Keys
from selenium.webdriver.remote.webelement import WebElement
from selenium.webdriver.support.ui import WebDriverWait

from seqdistill.decisions import decisions_file, read_decisions
from seqdistill.records import Sample
from seqdistill.review.page import Server
from seqdistill.runs import Run

HOSTILE = (
    "<img src=x onerror=\"document.title='owned'\"><script>document.title='owned'</script>\u202eright to left\x07</div> & done"
)


def sample(number: int, text: str) -> Sample:
    keys = {"reasoning": "thought", "reference": "The reference."}
    row = filter_runs.sample(f"Notice {number}: {text}?", text, id=f"p{number}:teacher:0", prompt_id=f"p{number}", **keys)
    return replace(row, prompt=[{"role": "system", "content": "Be brief."}, *row.prompt])


@pytest.fixture
def run(tmp_path: Path) -> Run:
    gone = [sample(number, f"Rejected answer {number}.") for number in range(3)]
    gone.append(sample(3, "As in the test set."))
    rules = ["stock_phrase", "near_duplicate", "finish_reason", "contamination"]
    better = [None, "p10:teacher:0", None, None]
    lines = [rejected(row, rule, f"why {rule}", kept_by) for row, rule, kept_by in zip(gone, rules, better, strict=True)]
    kept = [sample(10, HOSTILE), *(sample(number, f"Kept answer {number}.") for number in range(11, 119))]
    return filtered_run(tmp_path / "notices", {"rejected.jsonl": lines, "train.jsonl": kept, "validation.jsonl": []})


@pytest.fixture
def server(run: Run) -> Iterator[Server]:
    with reviewing(run) as made:
        yield made


class Page:
    """The page in the browser, as a person sees and uses it."""

    def __init__(self, browser: Chrome, server: Server, width: int = 1280) -> None:
        self.browser = browser
        browser.execute_cdp_cmd(
            "Emulation.setDeviceMetricsOverride", {"width": width, "height": 800, "deviceScaleFactor": 1, "mobile": False}
        )
        browser.get(server.url)
        self.until_place("1 / 113")

    def __getitem__(self, name: str) -> WebElement:
        return self.browser.find_element(By.ID, name)

    def press(self, *keys: str) -> None:
        ActionChains(self.browser).send_keys(*keys).perform()

    def until(self, name: str, text: str) -> None:
        WebDriverWait(self.browser, 20).until(lambda _: text in self[name].text, f"{name}: {text!r}, not {self[name].text!r}")

    def show_rejected(self) -> None:
        self["show"].find_element(By.CSS_SELECTOR, "option[value=rejected]").click()
        self.until_place("1 / 4")
        self.browser.execute_script("document.activeElement.blur()")

    def until_place(self, text: str) -> None:
        self.until("place", text)


@pytest.fixture
def page(chromium: Chrome, server: Server) -> Iterator[Page]:
    opened = Page(chromium, server)
    yield opened
    wrong = [entry for entry in chromium.get_log("browser") if entry["level"] == "SEVERE" and "favicon" not in entry["message"]]
    chromium.get("about:blank")  # or a request under way would be reported in the next test
    chromium.get_log("browser")
    assert wrong == []


def words(run: Run) -> dict[str, str]:
    return {name: decision.decision for name, decision in read_decisions(run).items()}


def test_a_row_shows_prompt_completion_reference_and_why(page: Page) -> None:
    assert page["outcome"].text == "Kept", "the page opens on what is trained on"
    page.show_rejected()
    assert page["outcome"].text == "Rejected"
    assert page["reason"].text == "stock_phrase: why stock_phrase"
    assert "Notice 0" in page["prompt"].text and "Be brief." in page["prompt"].text
    assert (page["completion"].text, page["reference"].text) == ("Rejected answer 0.", "The reference.")
    assert page["progress"].text == "0 of 4 reviewed"
    page.press("j")
    page.until("completion", "Rejected answer 1.")
    assert "right to left" in page["kept_text"].text


def test_decisions_by_key_are_written_and_move_on(page: Page, run: Run) -> None:
    page.press("a", "r", "j")
    page.until_place("4 / 113")
    page.until("progress", "2 of 113 reviewed")
    assert words(run) == {"p10:teacher:0": "accept", "p11:teacher:0": "reject"}
    page.press("k", "k")
    page.until("completion_name", "rejected by maria")
    page.press(Keys.ARROW_UP)
    page.until("completion_name", "accepted by maria")


def test_no_key_is_lost_however_fast(page: Page, run: Run) -> None:
    page.press(*"aaa", "j", *"ararararar")
    page.until("progress", "13 of 113 reviewed")
    assert len(words(run)) == 13


def test_an_edit_is_saved_with_ctrl_enter_and_left_with_escape(page: Page, run: Run) -> None:
    page.show_rejected()
    page.press("e")
    WebDriverWait(page.browser, 20).until(lambda _: page["editor"].is_displayed())
    page.press("nothing of this ", Keys.ESCAPE)
    WebDriverWait(page.browser, 20).until(lambda _: page["completion"].is_displayed())
    assert (page["completion"].text, words(run)) == ("Rejected answer 0.", {})
    page.press("e")
    WebDriverWait(page.browser, 20).until(lambda _: page["editor"].is_displayed())
    page["editor"].clear()
    page["editor"].send_keys("Closed.", Keys.ENTER, "Use Mill Lane.")
    page["accept"].click()
    page.until("said", "Save or cancel the edit first.")
    ActionChains(page.browser).click(page["editor"]).key_down(Keys.CONTROL).send_keys(Keys.ENTER).key_up(Keys.CONTROL).perform()
    page.until_place("2 / 4")
    assert read_decisions(run)["p0:teacher:0"].completion == "Closed.\nUse Mill Lane."
    page.press("k")
    page.until("completion", "Use Mill Lane.")
    assert page["teacher_text"].text == "Rejected answer 0."


def test_undo_brings_back_what_held_before(page: Page, run: Run) -> None:
    page.press("a", "k", "r")
    page.until("progress", "1 of 113 reviewed")
    page.until_place("2 / 113")
    assert words(run) == {"p10:teacher:0": "reject"}
    page.press("u")
    page.until("completion_name", "accepted")
    assert words(run) == {"p10:teacher:0": "accept"}
    page.press("u")
    page.until("progress", "0 of 113 reviewed")
    assert words(run) == {}
    assert len(decisions_file(run).read_text().splitlines()) == 4


def test_search_and_rule_narrow_the_rows(page: Page) -> None:
    page.press("/")
    page.press("kept ANSWER 11", Keys.ENTER)
    page.until_place("1 / 10")
    assert page["progress"].text == "0 of 10 reviewed"
    page["text"].clear()
    page["rule"].find_element(By.CSS_SELECTOR, "option[value=near_duplicate]").click()
    page["text"].send_keys(Keys.ENTER)
    page.until_place("1 / 1")
    assert page["completion"].text == "Rejected answer 1."
    page["text"].send_keys("in no row", Keys.ENTER)
    page.until("empty", "No rows match.")
    assert not page["accept"].is_enabled()


def test_rows_come_a_screen_at_a_time(page: Page) -> None:
    def listed() -> int:
        return len(page["list"].find_elements(By.TAG_NAME, "button"))

    assert listed() == 50
    page.press(*"j" * 50)
    page.until_place("51 / 113")
    assert listed() == 50
    page.press(*"j" * 70)
    page.until_place("113 / 113")
    assert listed() == 13


def test_what_a_model_wrote_is_text_and_nothing_else(page: Page) -> None:
    page.until("completion", "onerror")
    assert page["completion"].text == HOSTILE.replace("\u202e", "U+202E").replace("\x07", "U+0007")
    assert page.browser.title == "Review of notices"
    assert page.browser.find_elements(By.CSS_SELECTOR, "img, main script, iframe") == []


def test_what_is_in_the_test_set_can_only_be_rejected(page: Page, run: Run) -> None:
    page.show_rejected()
    page.press(*"jjj")
    page.until("reason", "Nobody overrules this rule.")
    assert [page[name].is_enabled() for name in ("accept", "edit", "reject")] == [False, False, True]
    page.press("a", "e")
    page.until_place("4 / 4")
    assert words(run) == {}


@pytest.mark.parametrize("width", [1280, 700, 400, 360])
@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_nothing_is_cut_off_and_text_stands_out_at_every_width(
    chromium: Chrome, server: Server, width: int, scheme: str
) -> None:
    chromium.execute_cdp_cmd("Emulation.setEmulatedMedia", {"features": [{"name": "prefers-color-scheme", "value": scheme}]})
    page = Page(chromium, server, width) if width > 640 else _narrow(chromium, server, width)
    sizes = chromium.execute_script("return [document.documentElement.scrollWidth, document.documentElement.clientWidth]")
    assert sizes[0] <= sizes[1] == width
    for name in ("accept", "reject", "undo", "next", "finish", "text"):
        box = page[name].rect
        assert box["x"] >= 0 and box["x"] + box["width"] <= width and box["y"] + box["height"] <= 800, name
    undo, previous = page["undo"].rect, page["previous"].rect
    beside = undo["x"] + undo["width"] <= previous["x"] or undo["y"] + undo["height"] <= previous["y"]
    assert beside, "Undo and Previous do not overlap"
    assert contrast(chromium, "#completion") >= 7 and contrast(chromium, "#reason") >= 4.5


def _narrow(chromium: Chrome, server: Server, width: int) -> Page:
    page = Page(chromium, server)
    chromium.execute_cdp_cmd(
        "Emulation.setDeviceMetricsOverride", {"width": width, "height": 800, "deviceScaleFactor": 1, "mobile": False}
    )
    return page


def test_finish_stops_the_server(page: Page, server: Server) -> None:
    page["finish"].click()
    WebDriverWait(page.browser, 20).until(lambda b: "Every decision is saved" in b.find_element(By.TAG_NAME, "body").text)
