"""LoRAs in a real Chromium: chosen, weighed, remembered, and in the picture that comes back."""

import numpy as np
import pytest
from conftest import smooth_pixels
from PIL import Image
from servers import free_port, started
from test_page import browser, downloaded, finish, upload, visit
from test_web_adapters import top

from restore import cli

__all__ = ["browser", "top"]  # fixtures
pytestmark = [pytest.mark.browser, pytest.mark.timeout(240)]
CUT = """() => [...document.querySelectorAll("#img2img :is(button, select, input, output, legend)")]
  .filter(e => e.offsetParent && !e.closest(".unseen"))
  .filter(e => e.getBoundingClientRect().right > innerWidth + 1).map(e => e.outerHTML)"""


@pytest.fixture(scope="module")
def address(browser, top, tmp_path_factory):
    port, state = free_port(), tmp_path_factory.mktemp("state")
    words = ["--model", top / "sd", "--lora", top / "loras", "--controlnet", top / "tile"]
    process = started(state, port, *words, "--device", "cpu")
    yield f"http://127.0.0.1:{port}/"
    process.terminate()
    process.communicate(timeout=100)


def test_a_lora_is_chosen_by_keyboard_on_a_phone(browser, address, top, tmp_path):
    photo = tmp_path / "photo.png"
    Image.fromarray(smooth_pixels(48, 64)).save(photo)
    with visit(browser, address, 360, 740) as page:
        upload(page, "img2img", photo)
        page.fill("#img2img [name=steps]", "3")
        page.locator("#img2img .adapters summary").press("Enter")
        page.locator("#img2img").get_by_text("Add a LoRA").press("Enter")
        assert page.evaluate("document.activeElement.value") == "film"
        weight = page.locator("#img2img").get_by_label("Weight of the LoRA")
        for _ in range(6):
            weight.press("ArrowLeft")
        assert weight.input_value() == "0.7"
        summary = page.locator("#img2img .adapters summary")
        assert summary.inner_text() == "LoRA and ControlNet: film"
        assert page.evaluate(CUT) == []
        assert page.evaluate("document.documentElement.scrollWidth") <= 360
        page.click("#img2img button.main")
        job = finish(page, "img2img")
        downloaded(page, job.locator("a.download"), tmp_path / "got.png")
        page.reload()
        page.wait_for_selector("body[data-ready]")
        assert summary.inner_text() == "LoRA and ControlNet: film"
        summary.press("Enter")
        page.locator("#img2img").get_by_label("Remove this LoRA").press("Enter")
        assert summary.inner_text() == "LoRA and ControlNet"
        page.select_option("#img2img [name=model]", "nano")
        assert summary.inner_text() == "LoRA"  # it takes no ControlNet
        page.click("#tab-text2img")  # which has no picture to show to one
        page.locator("#text2img .adapters summary").click()
        page.locator("#text2img").get_by_label("ControlNet", exact=True).select_option("tile")
        page.click("#text2img button.main")
        said = page.locator("#text2img .complaint").inner_text()
        assert said == "Choose a picture for the ControlNet too."
    lora = f"{top / 'loras' / 'film.safetensors'}=0.7"
    words = ["--model", str(top / "sd"), "--device", "cpu", "--steps", "3", "--lora", lora]
    assert cli.main(["img2img", str(photo), "-o", str(tmp_path / "out"), *words]) == 0
    made, wanted = (
        np.asarray(Image.open(tmp_path / name)) for name in ("got.png", "out/photo.png")
    )
    assert np.array_equal(made, wanted)
