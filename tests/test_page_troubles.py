"""The page in a real Chromium when something is odd: slow, gone, dropped elsewhere, in two tabs."""

import json
import subprocess
import sys

import pytest
from conftest import smooth_pixels
from PIL import Image
from servers import ROOT
from test_page import LONG_MS, address, browser, finish, folders, upload, visit

from restore.batch import report, views

__all__ = ["address", "browser", "folders"]  # fixtures
pytestmark = [pytest.mark.browser, pytest.mark.timeout(240)]
DROP = """([place, name]) => {
  const dataTransfer = new DataTransfer();
  if (name) dataTransfer.items.add(new File(["x"], name));
  else dataTransfer.setData("text/plain", "words");
  const told = ["dragover", "drop"].map((kind) =>
    new DragEvent(kind, { dataTransfer, bubbles: true, cancelable: true }));
  for (const event of told) document.querySelector(place).dispatchEvent(event);
  return told.every((event) => event.defaultPrevented);
}"""
READABLE = """() => {
  const light = (colour) => {
    const parts = colour.match(/[\\d.]+/g).slice(0, 3).map((part) => part / 255);
    const linear = parts.map((v) => (v <= 0.04045 ? v / 12.92 : ((v + 0.055) / 1.055) ** 2.4));
    return 0.2126 * linear[0] + 0.7152 * linear[1] + 0.0722 * linear[2];
  };
  const behind = (one) => {
    const colour = getComputedStyle(one).backgroundColor;
    return /, 0\\)$/.test(colour) ? behind(one.parentElement) : light(colour);
  };
  const contrast = (one, style, kind) => {
    const both = [light(getComputedStyle(one, style)[kind]), behind(one)];
    return (Math.max(...both) + 0.05) / (Math.min(...both) + 0.05);
  };
  const seen = [...document.querySelectorAll("body *")].filter((one) => one.offsetParent);
  const faint = seen.filter((one) => one.childNodes.length && contrast(one, null, "color") < 4.5);
  const fields = seen.filter((one) => one.matches("input:not([type=range], [type=file]), select"));
  const edges = fields.filter((one) => contrast(one, null, "borderTopColor") < 3);
  const hints = fields.filter((one) => contrast(one, "::placeholder", "color") < 4.5);
  return [...faint, ...edges, ...hints].map((one) => one.outerHTML.slice(0, 80));
}"""
FOCUSED = "document.activeElement.getAttribute('aria-label') ?? document.activeElement.textContent"


def reload(page):
    page.reload()
    page.wait_for_selector("body[data-ready]")


def test_a_page_whose_server_is_not_there_yet_waits_for_it_and_sends_nothing(browser, address):
    with visit(browser, address, faults=("ERR_FAILED", "401")) as page:
        page.route("**/v1/models", lambda route: route.abort())
        page.reload()
        page.locator("#server", has_text="does not answer").wait_for()
        assert page.locator("main").evaluate("main => main.inert")
        page.locator("#upscale button.main").click(force=True)
        assert page.url == address  # a form without its script would go to /?scale=4&...
        page.unroute("**/v1/models")
        page.route("**/v1/models", lambda route: route.fulfill(status=401, body="{}"))
        page.locator("#server", has_text="another token").wait_for()  # it was started again
        page.unroute("**/v1/models")
        page.wait_for_selector("body[data-ready]")
        assert not page.locator("main").evaluate("main => main.inert")


def test_a_wrong_field_is_shown_where_it_was_folded_away(browser, address, folders):
    with visit(browser, address) as page:
        upload(page, "upscale", folders / "photo.png")
        page.click("#upscale summary")
        page.fill("#upscale [name=quality]", "500")
        page.click("#upscale summary")
        page.click("#upscale button.main")
        assert page.evaluate("document.activeElement.name") == "quality"
        assert page.locator("#upscale [name=quality]").is_visible()


