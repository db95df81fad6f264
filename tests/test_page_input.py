"""The page in a real Chromium: pens, folders, many pictures, and a proxy that adds a path."""

import json

import pytest
from conftest import smooth_pixels
from PIL import Image
from test_page import LONG_MS, address, browser, finish, folders, upload, visit

__all__ = ["address", "browser", "folders"]  # fixtures
pytestmark = [pytest.mark.browser, pytest.mark.timeout(240)]
PAINTED = """() => document.querySelectorAll("#inpaint canvas")[1].getContext("2d")
    .getImageData(0, 0, 64, 48).data.filter((value, at) => at % 4 === 3 && value).length"""
LEAVE_IS_ASKED = "!dispatchEvent(new Event('beforeunload', { cancelable: true }))"


def painting(page, folders):
    """Opens a picture to paint on. Returns what tells a point of it, by shares of its sides."""
    upload(page, "inpaint", folders / "photo.png")
    layer = page.locator("#inpaint .canvas canvas").nth(1)
    layer.wait_for()
    layer.scroll_into_view_if_needed()
    box = layer.bounding_box()
    return lambda x, y: {"x": box["x"] + box["width"] * x, "y": box["y"] + box["height"] * y}


def test_a_hand_that_rests_beside_the_pen_paints_nothing(browser, address, folders):
    with visit(browser, address, faults=("getImageData",), has_touch=True) as page:
        at = painting(page, folders)
        cdp = page.context.new_cdp_session(page)

        def pen(kind, x, y):
            held = {"button": "left", "buttons": 1, "clickCount": 1, "pointerType": "pen"}
            cdp.send("Input.dispatchMouseEvent", {"type": kind, **at(x, y), **held})

        def stroke(*between):
            pen("mousePressed", 0.1, 0.2)
            pen("mouseMoved", 0.3, 0.2)
            for kind, *points in between:
                held = [at(*point) for point in points]
                cdp.send("Input.dispatchTouchEvent", {"type": kind, "touchPoints": held})
            pen("mouseMoved", 0.5, 0.2)
            pen("mouseReleased", 0.5, 0.2)
            painted = page.evaluate(PAINTED)
            page.click("#inpaint [data-do=clear]")
            return painted

        alone = stroke()
        resting = stroke(("touchStart", (0.9, 0.9)), ("touchMove", (0.8, 0.9)), ("touchEnd",))
        assert 0 < alone == resting
        page.mouse.move(*at(0.1, 0.2).values())
        page.mouse.down()
        page.mouse.up()
        dot = page.evaluate(PAINTED)
        page.mouse.move(*at(0.9, 0.8).values())
        page.mouse.down()
        page.keyboard.press("Control+z")  # in the middle of a stroke
        page.mouse.move(*at(0.5, 0.8).values())
        page.mouse.up()
        assert page.evaluate(PAINTED) == dot  # and not a line from the first to here


def test_what_is_painted_is_not_lost_by_a_slip(browser, address, folders):
    with visit(browser, address) as page:
        at = painting(page, folders)
        assert not page.evaluate(LEAVE_IS_ASKED)
        page.mouse.click(*at(0.5, 0.5).values())
        assert page.evaluate(LEAVE_IS_ASKED)
        page.click("#inpaint button.main")
        finish(page, "inpaint")
        assert not page.evaluate(LEAVE_IS_ASKED)


def test_of_a_folder_that_is_dropped_the_pictures_are_taken(browser, address, tmp_path):
    inside = tmp_path / "album" / "2024"
    inside.mkdir(parents=True)
    for path in (inside / "10.png", inside / "9.png", tmp_path / "album" / "a.png"):
        Image.fromarray(smooth_pixels(20, 30)).save(path)
    for name in (".DS_Store", "notes.txt"):
        (inside / name).write_text("words")
    with visit(browser, address) as page:
        cdp = page.context.new_cdp_session(page)
        box = page.locator("#upscale .drop").bounding_box()
        data = {"items": [], "files": [str(tmp_path / "album")], "dragOperationsMask": 1}
        for kind in ("dragEnter", "dragOver", "drop"):
            place = {"x": box["x"] + 9, "y": box["y"] + 9, "data": data}
            cdp.send("Input.dispatchDragEvent", {"type": kind, **place})
        names = page.locator("#upscale .chosen li span")
        names.nth(2).wait_for()
        assert names.all_inner_texts() == ["9.png", "10.png", "a.png"]


