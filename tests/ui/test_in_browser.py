"""In Chromium: a run's curve moves while it trains, nothing overflows a phone, and the keyboard reaches everything."""

import time

import fixture_comparison
import pytest
from fixture_run import FixtureRun

PHONE, DESK = 390, 1280
# Of each page, for a reader who uses the keyboard.
FOCUSED = """(() => {
  const box = document.activeElement, style = getComputedStyle(box);
  return [box.tagName, box.id || box.textContent.trim(), style.outlineStyle !== "none"];
})()"""


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    folder = tmp_path_factory.mktemp("browsed")
    run = FixtureRun().build(folder / "runs" / "adult-with-a-rather-long-name-of-its-folder-2026")
    (run / "report.html").write_text("<p id=x>a report</p><script>document.title = 'ran'</script>")
    FixtureRun(rounds=0, ended=None).build(folder / "runs" / "fresh")
    fixture_comparison.build(folder / "comparisons" / "adult")
    return folder


RUN = "/run/runs/adult-with-a-rather-long-name-of-its-folder-2026"
PAGES = ("/", RUN, "/run/runs/fresh", "/comparison/comparisons/adult?y=ece", "/run/nothing")


def test_a_curve_moves_while_the_run_trains(chromium, start, tiny_toml, tmp_path, serve):
    slow = tiny_toml(rounds=30, assess__every=1, assess__assessors=["tiny_federation:SlowAssessor"])
    run = start("run", slow, "--out", tmp_path / "folder" / "live")
    record = tmp_path / "folder" / "live" / "record.jsonl"
    end = time.monotonic() + 60
    while not (record.exists() and '"kind":"round"' in record.read_text()):
        assert run.running(), run.err
        assert time.monotonic() < end
        time.sleep(0.02)
    page = serve(tmp_path / "folder")
    chromium.width(DESK)
    chromium.open(f"{page.url}/run/live")
    assert chromium.script("document.querySelector('.status.pill').textContent").strip() == "▶ running"
    chromium.script("window.mark = 'the same page'; void 0")
    line = "document.querySelector('#curves path.line').getAttribute('d')"
    first = chromium.script(line)
    chromium.wait(f"{line} !== {first!r}")
    second = chromium.script(line)
    assert second.count("L") > first.count("L")
    chromium.wait(f"{line} !== {second!r}")
    assert chromium.script("window.mark") == "the same page"
    assert chromium.complaints == []
    # Paused, it stands still; and what the reader opened stays open.
    chromium.script("document.getElementById('pause').click()")
    time.sleep(0.3)
    third = chromium.script(line)
    time.sleep(1.2)
    assert chromium.script(line) == third
    chromium.script("document.getElementById('pause').click()")
    chromium.script(
        "document.getElementById('claim-1').open = true; document.querySelector('summary').focus()"
    )
    chromium.script("document.querySelector('#details section').dataset.was = 'here'; void 0")
    run.signal(9)
    run.wait()
    chromium.wait("document.querySelector('.status.pill').textContent.includes('interrupted')")
    chromium.wait("document.querySelector('#details [data-was]') === null")
    assert chromium.script("document.getElementById('claim-1').open")
    assert chromium.script("document.activeElement.tagName") == "SUMMARY"


@pytest.mark.parametrize("width", [PHONE, DESK])
def test_no_page_is_wider_than_its_window(chromium, folder, serve, width):
    page = serve(folder)
    chromium.width(width)
    for path in PAGES:
        chromium.open(page.url + path)
        chromium.script("document.querySelectorAll('details').forEach((box) => { box.open = true; })")
        assert chromium.script("document.documentElement.scrollWidth <= innerWidth"), path
        assert [said for said in chromium.complaints if "404" not in said] == [], path
        # The least size of what a finger must meet: WCAG 2.2, 2.5.8.
        small = chromium.script(
            "[...document.querySelectorAll('nav a, button:not([hidden]), select, .links a, tbody th a')].filter("
            "(box) => box.getBoundingClientRect().height < 24).map((box) => box.outerHTML)"
        )
        assert small == [], path


def test_the_keyboard_reaches_everything_and_shows_where_it_is(chromium, folder, serve):
    page = serve(folder)
    chromium.width(DESK)
    for path in PAGES[:4]:
        chromium.open(page.url + path)
        wanted = chromium.script(
            "[...document.querySelectorAll('a[href], button:not([hidden]), select, summary, [tabindex=\"0\"]')]"
            ".filter((box) => box.checkVisibility()).length"
        )
        reached = set()
        for _ in range(wanted):
            chromium.key("Tab")
            tag, name, visible = chromium.script(FOCUSED)
            assert visible, (path, tag, name)
            reached.add((tag, name))
        assert ("A", "Skip to the content") in reached
        if path.startswith("/comparison"):
            assert {("SELECT", "x"), ("SELECT", "y"), ("BUTTON", "Show")} <= reached
        elif path == "/":
            assert ("A", "to-runs/fresh") in reached
        count = chromium.script("document.querySelectorAll('main a, main select, main summary').length")
        assert count > 2
    chromium.open(page.url)
    chromium.key("Tab")
    chromium.key("Enter")
    assert chromium.script("document.activeElement.id") == "main"


def test_axes_are_picked_by_the_keyboard_without_scripts(chromium, folder, serve):
    page = serve(folder)
    chromium.scripts(on=False)
    try:
        chromium.open(f"{page.url}/comparison/comparisons/adult")
        chromium.script(
            "document.getElementById('y').value = 'ece'; document.querySelector('form button').focus()"
        )
        chromium.events.clear()
        chromium.key("Enter")
        chromium.until("Page.loadEventFired")
        assert chromium.script("location.search") == "?y=ece&x=epsilon"
        assert "Calibration error" in chromium.script("document.querySelector('figure svg').textContent")
        chromium.open(page.url + RUN)
        assert chromium.script("document.querySelector('.refresh a').pathname") == RUN
        assert not chromium.script("document.getElementById('pause').checkVisibility()")
    finally:
        chromium.scripts(on=True)


def test_a_plot_has_the_colours_of_the_page(chromium, folder, serve):
    chromium.open(f"{serve(folder).url}/comparison/comparisons/adult")
    stroke = chromium.script(
        "getComputedStyle(document.querySelector('.plot path[stroke*=\"--main\"]')).stroke"
    )
    assert stroke == "rgb(31, 95, 168)"


def test_a_page_out_of_a_run_folder_runs_nothing_and_belongs_nowhere(chromium, folder, serve):
    page = serve(folder)
    chromium.open(f"{page.url}/files{RUN.removeprefix('/run')}/report.html")
    assert chromium.script("document.getElementById('x').textContent") == "a report"
    assert chromium.script("document.title") != "ran"
    assert chromium.script("origin") == "null"
