"""The page in a browser: by mouse, by keyboard, in the dark, and without a network."""

from __future__ import annotations

import json
import shutil
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from bench.report.publish import publish
from tests.analysis.rows_as_read import boundaries_of, boundary, cases_of, fits, oom

pytestmark = pytest.mark.browser

_FLAGS = ("--headless=new", "--no-sandbox", "--disable-gpu", "--no-first-run", "--disable-background-networking")
_FLAGS += ("--disable-component-update", "--disable-sync")
_REAL = {"device_kind": "cuda", "device_name": "NVIDIA L4", "device_uuid": "GPU-123456"}


@pytest.fixture(scope="module")
def driver(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Any]:
    """A browser with a profile of its own."""
    webdriver = pytest.importorskip("selenium.webdriver", reason="needs selenium (pip install vram-bench[dev])")
    browser, chromedriver = shutil.which("chromium"), shutil.which("chromedriver")
    if browser is None or chromedriver is None:
        pytest.skip("needs chromium and chromedriver (apt-get install chromium chromium-driver)")
    options = webdriver.ChromeOptions()
    options.binary_location = browser
    for flag in (*_FLAGS, f"--user-data-dir={tmp_path_factory.mktemp('profile')}"):
        options.add_argument(flag)
    options.set_capability("goog:loggingPrefs", {"browser": "ALL", "performance": "ALL"})
    started = webdriver.Chrome(options=options, service=webdriver.ChromeService(chromedriver))
    yield started
    started.quit()


@pytest.fixture(scope="module")
def file(tmp_path_factory: pytest.TempPathFactory) -> str:
    """A page of a simulated and a real card, with boundaries, cases that fit and cases that do not."""
    cases = [
        (fits if bpw * n < 2**16 else oom)(n, bpw=bpw, cache=cache, **card)
        for card in ({}, _REAL)
        for bpw in (2.5, 4.0)
        for cache in ("FP16", "Q4")
        for n in (4096, 8192, 16384, 32768)
    ]
    found = [boundary(n, bpw=bpw, cache=cache) for bpw, cache, n in ((2.5, "FP16", 20480), (4.0, "FP16", 15360))]
    found += [boundary(n, bpw=bpw, cache="Q4") for bpw, n in ((2.5, 65536), (4.0, None))]
    folder = tmp_path_factory.mktemp("report")
    files = publish(cases_of(*cases), boundaries_of(*found), folder, echo=False, plots=False).files
    return files[-1].as_uri()


@pytest.fixture
def page(driver: Any, file: str) -> Any:
    """The page, just opened in light colours, with every log before it forgotten."""
    _look(driver, "light", 1400)
    driver.get("about:blank")
    driver.get_log("browser")
    driver.get_log("performance")
    driver.get(file)
    _until(lambda: driver.find_elements("css selector", "#case-table tbody tr"))
    return driver


def _look(driver: Any, scheme: str, width: int) -> None:
    scheme_feature = [
        {"name": "prefers-color-scheme", "value": scheme},
        {"name": "prefers-reduced-motion", "value": "reduce"},
    ]
    driver.execute_cdp_cmd("Emulation.setEmulatedMedia", {"features": scheme_feature})
    size = {"width": width, "height": 900, "deviceScaleFactor": 1, "mobile": False}
    driver.execute_cdp_cmd("Emulation.setDeviceMetricsOverride", size)


def _until(holds: Callable[[], Any], seconds: float = 20) -> Any:
    end = time.monotonic() + seconds
    while not (value := holds()):
        assert time.monotonic() < end, "it did not come true"
        time.sleep(0.05)
    return value


def _press(driver: Any, *keys: str) -> None:
    from selenium.webdriver import ActionChains

    for key in keys:
        ActionChains(driver).send_keys(key).perform()


def _plot(driver: Any, number: int = 0) -> Any:
    """A plot, scrolled to and drawn."""
    plot = driver.find_elements("css selector", ".plot")[number]
    driver.execute_script("arguments[0].scrollIntoView({block: 'center'})", plot)
    _until(lambda: plot.get_attribute("data-drawn") is not None)
    return plot


def _hover_text(driver: Any, plot: Any) -> str:
    return str(
        _until(lambda: driver.execute_script("return arguments[0].querySelector('.hoverlayer').textContent", plot))
    )


def _column(driver: Any, title: str) -> list[str]:
    """The cells that the table of cases shows now."""
    script = """
    const titles = [...document.querySelectorAll('.dt-scroll-head thead th')].map((th) => th.innerText.trim());
    const at = titles.indexOf(arguments[0]);
    return [...document.querySelectorAll('#case-table tbody tr')].map((tr) => tr.cells[at]?.innerText ?? tr.innerText);
    """
    cells: list[str] = driver.execute_script(script, title)
    return cells


def test_it_asks_for_nothing_and_complains_of_nothing(page: Any) -> None:
    for number in range(len(page.find_elements("css selector", ".plot"))):
        _plot(page, number)
    asked = [json.loads(entry["message"])["message"] for entry in page.get_log("performance")]
    urls = [each["params"]["request"]["url"] for each in asked if each["method"] == "Network.requestWillBeSent"]
    ours = [
        url for url in urls if not url.startswith(("chrome://", "chrome-untrusted://"))
    ]  # the browser's own new tab
    assert any(url.startswith("file:") for url in ours)
    assert {url.split(":")[0] for url in ours} <= {"file", "blob", "data", "about"}
    assert page.get_log("browser") == []