def test_two_tabs_and_a_server_that_stumbles_forget_no_job(browser, address, folders):
    with visit(browser, address, faults=("500", "404")) as one:
        two = one.context.new_page()
        two.goto(address)
        two.wait_for_selector("body[data-ready]")
        for page in (one, two):
            upload(page, "upscale", folders / "root/scans/0.png")
            page.click("#upscale button.main")
            finish(page, "upscale")
        one.route("**/v1/jobs/*", lambda route: route.fulfill(status=500, body="{}"))
        reload(one)
        one.locator("#upscale .job .state", has_text="500").nth(1).wait_for()
        one.unroute("**/v1/jobs/*")
        finish(one, "upscale", 2)
        two.route("**/v1/jobs/*", lambda route: route.fulfill(status=404, body="{}"))
        reload(two)
        two.wait_for_function("() => localStorage['restore.jobs'] === '[]'")
        assert two.locator("#upscale .job").count() == 0  # not one that seems to be sent


def test_what_is_dropped_beside_its_place_or_is_no_file_costs_nothing(browser, address, folders):
    with visit(browser, address) as page:
        upload(page, "inpaint", folders / "photo.png")
        assert not page.evaluate(DROP, ["#inpaint .drop", ""])  # words go where they may go
        assert page.locator("#inpaint .chosen li").inner_text().startswith("photo.png")
        assert page.evaluate(DROP, ["header", "other.png"])  # or the browser would open it
        assert page.locator("#inpaint .chosen li").inner_text().startswith("photo.png")
        assert page.evaluate(DROP, ["#inpaint .drop", "other.png"])
        assert page.locator("#inpaint .chosen li").inner_text().startswith("other.png")


def test_a_file_that_changed_since_it_was_chosen_is_named(browser, address, tmp_path):
    path = tmp_path / "moved.png"
    Image.fromarray(smooth_pixels(20, 30)).save(path)
    with visit(browser, address, faults=("ERR_",)) as page:
        upload(page, "upscale", path)
        page.wait_for_function("() => document.querySelector('#upscale .chosen img')?.naturalWidth")
        path.unlink()
        page.click("#upscale button.main")
        error = page.locator("#upscale .job .error")
        error.wait_for()
        assert error.inner_text().startswith("moved.png could not be sent")


def test_of_two_pictures_chosen_one_after_the_other_the_last_is_painted_on(
    browser, address, folders, tmp_path
):
    Image.fromarray(smooth_pixels(3000, 3000)).save(tmp_path / "slow.png", compress_level=1)
    with visit(browser, address) as page:
        upload(page, "inpaint", tmp_path / "slow.png")
        upload(page, "inpaint", folders / "photo.png")
        page.locator("#inpaint .canvas canvas").first.wait_for()
        page.wait_for_timeout(1500)
        widths = "[...document.querySelectorAll('#inpaint canvas')].map((one) => one.width)"
        assert page.evaluate(widths) == [64, 64]
        page.click("#inpaint [data-tool=eraser]")  # which alone makes no hole
        page.locator("#inpaint .canvas canvas").nth(1).press("Space")
        page.click("#inpaint button.main")
        assert "Paint over" in page.locator("#inpaint .complaint").inner_text()


def test_only_a_stroke_that_begins_on_the_picture_paints(browser, address, folders):
    painted = """() => document.querySelectorAll("#inpaint canvas")[1].getContext("2d")
        .getImageData(0, 0, 64, 48).data.filter((value, at) => at % 4 === 3 && value).length"""
    with visit(browser, address, faults=("getImageData",)) as page:  # which we ask for twice
        upload(page, "inpaint", folders / "photo.png")
        layer = page.locator("#inpaint .canvas canvas").nth(1)
        layer.wait_for()
        box = layer.bounding_box()
        assert box
        places = [
            (box["x"] + box["width"] * part, box["y"] + box["height"] / 2) for part in (0.2, 0.8)
        ]
        page.mouse.click(*places[0])
        dot = page.evaluate(painted)
        page.mouse.click(*places[1], button="right")
        page.mouse.move(box["x"] - 20, places[1][1])
        page.mouse.down()
        page.mouse.move(*places[1], steps=4)
        page.mouse.up()
        assert 0 < dot == page.evaluate(painted)


