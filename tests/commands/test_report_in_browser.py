"""A report as a browser shows it: at the width of a screen and of a phone, in light and dark colors."""

import json
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

import pytorch_lightning
from tests.commands.browser import PROGRAM, Browser
from tests.commands.test_report import HOSTILE, Showing, cut_twice, fitted, hostile_run, written

pytestmark = [pytest.mark.browser, pytest.mark.skipif(PROGRAM is None, reason="Chromium isn't installed")]

WIDTHS = pytest.mark.parametrize("width", [1400, 400])


@pytest.fixture(scope="module")
def browser() -> Iterator[Browser]:
    browser = Browser()
    yield browser
    browser.close()


@pytest.fixture(scope="module")
def reported(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, int]:
    """The page of three runs, of which one was killed twice and two have images and texts; its first resume."""
    folder = tmp_path_factory.mktemp("reported")
    cut, (first, _), _ = cut_twice(folder / "cut")
    others = [fitted(folder / str(i), Showing(lr=lr), max_nb_epochs=3) for i, lr in enumerate((0.1, 0.2))]
    return pytorch_lightning.report([cut, *others], folder / "report.html"), first


@pytest.fixture(scope="module")
def report(reported: tuple[Path, int]) -> Path:
    return reported[0]


SHOWN = """(place => [...place.querySelectorAll(".scatterlayer .trace")].filter(
    trace => [...trace.querySelectorAll("path.js-line")].some(line => line.getTotalLength() > 0)).length)
(document.querySelector('.chart[data-chart="%s"]'))"""


def chart_of(browser: Browser, column: str) -> int:
    """The number of the chart of a column."""
    number = "(e.nextSibling.dataset || {}).chart"
    found = browser.run(f"[...document.querySelectorAll('figcaption')].map(e => [e.firstChild.data, {number}])")
    return int(dict(found)[column])


def drawn(browser: Browser, column: str) -> int:
    """The number of a column's chart, once it is drawn and in the window."""
    number = chart_of(browser, column)
    browser.run(f"document.querySelector('.chart[data-chart=\"{number}\"]').scrollIntoView({{block: 'center'}})")
    browser.wait(f"document.querySelector('.chart[data-chart=\"{number}\"] .scatterlayer .trace') !== null")
    return number


def said_at(browser: Browser, number: int, step: float) -> str:
    """What a chart says where the mouse is at ``step``, in the middle of its height."""
    chart = f"document.querySelector('.chart[data-chart=\"{number}\"]')"
    x, y = browser.run(
        f"(({{_fullLayout: {{xaxis, yaxis}}}}, box) => [box.x + xaxis._offset + xaxis.d2p({step}),"
        f" box.y + yaxis._offset + yaxis._length / 2])({chart}, {chart}.getBoundingClientRect())"
    )
    browser.mouse("mouseMoved", x + 3, y)
    browser.mouse("mouseMoved", x, y)
    time.sleep(0.2)  # plotly waits before it looks again
    browser.mouse("mouseMoved", x, y + 1)
    return str(browser.wait(f"{chart}.querySelector('.hoverlayer').textContent"))


