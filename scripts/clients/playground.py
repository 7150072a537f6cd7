"""The playground in headless Chromium: audio arrives and is heard, nothing is said on the console, cancel, phone, dark.

    apt-get install chromium; pip install playwright
    python3 scripts/clients/playground.py [http://127.0.0.1:9000] [--shots FOLDER] [--chromium /usr/bin/chromium]

Prints one line of JSON; leaves with status 1 if something is not as it should be.
"""

import argparse
import hashlib
import json
import pathlib
import time

from playwright.sync_api import sync_playwright

ARGUMENTS = [
    "--no-sandbox",
    "--autoplay-policy=no-user-gesture-required",
    "--use-fake-device-for-media-stream",
    "--use-fake-ui-for-media-stream",
]


def wait(page, condition: str, limit: float) -> None:
    """Waits until an expression holds; the page's policy forbids Playwright's own way, which evaluates strings."""
    end = time.monotonic() + limit / 1000
    while not page.evaluate("() => " + condition):
        if time.monotonic() > end:
            problem = page.text_content("#problem")
            raise SystemExit(f"waited {limit / 1000} s for {condition}; the page says {problem!r}")
        time.sleep(0.03)


def speak(page, limit: float) -> dict:
    page.keyboard.press("Control+Enter")
    wait(page, "document.getElementById('first').textContent.endsWith('ms')", limit)
    wait(page, "document.getElementById('status').textContent.startsWith('Done')", limit)
    return {name: page.text_content("#" + name) for name in ["first", "rtf", "length", "gaps"]}


def painted(page, canvas: str) -> float:
    """The share of a canvas that is not background."""
    return page.evaluate(
        """(id) => {
            const canvas = document.getElementById(id);
            const data = canvas.getContext('2d').getImageData(0, 0, canvas.width, canvas.height).data;
            let other = 0;
            for (let i = 0; i < data.length; i += 4)
                if (Math.abs(data[i] - data[0]) + Math.abs(data[i + 1] - data[1]) > 12) other++;
            return other / (data.length / 4);
        }""",
        canvas,
    )


def unlabelled(page) -> list:
    """What a screen reader would come to without a name."""
    return page.evaluate(
        """() => [...document.querySelectorAll('input, select, textarea, button, a, canvas, meter')]
            .filter((e) => !(e.labels?.length || e.getAttribute('aria-label') || e.textContent.trim()))
            .map((e) => e.outerHTML.slice(0, 80))"""
    )


def run(url: str, shots: pathlib.Path | None, chromium: str, limit: float) -> dict:
    result = {}
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=chromium, args=ARGUMENTS)
        result["client"] = "Chromium " + browser.version
        said, requests = [], []
        looks = [("light", {"width": 1000, "height": 1100}), ("dark", {"width": 390, "height": 844})]
        for scheme, size in looks:
            context = browser.new_context(viewport=size, color_scheme=scheme, device_scale_factor=2)
            page = context.new_page()
            page.on("console", lambda message: said.append(message.text))
            page.on("pageerror", lambda error: said.append(str(error)))
            page.on("request", lambda request: requests.append(request.url))
            page.goto(url)
            wait(page, "document.getElementById('voice').options.length > 1", limit)
            page.fill("#text", "Tea for two.")
            found = speak(page, limit)
            if scheme == "light":
                result |= found
                result["wave_painted"] = painted(page, "wave") > 0.02
                result["spectrum_painted"] = painted(page, "spectrum") > 0.1
                with page.expect_download() as download:
                    page.click("#download")
                wav = pathlib.Path(download.value.path()).read_bytes()
                result["wav_seconds"] = (len(wav) - 44) / 48000
                result["hash_is_shown"] = hashlib.sha256(wav[44:]).hexdigest() in page.text_content("#hash")
                first = page.text_content("#hash")
                wait(page, "document.getElementById('speak').textContent === 'Speak'", limit)
                speak(page, limit)
                result["same_bytes_again"] = page.text_content("#hash") == first
                wait(page, "document.getElementById('speak').textContent === 'Speak'", limit)
                page.keyboard.press("Control+Enter")
                wait(page, "document.getElementById('first').textContent.endsWith('ms')", limit)
                if shots:
                    page.screenshot(path=shots / "playground-speaking.png")
                page.keyboard.press("Escape")
                time.sleep(0.3)
                result["escape_stops"] = page.text_content("#status") == "Stopped."
                result["unlabelled"] = unlabelled(page)
                if page.is_visible("#clone"):
                    result["clone"] = clone(page, limit)
            else:
                width = page.evaluate("document.documentElement.scrollWidth")
                result["fits_a_phone"] = width <= size["width"]
            if shots:
                page.evaluate("document.activeElement.blur()")
                page.screenshot(path=shots / f"playground-{scheme}.png", full_page=True)
            context.close()
        browser.close()
    result["console"] = said
    result["foreign_requests"] = [r for r in requests if not r.startswith((url, "blob:", "data:"))]
    return result


def clone(page, limit: float) -> str:
    """Records the browser's artificial microphone and saves it as a voice."""
    page.click("#clone summary")
    page.fill("#name", "playground-test")
    page.click("#record")
    time.sleep(2)
    page.click("#record")
    wait(page, "!document.getElementById('save').disabled", limit)
    page.click("#save")
    wait(page, "document.getElementById('cloneStatus').textContent.startsWith('Saved')", limit)
    return page.input_value("#voice")


if __name__ == "__main__":
    parser = argparse.ArgumentParser()
    parser.add_argument("url", nargs="?", default="http://127.0.0.1:9000")
    parser.add_argument("--shots", type=pathlib.Path)
    parser.add_argument("--chromium", default="/usr/bin/chromium")
    parser.add_argument("--limit", type=float, default=60, help="seconds for one speech")
    arguments = parser.parse_args()
    if arguments.shots:
        arguments.shots.mkdir(parents=True, exist_ok=True)
    found = run(arguments.url.rstrip("/"), arguments.shots, arguments.chromium, arguments.limit * 1000)
    print(json.dumps(found))
    good = all(v is not False for v in found.values())
    good &= not (found["console"] or found["foreign_requests"] or found["unlabelled"])
    raise SystemExit(0 if good else 1)
