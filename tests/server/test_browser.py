"""The review page in a real browser, down to the keys, on a phone and on a desk."""

import pytest

pytest.importorskip("fastapi", reason="needs the extra 'server'")

from web_pages import needs_chromium, open_chromium, serve_in_thread
from wrong_labels import WRONG

from transfer.server.app import create_app

TOKEN = "0123456789abcdef"
HOSTILE = '<img src=x onerror="window.hacked=1">'

pytestmark = needs_chromium


@pytest.fixture(scope="module")
def browser():
    with open_chromium() as opened:
        yield opened


@pytest.fixture
def address(review):
    with serve_in_thread(create_app(review, TOKEN)) as address:
        yield f"{address}{TOKEN}/"


class Tab:
    def __init__(self, browser, address, width):
        self.page = browser.new_page(viewport={"width": width, "height": 800})
        self.errors = []
        self.page.on("pageerror", lambda error: self.errors.append(str(error)))
        self.page.on("console", lambda line: self.errors.append(line.text) if line.type == "error" else None)
        self.page.goto(address)
        self.wait("state !== null")

    def wait(self, expression):
        """Wait until JavaScript is true; the page's policy forbids playwright's own way."""
        for _ in range(1000):
            if self.page.evaluate(expression):
                return
            self.page.wait_for_timeout(10)
        raise AssertionError(f"never true: {expression}")

    def press(self, *keys):
        for key in keys:
            self.page.keyboard.press(key)
            self.wait("!busy")

    def text(self, name):
        return self.page.locator(f"#{name}").inner_text()


@pytest.fixture(params=[390, 1280])
def tab(browser, address, request):
    tab = Tab(browser, address, request.param)
    yield tab
    tab.page.close()
    assert tab.errors == []


def lines(review):
    return [(review.paths.index(each.path), each.action, each.new) for each in review.file.read()]


def test_a_review_by_keys(tab, review, images):
    """The three wrong labels by their likeliest class; then accept, exclude, undo, type a name, and the next round."""
    first, second, third, *more = review.queue
    true = {row: images.objects[images.object[row]] for row in WRONG}
    assert tab.text("label") == review.given[first]
    tab.press("1", "1", "1")
    assert lines(review) == [(row, "relabel", true[row]) for row in (first, second, third)]
    tab.press("ArrowLeft") if not more else None
    tab.press("ArrowLeft", "ArrowLeft", "ArrowLeft", "ArrowLeft", "ArrowLeft")
    assert tab.text("place").startswith("1 /")
    assert tab.text("label") == true[first]
    assert "was" in tab.text("decision")
    tab.press("u")
    assert lines(review)[-1] == (first, "undo", "")
    assert tab.text("label") == review.given[first]
    tab.press("x")
    assert lines(review)[-1] == (first, "exclude", "")
    tab.press("ArrowLeft", "Enter")
    assert lines(review)[-1] == (first, "accept", review.given[first])
    tab.press("ArrowLeft", "r")
    tab.page.keyboard.type(true[first][:2])
    tab.press("Enter")
    assert lines(review)[-1] == (first, "relabel", true[first])
    tab.press("ArrowLeft", "r")
    tab.page.keyboard.type("Something new")
    tab.press("Enter")
    assert "Shift+Enter" in tab.text("message")
    tab.press("Shift+Enter")
    assert lines(review)[-1] == (first, "relabel", "Something new")
    tab.press("Control+z")
    assert lines(review)[-1] == (first, "undo", "")
    tab.press("n")
    assert tab.text("progress").startswith("round 2:")
    assert review.round == 2


def test_everything_can_be_done_by_touch_within_the_width(tab, review):
    first, second = review.queue[:2]
    tab.page.click("#exclude")
    tab.wait("!busy && at === 1")
    tab.page.click("#likely button >> nth=0")
    tab.wait("!busy")
    tab.page.click("#undo")
    tab.wait("!busy")
    actions = [(row, action) for row, action, _ in lines(review)]
    assert actions[:2] == [(first, "exclude"), (second, "relabel")]
    assert actions[2][1] == "undo"
    width = tab.page.viewport_size["width"]
    assert tab.page.evaluate("document.documentElement.scrollWidth") <= width
    for name in ("accept", "exclude", "undo", "next", "back", "rank"):
        box = tab.page.locator(f"#{name}").bounding_box()
        assert box["x"] >= 0
        assert box["x"] + box["width"] <= width


def test_a_key_after_a_click_does_not_repeat_the_click(tab, review):
    tab.page.click("#exclude")
    tab.wait("!busy && at === 1")
    tab.press("Enter")
    assert [action for _, action, _ in lines(review)] == ["exclude", "accept"]


def test_two_tabs_lose_no_decision(browser, address, review):
    one, two = Tab(browser, address, 1280), Tab(browser, address, 1280)
    one.press("x")
    two.press("1")  # the same image: the other tab was first
    assert "another tab" in two.text("message")
    assert two.page.evaluate("at") == 0
    assert [action for _, action, _ in lines(review)] == ["exclude"]
    two.press("1", "1")
    one.press("a")  # the second image: now this tab is behind
    assert "another tab" in one.text("message")
    assert [action for _, action, _ in lines(review)] == ["exclude", "relabel", "relabel"]
    one.page.close()
    two.page.close()


def test_a_tab_that_is_opened_again_resumes(browser, address, review):
    Tab(browser, address, 390).press("x")
    again = Tab(browser, address, 390)
    assert again.text("place").startswith("2 /")
    assert "1 of" in again.text("progress")
    again.page.close()


def test_hostile_names_are_text(browser, address, review):
    review.paths[review.queue[0]] += HOSTILE
    review.decide(review.queue[0], "relabel", HOSTILE, seen=0)
    tab = Tab(browser, address, 390)
    tab.press("ArrowLeft", "ArrowLeft", "r")
    tab.page.keyboard.type("img")
    tab.wait("document.querySelectorAll('#matches button').length === 1")
    assert tab.text("matches") == HOSTILE
    assert tab.page.evaluate("window.hacked") is None
    assert tab.page.evaluate("document.querySelectorAll('img').length") == 1
    assert tab.errors == []
    tab.page.close()


def test_pictures_are_shown(tab):
    tab.wait("document.getElementById('image').naturalWidth === 32")