@WIDTHS
@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_curves_are_drawn_in_the_window_and_nothing_is_wrong(
    browser: Browser, report: Path, width: int, scheme: str
) -> None:
    browser.open(report, width, scheme=scheme)
    for column, nb_curves in (("tng_loss", 3), ("val_loss", 3), ("lr_0", 3), ("square", 1), ("twice", 2)):
        number = drawn(browser, column)
        assert browser.run(SHOWN % number) == nb_curves + 2, column  # the resumes are curves too
    browser.run("document.querySelectorAll('details').forEach(e => e.open = true)")
    browser.resize(width, browser.run("document.documentElement.scrollHeight"))
    browser.wait("document.querySelectorAll('.js-plotly-plot').length === document.querySelectorAll('.chart').length")
    # nothing is wider than the window, not even a chart
    assert browser.run("document.documentElement.scrollWidth") == width
    wide = "[...document.querySelectorAll('.chart, .chart svg, figure, section')].filter(e => e.getBoundingClientRect()"
    assert browser.run(f"{wide}.right > {width}).length") == 0
    assert browser.run("document.querySelectorAll('img').length") == browser.run(
        "[...document.images].filter(image => image.naturalWidth > 0).length"
    )
    # texts stand out from what is behind them
    color, behind = (
        browser.run(f"getComputedStyle(document.querySelector('{where}')).{what}.match(/\\d+/g).map(Number)")
        for where, what in ((".xtick text", "fill"), ("figure", "backgroundColor"))
    )
    assert contrast(color, behind) > 4.5
    assert (sum(behind) < 200) == (scheme == "dark")
    assert browser.complaints() == []


def contrast(*colors: list[int]) -> float:
    """The contrast of two colors as the WCAG defines it."""

    def luminance(color: list[int]) -> float:
        parts = [c / 255 / 12.92 if c <= 10 else ((c / 255 + 0.055) / 1.055) ** 2.4 for c in color]
        return 0.2126 * parts[0] + 0.7152 * parts[1] + 0.0722 * parts[2]

    dark, bright = sorted(map(luminance, colors))
    return (bright + 0.05) / (dark + 0.05)


@WIDTHS
def test_a_click_on_a_run_hides_its_curves_and_another_one_shows_them(
    browser: Browser, report: Path, width: int
) -> None:
    browser.open(report, width)
    loss = drawn(browser, "tng_loss")
    assert browser.run(SHOWN % loss) == 5
    browser.click("button[data-run='1']")
    browser.wait(lambda: browser.run(SHOWN % loss) == 4)
    assert browser.run("document.querySelector(\"button[data-run='1']\").getAttribute('aria-pressed')") == "false"
    browser.click("button[data-run='0']")  # with its resumes
    browser.wait(lambda: browser.run(SHOWN % loss) == 1)
    # a chart that is drawn later knows it
    assert browser.run(SHOWN % drawn(browser, "twice")) == 1
    browser.click("button[data-run='0']")
    browser.click("button[data-run='1']")
    browser.wait(lambda: browser.run(SHOWN % loss) == 5)
    browser.click("#log")
    browser.wait(f"document.querySelector('.chart[data-chart=\"{loss}\"]')._fullLayout.yaxis.type === 'log'")
    assert browser.complaints() == []


@WIDTHS
def test_a_resume_says_what_it_is_where_the_mouse_is_on_its_line(
    browser: Browser, reported: tuple[Path, int], width: int
) -> None:
    browser.open(reported[0], width)
    at = reported[1]
    said = said_at(browser, drawn(browser, "square"), at)
    assert f"resumed at {at}, " in said
    assert str(at**2) in said  # the curve there
    assert "resumed" not in said_at(browser, drawn(browser, "square"), 0)
    assert browser.complaints() == []


def test_texts_of_a_run_do_nothing(browser: Browser, tmp_path: Path) -> None:
    runs = [hostile_run(tmp_path / "a"), written(tmp_path / "b", {"global_step": [0, 1], "tng_loss": [1.0, 2.0]})]
    browser.open(pytorch_lightning.report(runs, tmp_path / "report.html"), 1400)
    number = drawn(browser, HOSTILE[:160])
    browser.run("document.querySelectorAll('details').forEach(e => e.open = true)")
    said = said_at(browser, number, 1).replace(" ", "")
    assert HOSTILE.replace(" ", "") in said  # the error of a start, in lines
    assert browser.run("typeof hacked") == "undefined"
    assert browser.run("document.querySelectorAll('main script, main a, svg a, svg image').length") == 0
    assert json.dumps(HOSTILE)[1:-1] in json.dumps(browser.run("document.body.innerText"))
    assert browser.complaints() == []
