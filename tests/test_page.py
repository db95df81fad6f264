"""The page in a real Chromium: what people click, paint, download and see on a phone.

Needs Debian's chromium and the package playwright, which fetches nothing then. Where
RESTORE_BROWSER is set, as in .ci/run, these tests may not be skipped.
"""

import os
import shutil
from contextlib import contextmanager

import numpy as np
import pytest
from conftest import smooth_pixels
from PIL import Image
from servers import free_port, started

from restore import cli

CHROMIUM = next(filter(None, map(shutil.which, ("chromium", "chromium-browser"))), "")
QUIET = ["--no-sandbox", "--disable-dev-shm-usage", "--disable-background-networking"]
LONG_MS = 150_000
pytestmark = [pytest.mark.browser, pytest.mark.timeout(400)]


def test_a_browser_is_here():
    """Its absence is told, not passed over where it must not be."""
    why = missing()
    if why and "RESTORE_BROWSER" not in os.environ:
        pytest.skip(why)
    assert not why


def missing() -> str:
    try:
        import playwright.sync_api  # noqa: F401
    except ImportError:
        return "playwright is missing: pip install playwright"
    return "" if CHROMIUM else "chromium is missing: apt-get install chromium"


@pytest.fixture(scope="module")
def browser():
    if why := missing():
        pytest.skip(why)
    from playwright.sync_api import sync_playwright

    with sync_playwright() as playwright:
        made = playwright.chromium.launch(executable_path=CHROMIUM, args=QUIET)
        yield made
        made.close()


@pytest.fixture(scope="module")
def folders(tmp_path_factory):
    """Pictures to upload, and a root of the server's with some."""
    top = tmp_path_factory.mktemp("page")
    (top / "root" / "scans").mkdir(parents=True)
    for number in range(2):
        Image.fromarray(smooth_pixels(20, 30, number)).save(top / f"root/scans/{number}.png")
    Image.fromarray(smooth_pixels(48, 64)).save(top / "photo.png")
    Image.fromarray(smooth_pixels(256, 256)).save(top / "big.png")
    Image.fromarray(smooth_pixels(24, 32)).save(top / "<img src=x onerror=document.title=1>.png")
    return top


@pytest.fixture(scope="module")
def address(browser, folders):
    port = free_port()
    process = started(folders / "state", port, "--root", folders / "root", "--upload", 3)
    yield f"http://127.0.0.1:{port}/"
    process.terminate()
    process.communicate(timeout=100)


def living(browser):
    """The browser, or another one if it ended by itself at its first page, as Chromium may."""
    from playwright.sync_api import Error

    try:
        context = browser.new_context()
        context.new_page().goto("data:text/html,")
        context.close()
        return browser
    except Error:
        if browser.is_connected():
            raise
        return browser.browser_type.launch(executable_path=CHROMIUM, args=QUIET)


@contextmanager
def visit(browser, address, width=1200, height=900, faults=(), **more):
    """A user of their own. Nothing may be asked of another server, nothing may fail unseen.

    faults  parts of the faults that are meant to come.
    """
    context = living(browser).new_context(viewport={"width": width, "height": height}, **more)
    context.set_default_timeout(60_000)
    page = context.new_page()
    met, own = [], (address, "data:", f"blob:{address}")
    page.on("request", lambda r: None if r.url.startswith(own) else met.append(r.url))
    page.on("pageerror", lambda error: met.append(str(error)))
    page.on("console", lambda m: met.append(m.text) if m.type in ("error", "warning") else None)
    page.goto(address)
    page.wait_for_selector("body[data-ready]")
    try:
        yield page
        assert [one for one in met if not any(part in one for part in faults)] == []
    finally:
        context.close()


def upload(page, tab, *paths):
    page.click(f"#tab-{tab}")
    page.set_input_files(f"#{tab} .drop input[type=file]", [str(path) for path in paths])


def finish(page, tab, count=1, status="done"):
    done = page.locator(f"#{tab} .job[data-status={status}]")
    done.nth(count - 1).wait_for(timeout=LONG_MS)
    return done


def downloaded(page, button, to):
    with page.expect_download() as waiting:
        button.click()
    waiting.value.save_as(to)
    return waiting.value.suggested_filename, to.read_bytes()