def test_a_tall_picture_is_reached_everywhere_by_fingers_and_by_keyboard(
    browser, address, folders, tmp_path
):
    Image.fromarray(smooth_pixels(200, 64)).save(tmp_path / "tall.png")
    scrolled = "document.querySelector('#inpaint .canvas').scrollTop"
    with visit(browser, address, 360, 640, has_touch=True, is_mobile=True) as page:
        upload(page, "inpaint", tmp_path / "tall.png")
        layer = page.locator("#inpaint .canvas canvas").nth(1)
        layer.wait_for()
        page.evaluate("document.querySelector('#inpaint .canvas').scrollIntoView()")
        finger = page.context.new_cdp_session(page)

        def touch(kind, y, *columns):
            points = [{"x": x, "y": y, "id": x} for x in columns]
            finger.send("Input.dispatchTouchEvent", {"type": kind, "touchPoints": points})

        touch("touchStart", 300, 100)  # one comes first, as fingers do
        touch("touchStart", 300, 100, 200)
        for step in range(1, 16):
            touch("touchMove", 300 - 15 * step, 100, 200)
        touch("touchEnd", 0)
        page.wait_for_function(f"() => {scrolled} > 100")
        page.click("#inpaint button.main")
        assert "Paint over" in page.locator("#inpaint .complaint").inner_text()
        for _ in range(100):
            layer.press("ArrowDown")
        box, place = layer.bounding_box(), page.locator("#inpaint .canvas").bounding_box()
        assert box and place and box["y"] + box["height"] <= place["y"] + place["height"] + 30


def test_scratches_of_one_picture_are_no_mask_of_the_next(browser, address, folders):
    with visit(browser, address) as page:
        upload(page, "inpaint", folders / "photo.png")
        page.locator("#inpaint .canvas canvas").first.wait_for()
        page.click("#inpaint >> text=Find scratches")
        upload(page, "inpaint", folders / "big.png")
        finish(page, "inpaint")
        page.wait_for_load_state("networkidle")
        page.click("#inpaint button.main")
        assert "Paint over" in page.locator("#inpaint .complaint").inner_text()


def test_a_job_that_still_waits_for_room_can_be_cancelled(browser, address, folders):
    with visit(browser, address, faults=("429", "503", "ERR_FAILED")) as page:
        full = {"status": 429, "body": json.dumps({"error": "full"})}
        page.route("**/v1/upscale", lambda route: route.fulfill(**full))
        upload(page, "upscale", folders / "photo.png")
        page.click("#upscale button.main")
        page.locator("#upscale .state", has_text="waiting for room").wait_for()
        leave = "!dispatchEvent(new Event('beforeunload', { cancelable: true }))"
        assert page.evaluate(leave)  # the browser asks before it is lost
        page.click("#upscale .job >> text=Cancel")
        page.locator("#upscale .error", has_text="cancelled before").wait_for()
        assert not page.evaluate(leave)
        page.unroute("**/v1/upscale")
        upload(page, "upscale", folders / "big.png")
        page.click("#upscale summary")
        page.fill("#upscale [name=steps]", "40")
        page.click("#upscale button.main")
        page.locator("#upscale .job[data-status=running]").wait_for(timeout=LONG_MS)
        page.route("**/v1/jobs/*/cancel", lambda route: route.abort())
        page.click("#upscale .job >> text=Cancel")  # which the server does not hear
        page.locator("#upscale .job[data-status=running] button:enabled").wait_for()
        page.unroute("**/v1/jobs/*/cancel")
        page.click("#upscale .job >> text=Cancel")
        finish(page, "upscale", status="cancelled")


