"""The report in headless Chromium: no script but its own, search and filters, every width, dark, print, 10,000 items."""

import json
from collections.abc import Iterator
from pathlib import Path

import pytest
from chromium import contrast, opened, resized, started
from evaluated_runs import JUDGE, KINDS, evaluated_run, letters, read_scores
from selenium.webdriver import Chrome
from selenium.webdriver.common.by import By
from selenium.webdriver.common.keys import Keys
from selenium.webdriver.support.ui import Select, WebDriverWait

from seqdistill.runs import Run
from seqdistill.stages.evaluate.report.page import write_report

HOSTILE = (
    "</script><script>document.title='owned'</script><!-- <img src=x onerror=\"document.title='owned'\"> "
    "\u202eright to left\u202c \u2028 \x1b[31m \ud800 & done " + "w" * 3_000
)
LOG = [
    *({"step": step, "loss": 3 / step, "eval_loss": 2 / step if step % 10 == 0 else None} for step in range(1, 41)),
    {"step": 20, "generations": [{"id": "v1", "teacher": HOSTILE, "student": "the the", "finish_reason": "length"}]},
]
USD = {"student": 0.001, "base": 0.001, "teacher": 0.05, "ceiling": 0.05}


def page_of(run: Run, folder: Path) -> Path:
    rows = [json.loads(line) for line in run.file("eval", "predictions.jsonl").read_text(encoding="utf-8").split("\n") if line]
    write_report(folder / "report.html", run, read_scores(run), rows)
    return folder / "report.html"