def test_a_download_has_the_bytes_of_the_command_line(browser, address, folders, tmp_path):
    with visit(browser, address) as page:
        upload(page, "upscale", folders / "photo.png")
        page.select_option("#upscale [name=scale]", "2")
        page.locator("#upscale [name=fidelity]").fill("0.5")
        page.select_option("#upscale [name=format]", "jpeg")
        page.click("#upscale button.main")
        job = finish(page, "upscale")
        slider = job.get_by_label("Edge between before and after")
        assert slider.is_visible()
        before = job.locator(".frame img").nth(1).evaluate("image => image.style.clipPath")
        slider.fill("80")
        after = job.locator(".frame img").nth(1).evaluate("image => image.style.clipPath")
        assert (before, after) == ("inset(0px 0px 0px 50%)", "inset(0px 0px 0px 80%)")
        assert job.locator(".frame img").nth(1).evaluate("image => image.naturalWidth") == 128
        assert page.locator("#said").inner_text().startswith("photo.png: done")  # to who listens
        job.get_by_text("100 %").click()
        assert job.locator(".frame").evaluate("frame => frame.offsetWidth") == 128
        name, data = downloaded(page, job.locator("a.download"), tmp_path / "got")
    words = ["-s", "2", "--fidelity", "0.5", "--format", "jpeg", "-o", str(tmp_path / "out")]
    assert cli.main(["upscale", str(folders / "photo.png"), *words]) == 0
    assert name == "photo.jpg"
    assert data == (tmp_path / "out" / "photo.jpg").read_bytes()


def test_a_painted_hole_is_filled_and_nothing_else(browser, address, folders, tmp_path):
    with visit(browser, address) as page:
        upload(page, "inpaint", folders / "photo.png")
        layer = page.locator("#inpaint .canvas canvas").nth(1)
        box = layer.bounding_box()
        middle = box["y"] + box["height"] / 2
        page.mouse.move(box["x"] + box["width"] * 0.3, middle)
        page.mouse.down()
        page.mouse.move(box["x"] + box["width"] * 0.6, middle, steps=4)
        page.mouse.up()
        page.click("#inpaint [data-do=undo]")
        page.click("#inpaint button.main")
        assert "Paint over what is to be filled" in page.locator("#inpaint .error").inner_text()
        layer.focus()
        page.keyboard.press("Space")  # in the middle, by keyboard
        page.click("#inpaint summary")
        page.fill("#inpaint [name=feather]", "0")
        page.click("#inpaint button.main")
        job = finish(page, "inpaint")
        _, data = downloaded(page, job.locator("a.download"), tmp_path / "got.png")
    made, source = np.asarray(Image.open(tmp_path / "got.png")), smooth_pixels(48, 64)
    moved = (made != source).any(2)
    assert moved.any() and len(data)
    rows, columns = np.nonzero(moved)
    assert rows.min() > 16 and rows.max() < 32 and columns.min() > 24 and columns.max() < 40


def test_a_job_is_cancelled_in_the_middle(browser, address, folders):
    with visit(browser, address) as page:
        upload(page, "upscale", folders / "big.png")
        page.click("#upscale summary")
        page.fill("#upscale [name=steps]", "40")
        page.click("#upscale button.main")
        finish(page, "upscale", status="running")
        page.locator("#upscale .job progress[value]").wait_for(timeout=LONG_MS)
        page.click("#upscale .job >> text=Cancel")
        job = finish(page, "upscale", status="cancelled")
        assert job.locator("text=Try again").is_visible()
        page.fill("#upscale [name=steps]", "")


def test_the_picture_so_far_is_shown_while_it_is_made(browser, address, folders):
    with visit(browser, address) as page:
        upload(page, "upscale", folders / "big.png")
        page.click("#upscale summary")
        page.fill("#upscale [name=steps]", "40")
        page.click("#upscale button.main")
        so_far = page.get_by_alt_text("The picture so far")
        so_far.wait_for(timeout=LONG_MS)
        page.wait_for_function("() => document.querySelector('.sofar img')?.naturalWidth > 300")
        first = so_far.get_attribute("src")
        page.wait_for_function(
            "first => document.querySelector('.sofar img')?.src !== first",
            arg=first,
            timeout=LONG_MS,
        )
        page.click("#upscale .job >> text=Cancel")
        job = finish(page, "upscale", status="cancelled")
        assert job.get_by_alt_text("The picture so far").count() == 0
        page.fill("#upscale [name=steps]", "")


def test_two_users_see_their_own_and_a_name_is_no_html(browser, address, folders):
    with visit(browser, address) as one, visit(browser, address) as two:
        upload(one, "upscale", folders / "photo.png", folders / "root/scans/1.png")
        upload(two, "upscale", next(folders.glob("<img*")))
        for page in (one, two):
            page.select_option("#upscale [name=scale]", "2")
            page.click("#upscale button.main")
        finish(one, "upscale", 2)
        finish(two, "upscale")
        names = [page.locator("#upscale .job .name").all_inner_texts() for page in (one, two)]
        assert names == [["1.png", "photo.png"], ["<img src=x onerror=document.title=1>.png"]]
        assert two.title() == "restore"
        one.reload()  # settings and jobs come back
        one.wait_for_selector("body[data-ready]")
        assert one.input_value("#upscale [name=scale]") == "2"
        again = finish(one, "upscale", 2)
        again.nth(0).locator("text=Look at it").click()
        assert again.nth(0).get_by_label("Edge between").is_visible()
        again.nth(0).locator("text=Remove").click()
        again.nth(1).wait_for(state="detached")