def test_who_removes_something_by_keyboard_stays_near_it(browser, address, folders):
    with visit(browser, address) as page:
        scans = [folders / f"root/scans/{number}.png" for number in (0, 1)]
        upload(page, "upscale", *scans)
        page.click("#upscale button.main")
        finish(page, "upscale", 2)
        for wanted in ("Remove 1.png", "Choose pictures"):
            page.locator("#upscale .chosen button").first.press("Enter")
            assert page.evaluate(FOCUSED) == wanted
        page.locator("#upscale .job >> text=Remove").first.press("Enter")
        assert page.evaluate(FOCUSED).startswith("Download")
        page.locator("#upscale .job >> text=Remove").first.press("Enter")
        assert page.evaluate(FOCUSED) == "Upscale"
        page.locator("#tab-upscale").press("End")
        assert page.evaluate("document.activeElement.id") == "tab-batch"


def test_a_finger_moves_the_edge_between_before_and_after(browser, address, folders):
    with visit(browser, address, 360, 740, has_touch=True, is_mobile=True) as page:
        upload(page, "upscale", folders / "root/scans/0.png")
        page.tap("#upscale button.main")
        finish(page, "upscale")
        frame = page.locator("#upscale .frame")
        frame.scroll_into_view_if_needed()
        box = frame.bounding_box()
        finger = page.context.new_cdp_session(page)
        for step in range(11):
            x = box["x"] + box["width"] * (0.1 + 0.08 * step)
            point = [{"x": x, "y": box["y"] + box["height"] / 2}]
            kind = "touchMove" if step else "touchStart"
            finger.send("Input.dispatchTouchEvent", {"type": kind, "touchPoints": point})
        finger.send("Input.dispatchTouchEvent", {"type": "touchEnd", "touchPoints": []})
        edge = float(page.locator("#upscale .viewer input[type=range]").input_value())
        assert edge == pytest.approx(90, abs=2)


def test_a_report_fits_a_phone_and_a_sheet_of_paper(browser, tmp_path):
    rows: list[dict] = [
        {"key": "a.png", "status": "failed", "code": "CORRUPT", "error": "x" * 300},
        {"key": "b" * 300, "status": "done", "seconds": 1.0, "warnings": ["y" * 300]},
        {"key": "c.png", "status": "done", "seconds": 1.0, "place": views.CROP * 2},
    ]
    layer = (smooth_pixels(300, 400), None)
    views.keep(tmp_path, "c.png", layer, layer, is_aligned=True)
    report.write_page(
        tmp_path / "report.html", rows, {"failed": 1, "done": 2, "seconds": 1}, [tmp_path]
    )
    page = browser.new_page(viewport={"width": 360, "height": 740})
    page.goto((tmp_path / "report.html").as_uri())
    assert page.evaluate("document.documentElement.scrollWidth") <= 360
    look = "getComputedStyle(document.querySelector('.pair i')).printColorAdjust"
    assert page.evaluate(look) == "exact"  # else paper shows the words without the pictures
    page.close()


@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_words_and_fields_stand_out_by_day_and_by_night(browser, address, scheme):
    with visit(browser, address, color_scheme=scheme) as page:
        for tab in ("upscale", "inpaint", "text2img", "img2img", "degrade", "batch"):
            page.click(f"#tab-{tab}")
            assert page.evaluate(READABLE) == [], tab  # WCAG 2.2 AA: 1.4.3 and 1.4.11


def test_the_site_of_the_documents_fetches_nothing(browser, tmp_path):
    pytest.importorskip("zensical")
    tool = [sys.executable, ROOT / "tools" / "docs.py", "site", "-o", tmp_path / "site"]
    subprocess.run(tool, check=True, capture_output=True)
    page, asked = browser.new_page(), []
    page.on("request", lambda request: asked.append(request.url))
    page.goto((tmp_path / "site" / "site" / "index.html").as_uri())
    page.wait_for_timeout(500)
    assert [url for url in asked if not url.startswith("file:")] == []
    page.close()