@pytest.fixture(scope="module")
def page(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("letters")
    return page_of(letters(folder / "letters", 60, judge=JUDGE, usd=USD, log=LOG), folder)


@pytest.fixture(scope="module")
def hostile(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Whatever has a name or a text is hostile."""
    folder = tmp_path_factory.mktemp("hostile")
    named = HOSTILE.replace("\ud800", "")[:400]
    says = {
        "base": lambda n: HOSTILE,
        "student": lambda n: [*KINDS[:2], named][n % 3],
        "teacher": lambda n: KINDS[n % 2],
        "ceiling": lambda n: KINDS[n % 2],
    }
    more = {"choices": (*KINDS[:2], named), "slices": lambda n: [named, "s"][n % 2], "prompt": lambda n: f"{n} {HOSTILE}"}
    run = evaluated_run(folder / "</title><b>run", says, 24, judge={**JUDGE, "name": named}, log=LOG, **more)
    return page_of(run, folder)


@pytest.fixture
def browser(chromium: Chrome) -> Iterator[Chrome]:
    resized(chromium, 1280)
    chromium.get_log("browser")
    yield chromium
    chromium.get("about:blank")
    resized(chromium, 1280)


def severe(browser: Chrome) -> list[str]:
    return [entry["message"] for entry in browser.get_log("browser") if entry["level"] == "SEVERE"]


def shown(browser: Chrome) -> list[str]:
    script = "return [...document.querySelectorAll('#list .case .id')].map((one) => one.textContent)"
    return [str(name) for name in browser.execute_script(script)]


def found(browser: Chrome, text: str) -> None:
    WebDriverWait(browser, 20).until(lambda b: text in b.find_element(By.ID, "found").text, text)


def choose(browser: Chrome, name: str, value: str) -> None:
    Select(browser.find_element(By.ID, name)).select_by_value(value)


def test_what_models_wrote_never_runs_and_the_policy_stops_what_is_put_into_the_page(browser: Chrome, hostile: Path) -> None:
    opened(browser, hostile)
    found(browser, "24 of 24 items")
    assert severe(browser) == [] and "owned" not in browser.title
    assert browser.find_elements(By.CSS_SELECTOR, "img, iframe, main script, main style") == []
    assert "document.title='owned'" in browser.find_element(By.CSS_SELECTOR, "#list .answers").text
    text = hostile.read_text(encoding="utf-8")
    injected = hostile.with_name("injected.html")
    attack = "<script>document.title='owned'</script><img src=http://example.org/x onerror=\"document.title='owned'\">"
    injected.write_text(text.replace("<main>", f"<main>{attack}"), encoding="utf-8")
    opened(browser, injected)
    found(browser, "24 of 24 items")
    blocked = severe(browser)
    assert "owned" not in browser.title and len(blocked) >= 2 and all("Content Security Policy" in one for one in blocked)


def test_search_filters_and_order_find_items(browser: Chrome, page: Path) -> None:
    opened(browser, page)
    found(browser, "60 of 60 items")
    assert shown(browser) == [f"p{n}" for n in range(20)]
    search = browser.find_element(By.ID, "text")
    search.send_keys("LETTER 5", Keys.ENTER)
    found(browser, "11 of 60")
    assert shown(browser) == ["p5", *(f"p{n}" for n in range(50, 60))]
    choose(browser, "slice", "long")
    found(browser, "6 of 60")
    search.send_keys(" in no item")
    found(browser, "No item matches.")
    assert shown(browser) == []
    search.clear()
    search.send_keys(Keys.ENTER)
    choose(browser, "slice", "")
    choose(browser, "show", "regressed")
    found(browser, "6 of 60")
    choose(browser, "show", "")
    choose(browser, "order", "best")
    assert shown(browser)[0] not in {f"p{n}" for n in range(4, 60, 10)}
    choose(browser, "order", "worst")
    assert shown(browser)[0] in {f"p{n}" for n in range(4, 60, 10)}
    choose(browser, "order", "unsure")
    assert shown(browser)[0] == "p0", "the least confident"
    assert severe(browser) == []


def test_pages_turn_by_keyboard_and_words_that_differ_are_marked(browser: Chrome, page: Path) -> None:
    opened(browser, page)
    found(browser, "60 of 60 items")
    following = browser.find_element(By.ID, "following")
    following.send_keys(Keys.ENTER)
    assert shown(browser)[0] == "p20"
    following.send_keys(Keys.SPACE)
    assert shown(browser) == [f"p{n}" for n in range(40, 60)] and not following.is_enabled()
    browser.find_element(By.ID, "previous").send_keys(Keys.ENTER)
    assert shown(browser)[0] == "p20"


def test_marks_are_those_of_the_words_that_differ(browser: Chrome, tmp_path: Path) -> None:
    says = {
        "base": lambda n: "",
        "student": lambda n: "The bus halts at Mill Lane today.",
        "teacher": lambda n: "The bus stops at Mill Lane.",
        "ceiling": lambda n: "The bus stops at Mill Lane!",
    }
    opened(browser, page_of(evaluated_run(tmp_path / "run", says, 12, choices=()), tmp_path))
    found(browser, "12 of 12 items")
    student = browser.find_element(By.CSS_SELECTOR, "#list .student dd")
    marks = [(one.tag_name, one.text) for one in student.find_elements(By.CSS_SELECTOR, "ins, del")]
    assert marks == [("del", "stops"), ("ins", "halts"), ("del", "Lane."), ("ins", "Lane today.")]
    assert browser.find_element(By.CSS_SELECTOR, "#list .base dd").text == "nothing"


def test_without_a_script_the_first_items_are_a_list(page: Path) -> None:
    browser = started("--blink-settings=scriptEnabled=false")
    try:
        opened(browser, page)
        WebDriverWait(browser, 20).until(lambda _: len(browser.find_elements(By.CSS_SELECTOR, "#list .case")) == 20)
        assert not browser.find_element(By.ID, "find").is_displayed()
        assert "The first 20" in browser.find_element(By.ID, "found").text
    finally:
        browser.quit()


@pytest.mark.parametrize("width", [360, 768, 1280])
@pytest.mark.parametrize("name", ["page", "hostile"])
def test_nothing_is_cut_off_at_any_width(browser: Chrome, name: str, width: int, request: pytest.FixtureRequest) -> None:
    resized(browser, width)
    opened(browser, request.getfixturevalue(name))
    found(browser, " items")
    sizes = browser.execute_script("return [document.documentElement.scrollWidth, document.documentElement.clientWidth]")
    assert sizes[0] <= sizes[1] == width
    script = """
        return [...document.querySelectorAll("main *")]
            .filter((one) => !one.closest(".scroll, dd, svg") && one.getClientRects().length)
            .filter((one) => one.getBoundingClientRect().right > innerWidth + 0.5 || one.getBoundingClientRect().left < -0.5)
            .map((one) => one.tagName + "." + one.className)
    """
    assert browser.execute_script(script) == [], "what is wider scrolls inside its own frame"


@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_text_stands_out(browser: Chrome, page: Path, scheme: str) -> None:
    resized(browser, 1280, scheme)
    opened(browser, page)
    found(browser, " items")
    for selector in ("h1", "#list .answers dd", ".question .short"):
        assert contrast(browser, selector) >= 7, selector
    for selector in (
        ".note",
        ".badge",
        ".tag",
        ".chips li",
        "a",
        ".number span",
        ".asked dd",
        "#list .id",
        "ins",
        "del",
        "code",
    ):
        assert contrast(browser, selector) >= 4.5, selector


def test_it_prints_whole(browser: Chrome, page: Path) -> None:
    opened(browser, page)
    found(browser, " items")
    resized(browser, 800, "dark", "print")
    assert not browser.find_element(By.ID, "find").is_displayed()
    assert contrast(browser, "h1") >= 12, "black on white, also where the screen is dark"
    printed = browser.execute_cdp_cmd("Page.printToPDF", {"printBackground": True})["data"]
    assert len(printed) > 20_000


def test_ten_thousand_items_open_and_are_searched(browser: Chrome, tmp_path: Path) -> None:
    run = letters(tmp_path / "run", 40)
    rows = [json.loads(line) for line in run.file("eval", "predictions.jsonl").read_text().splitlines()]
    many = [{**row, "id": f"{row['id']}-{n}"} for n in range(250) for row in rows]
    write_report(tmp_path / "report.html", run, read_scores(run), many)
    assert (tmp_path / "report.html").stat().st_size < 10_000_000
    opened(browser, tmp_path / "report.html")
    found(browser, "10,000 of 10,000 items")
    assert browser.execute_script("return document.querySelectorAll('*').length") < 4_000, "a screen of items at a time"
    browser.find_element(By.ID, "text").send_keys("p39-249")
    found(browser, "1 of 10,000")
    assert shown(browser) == ["p39-249"]