def test_the_example_works_on_a_phone_and_nothing_is_cut_off(browser, address):
    with visit(browser, address, 360, 740, has_touch=True, is_mobile=True) as page:
        page.tap("#upscale >> text=Try an example")
        page.locator("#upscale .chosen li").wait_for()
        page.tap("#upscale button.main")
        finish(page, "upscale")
        for tab in ("upscale", "inpaint", "text2img", "img2img", "degrade", "batch"):
            page.locator(f"#tab-{tab}").tap()
            assert page.locator(f"#{tab}").is_visible()
            cut = page.evaluate(
                """tab => [...document.querySelectorAll(`#${tab} :is(button, select, input, a)`)]
                .filter(e => e.offsetParent && !e.closest(".stage, .canvas, .unseen"))
                .filter(e => e.getBoundingClientRect().right > innerWidth + 1)
                .map(e => e.outerHTML)""",
                tab,
            )
            assert cut == []
            assert page.evaluate("document.documentElement.scrollWidth") <= 360


def test_what_is_wrong_is_said_in_words(browser, address, tmp_path):
    (tmp_path / "large.png").write_bytes(bytes(4 * 2**20))
    (tmp_path / "notes.txt").write_text("no picture")
    with visit(browser, address) as page:
        page.click("#upscale button.main")
        assert "Choose a picture first" in page.locator("#upscale .complaint").inner_text()
        upload(page, "upscale", tmp_path / "large.png")
        page.click("#upscale button.main")
        error = page.locator("#upscale .job .error")
        assert "this server takes 3.1 MB at a time" in error.inner_text()
        page.click("#upscale .chosen button")
        page.click("#upscale .job >> text=Remove")
    with visit(browser, address, faults=("422",)) as page:  # which Chromium logs as an error
        upload(page, "upscale", tmp_path / "notes.txt")
        page.click("#upscale button.main")
        error = page.locator("#upscale .job .error")
        error.wait_for()
        assert "notes.txt: the file is not a picture" in error.inner_text()


def test_a_mask_of_another_shape_is_refused(browser, address, folders, tmp_path):
    for name, size in (("other", (64, 64)), ("half", (32, 24))):  # the picture has 64 x 48
        Image.new("L", size, 255).save(tmp_path / f"{name}.png")
    with visit(browser, address) as page:
        upload(page, "inpaint", folders / "photo.png")
        page.locator("#inpaint .canvas canvas").first.wait_for()
        page.set_input_files("#inpaint [name=maskfile]", tmp_path / "other.png")
        complaint = page.locator("#inpaint .complaint")
        complaint.wait_for()
        assert "other.png: the mask has another shape" in complaint.inner_text()
        page.set_input_files("#inpaint [name=maskfile]", tmp_path / "half.png")
        complaint.wait_for(state="detached")


def test_a_keyboard_is_enough(browser, address):
    with visit(browser, address) as page:

        def reach(selector):
            for _ in range(60):
                if page.evaluate(f"document.activeElement.matches({selector!r})"):
                    return
                page.keyboard.press("Tab")
            raise AssertionError(f"{selector} is not reached by Tab")

        reach("[role=tab]")
        for _ in range(6):  # round to the first again
            page.keyboard.press("ArrowRight")
        assert page.evaluate("document.activeElement.id") == "tab-upscale"
        reach(".drop button")
        page.keyboard.press("Enter")
        page.locator("#upscale .chosen li").wait_for()
        reach("#upscale button.main")
        page.keyboard.press("Enter")
        finish(page, "upscale")
        reach("#upscale .viewer input[type=range]")
        page.keyboard.press("ArrowRight")
        assert page.locator("#upscale .viewer input[type=range]").input_value() == "50.5"
        reach("#upscale a.download")


def test_folders_recipes_and_pictures_from_pictures(browser, address, folders):
    with visit(browser, address) as page:
        page.click("#tab-batch")
        page.click("#batch .browser >> text=scans")
        page.locator("#batch .browser >> text=2 pictures here").wait_for()
        page.fill("#batch [name=out]", "restored")
        page.click("#batch button.main")
        job = finish(page, "batch")
        assert "2 done" in job.inner_text()
        assert (folders / "root/restored/1.png").exists()
        with page.context.expect_page() as opened:
            job.locator("text=Report").click()
        opened.value.locator("text=1.png").first.wait_for()
        upload(page, "degrade", folders / "big.png")
        page.click("#degrade button.main")
        finish(page, "degrade")
        page.fill("#degrade [name=columns]", "2")
        page.keyboard.press("Tab")  # the sheet is made anew
        finish(page, "degrade", 2)
        page.click("#degrade >> text=Estimate a recipe")
        finish(page, "degrade", 3).nth(0).locator("text=mine.yaml").wait_for()
        upload(page, "img2img", folders / "photo.png")
        page.click("#img2img button.main")
        finish(page, "img2img")