def test_pointing_at_a_plot_shows_its_values(page: Any) -> None:
    from selenium.webdriver import ActionChains

    plot = _plot(page)
    layer = plot.find_element("css selector", ".nsewdrag")
    ActionChains(page).move_to_element_with_offset(layer, -layer.size["width"] // 4, 0).perform()
    text = _hover_text(page, plot)
    assert "20,480" in text
    assert "65,536" in text


def test_a_plot_is_read_and_zoomed_by_keyboard(page: Any) -> None:
    from selenium.webdriver.common.keys import Keys

    plot = _plot(page)
    page.execute_script("arguments[0].focus()", plot)
    _press(page, Keys.ARROW_RIGHT)
    assert "20,480" in _hover_text(page, plot)
    spoken = page.find_element("id", "spoken").get_attribute("textContent")
    assert "bits per weight (those tried, not to scale) 2.5: FP16 cache, load: 20,480" in spoken
    _press(page, Keys.ARROW_RIGHT)
    _until(lambda: "15,360" in _hover_text(page, plot))
    assert "nothing fits" in page.find_element("id", "spoken").get_attribute("textContent")
    axis = "return arguments[0].layout.yaxis.range"
    whole = page.execute_script(axis, plot)
    _press(page, "+")
    _until(lambda: page.execute_script(axis, plot)[1] < whole[1])
    _press(page, "0")
    _until(lambda: page.execute_script(axis, plot) == whole)
    _press(page, Keys.ESCAPE)
    _until(lambda: not page.execute_script("return arguments[0].querySelector('.hoverlayer').textContent", plot))


def test_a_drag_zooms_and_a_double_click_shows_all(page: Any) -> None:
    from selenium.webdriver import ActionChains

    plot = _plot(page)
    axis = "return arguments[0].layout.yaxis.range"
    whole = page.execute_script(axis, plot)
    layer = plot.find_element("css selector", ".nsewdrag")
    ActionChains(page).move_to_element_with_offset(layer, -80, -40).click_and_hold().move_by_offset(
        160, 80
    ).release().perform()
    _until(lambda: page.execute_script(axis, plot) != whole)
    ActionChains(page).move_to_element(layer).double_click().perform()
    _until(lambda: page.execute_script(axis, plot) == whole)


def test_every_plot_is_reached_by_the_tab_key(page: Any) -> None:
    from selenium.webdriver.common.keys import Keys

    wanted = page.execute_script("return document.querySelectorAll('.plot').length")
    reached = set()
    for _ in range(150):
        _press(page, Keys.TAB)
        at = page.execute_script("return [...document.querySelectorAll('.plot')].indexOf(document.activeElement)")
        reached |= {at} - {-1}
        if page.execute_script("return document.activeElement === document.body"):
            break
    assert reached == set(range(wanted))


def test_cases_are_sorted_by_keyboard(page: Any) -> None:
    from selenium.webdriver.common.keys import Keys

    header = (
        "[...document.querySelectorAll('.dt-scroll-head thead th')].find((th) => th.innerText.trim() == 'max_seq_len')"
    )
    page.execute_script(f"const th = {header}; (th.querySelector('[tabindex=\"0\"]') ?? th).focus()")
    before = _column(page, "max_seq_len")
    _press(page, Keys.ENTER)
    rising = _until(lambda: (now := _column(page, "max_seq_len")) != before and now)
    assert rising == sorted(rising, key=lambda text: int(text.replace(",", "")))
    _press(page, Keys.ENTER)
    falling = _until(lambda: (now := _column(page, "max_seq_len")) != rising and now)
    assert falling == sorted(falling, key=lambda text: -int(text.replace(",", "")))


def test_cases_are_filtered_by_keyboard(page: Any) -> None:
    from selenium.webdriver.common.keys import Keys

    page.execute_script("document.querySelector('.dt-search input').focus()")
    _press(page, *"OOM")
    _until(lambda: all(text.startswith("OOM") for text in _column(page, "verdict")))
    assert _column(page, "verdict")
    _press(page, *(Keys.BACKSPACE * 3))
    _until(lambda: "fits" in _column(page, "verdict"))


def test_a_column_is_filtered_by_keyboard(page: Any) -> None:
    from selenium.webdriver.common.keys import Keys

    header = "[...document.querySelectorAll('.dt-scroll-head thead th')].find((th) => th.innerText.trim() == 'kind')"
    page.execute_script(f"{header}.querySelector('.dtcc-button').focus()")
    _press(page, Keys.ENTER)
    _until(lambda: page.find_elements("css selector", ".dtcc-dropdown"))
    for _ in range(12):
        _press(page, Keys.TAB)
        if page.execute_script("return document.activeElement.innerText").strip() == "measured":
            break
    _press(page, Keys.ENTER)
    _until(lambda: set(_column(page, "kind")) == {"measured"})


@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_text_has_contrast(page: Any, scheme: str) -> None:
    """At least 4.5 to 1, as WCAG 2 demands of text, for every text that is shown."""
    from selenium.webdriver.common.keys import Keys

    _look(page, scheme, 1400)
    for number in range(len(page.find_elements("css selector", ".plot"))):
        _plot(page, number)
    plot = _plot(page)
    page.execute_script("arguments[0].focus()", plot)
    _press(page, Keys.ARROW_RIGHT)
    assert _hover_text(page, plot)
    page.execute_script("document.querySelectorAll('details').forEach((each) => { each.open = true; })")
    faint = page.execute_script((Path(__file__).parent / "contrast.js").read_text(encoding="utf-8"))
    assert faint == []


@pytest.mark.parametrize("width", [400, 1400])
def test_nothing_sticks_out(page: Any, width: int) -> None:
    _look(page, "light", width)
    _plot(page)
    _until(lambda: page.execute_script("return document.documentElement.scrollWidth") <= width)