def test_many_pictures_are_shown_at_once_and_each_can_be_cancelled(browser, address, folders):
    with visit(browser, address, faults=("429",)) as page:
        full = {"status": 429, "body": json.dumps({"error": "full"})}
        page.route("**/v1/upscale", lambda route: route.fulfill(**full))
        upload(page, "upscale", *[folders / "photo.png"] * 3)
        page.click("#upscale button.main")
        jobs = page.locator("#upscale .job")
        jobs.nth(2).wait_for()
        jobs.nth(1).get_by_text("Cancel").click()  # whose turn has not come
        jobs.nth(1).locator(".error", has_text="cancelled before").wait_for()
        assert page.evaluate(LEAVE_IS_ASKED)  # of the others
        page.unroute("**/v1/upscale")
        finish(page, "upscale", 2)
        assert not page.evaluate(LEAVE_IS_ASKED)
        upload(page, "upscale", *[folders / "photo.png"] * 201)
        page.click("#upscale button.main")
        assert "the newest 200" in page.locator("#upscale .complaint").inner_text()
        assert jobs.count() == 3


def test_settings_that_are_kept_are_seen_and_said(browser, address):
    with visit(browser, address) as page:
        page.click("#upscale summary")
        page.fill("#upscale [name=seed]", "9007199254740993")  # which JavaScript would round
        assert not page.evaluate("document.querySelector('#upscale form').checkValidity()")
        page.fill("#upscale [name=seed]", "7")
        page.locator("#upscale [name=fidelity]").press("End")
        page.reload()
        page.wait_for_selector("body[data-ready]")
        assert page.locator("#upscale [name=seed]").is_visible()
        assert not page.evaluate("document.querySelector('#img2img details').open")
        told = page.locator("#upscale [name=fidelity]").get_attribute("aria-valuetext")
        assert told == "faithful"


def test_a_question_that_is_never_answered_is_asked_again(browser, address, folders):
    hasty = """(() => {
      const patient = AbortSignal.timeout.bind(AbortSignal);
      AbortSignal.timeout = (ms) => {
        AbortSignal.timeout = patient; // the later answers come, and may be slow
        return patient(ms / 40);
      };
    })()"""
    with visit(browser, address) as page:
        page.evaluate(hasty)
        asked = []

        def answer(route):
            asked.append(route)
            if len(asked) > 1:
                route.continue_()

        page.route("**/v1/jobs/*", answer)
        upload(page, "upscale", folders / "photo.png")
        page.click("#upscale button.main")
        finish(page, "upscale")


def test_an_upload_that_is_stuck_can_be_cancelled(browser, address, folders):
    with visit(browser, address) as page:
        page.route("**/v1/upscale", lambda route: None)
        upload(page, "upscale", folders / "photo.png")
        page.click("#upscale button.main")
        page.locator("#upscale .state", has_text="sending").wait_for()
        page.click("#upscale .job >> text=Cancel")
        page.locator("#upscale .error", has_text="cancelled before").wait_for()
        assert not page.evaluate(LEAVE_IS_ASKED)


def test_a_proxy_that_takes_no_large_upload_is_named(browser, address, folders):
    with visit(browser, address, faults=("413",)) as page:
        page.route("**/v1/upscale", lambda route: route.fulfill(status=413, body="<h1>413</h1>"))
        upload(page, "upscale", folders / "photo.png")
        page.click("#upscale button.main")
        told = page.locator("#upscale .job .error").inner_text()
        assert told.endswith(
            "proxy before the server answered 413, as it takes no upload that large."
        )


def test_a_proxy_may_serve_it_below_a_path(browser, address, folders):
    with visit(browser, address) as page:
        asked = []
        page.route("**/below/**", lambda route: route.continue_(url=stripped(route.request.url)))
        page.on("request", lambda request: asked.append(request.url))
        page.goto(f"{address}below/")
        page.wait_for_selector("body[data-ready]")
        page.click("#upscale >> text=Try an example")
        page.locator("#upscale .chosen li").wait_for()
        upload(page, "upscale", folders / "photo.png")
        page.locator("#upscale .chosen button").first.click()
        page.click("#upscale button.main")
        job = finish(page, "upscale")
        job.locator(".viewer img").first.wait_for(timeout=LONG_MS)
        assert page.evaluate("document.querySelector('.viewer img').naturalWidth") == 64
        outside = [url for url in asked if "/below/" not in url and url.startswith("http")]
        assert outside == []


def stripped(url):
    return url.replace("/below/", "/")
