"""Opens pages of reports in headless Chromium and checks them; arguments: folder of the screenshots, then NAME=PAGE.

Speaks WebDriver to chromedriver with the standard library alone.
"""

import base64
import json
import pathlib
import re
import subprocess
import sys
import tempfile
import time
import urllib.request

# What a page must have, beyond what every page must.
FINISHED = {
    "figures": ["intervals", "distributions", "roc", "precision-recall", "class-distribution", "t-sne"],
    "tables": ["methods", "averages", "datasets", "images", "provenance"],
}
EXPECTED = {
    "demo": {
        "figures": FINISHED["figures"] + ["differences", "shots-auroc", "shots-fpr95", "shots-top1", "loss", "training-accuracy"],
        "tables": FINISHED["tables"],
        "words": ["zero-shot", "Words nearest to the vectors"],
        "thumbnails": True,
    },
    "dual": {**FINISHED, "words": ["oracle", "transductive", "needs training"], "thumbnails": True},
    "names": {**FINISHED, "words": ["class names are repeated (star)", "Images in quarantine"], "thumbnails": True},
    "no-images": {**FINISHED, "words": ["have no thumbnail", "no picture:"], "thumbnails": False},
    "planned": {"figures": [], "tables": ["stages", "datasets"], "words": ["is not finished", "extract"]},
    "unfinished": {"figures": ["loss"], "tables": ["stages", "datasets"], "words": ["is not finished", "score"]},
    "search": {"figures": [], "tables": [], "words": ["a photo of a star", "the query", "Images found"], "thumbnails": True},
    "search-gone": {"figures": [], "tables": [], "words": ["a photo of a fish", "no picture:"], "thumbnails": False},
    "detect": {"figures": [], "tables": ["group-1"], "words": ["In-distribution", "Out-of-distribution", "Could not be read: 1"], "thumbnails": True},
    "regions": {"figures": [], "tables": ["patches-1", "patches-2"], "words": ["Extracted patches", "K = 1 (the default"], "thumbnails": True},
    "compare": {"figures": ["run-differences"], "tables": ["run-differences", "configuration"], "words": ["detectors"]},
}


class Browser:
    """A session of chromedriver."""

    def __init__(self):
        self.process = subprocess.Popen(["chromedriver", "--port=0"], stdout=subprocess.PIPE, text=True)
        self.port = None
        for line in self.process.stdout:
            found = re.search(r"on port (\d+)", line)
            if found and "successfully" in line:
                self.port = int(found.group(1))
                break
        if self.port is None:
            raise SystemExit("chromedriver did not start")
        self.profile = tempfile.TemporaryDirectory()
        # Without a sandbox as root, and without /dev/shm, which containers keep small.
        arguments = ["--headless=new", "--no-sandbox", "--disable-dev-shm-usage", "--hide-scrollbars", f"--user-data-dir={self.profile.name}"]
        options = {"args": arguments}
        wanted = {"browserName": "chrome", "goog:chromeOptions": options, "goog:loggingPrefs": {"browser": "ALL"}}
        self.session = ""
        self.session = "/" + self.call("", {"capabilities": {"alwaysMatch": wanted}})["sessionId"]

    def call(self, path, body=None, method=None):
        url = f"http://127.0.0.1:{self.port}/session{self.session}{path}"
        data = None if body is None else json.dumps(body).encode()
        request = urllib.request.Request(url, data, {"Content-Type": "application/json"}, method=method)
        with urllib.request.urlopen(request, timeout=120) as answer:
            return json.load(answer)["value"]

    def devtools(self, command, **parameters):
        return self.call("/goog/cdp/execute", {"cmd": command, "params": parameters})

    def script(self, text):
        return self.call("/execute/sync", {"script": text, "args": []})

    def messages(self):
        return self.call("/se/log", {"type": "browser"})

    def screenshot(self, path):
        size = self.devtools("Page.getLayoutMetrics")["cssContentSize"]
        clip = {"x": 0, "y": 0, "width": size["width"], "height": min(size["height"], 12000), "scale": 1}
        shot = self.devtools("Page.captureScreenshot", captureBeyondViewport=True, clip=clip)
        path.write_bytes(base64.b64decode(shot["data"]))

    def close(self):
        try:
            self.call("", method="DELETE")
        finally:
            self.process.terminate()
            self.process.wait()
            self.profile.cleanup()


def check(condition, problem, problems):
    if not condition:
        problems.append(problem)


def check_page(browser, name, page, folder):
    expected = EXPECTED[name]
    problems = []
    url = pathlib.Path(page).resolve().as_uri()
    browser.devtools("Network.enable")
    browser.call("/url", {"url": url})
    time.sleep(0.2)
    for message in browser.messages():
        problems.append(f"console: {message['level']}: {message['message']}")
    loaded = browser.script("return performance.getEntriesByType('resource').map((entry) => entry.name)")
    outside = [entry for entry in loaded if not entry.startswith("data:")]
    check(not outside, f"fetches {outside}", problems)

    empty = browser.script(
        """return [...document.querySelectorAll("figure")].filter((figure) => {
             const svg = figure.querySelector("svg");
             if (!svg) return true;
             const marks = svg.querySelectorAll("circle, polyline, polygon, rect[fill-opacity], rect.f1, rect.f2, rect.f4");
             return marks.length === 0;
           }).map((figure) => figure.id)"""
    )
    check(not empty, f"figures without a drawing: {empty}", problems)
    # A closed fold has no boxes; open all of them to measure.
    browser.script("document.querySelectorAll('details').forEach((fold) => (fold.open = true))")
    outside = browser.script(
        """return [...document.querySelectorAll("figure svg")].filter((svg) => {
             const view = svg.viewBox.baseVal;
             return [...svg.querySelectorAll("text, circle, rect, polyline")].some((mark) => {
               const box = mark.getBBox(), at = mark.getCTM(), to = svg.getCTM().inverse().multiply(at);
               const corners = [[box.x, box.y], [box.x + box.width, box.y + box.height]].map(([x, y]) => [
                 to.a * x + to.c * y + to.e, to.b * x + to.d * y + to.f]);
               return corners.some(([x, y]) => x < -3 || y < -3 || x > view.width + 3 || y > view.height + 3);
             });
           }).map((svg) => svg.closest("figure").id)"""
    )
    check(not outside, f"figures with marks outside of the drawing: {outside}", problems)
    figures = browser.script("return [...document.querySelectorAll('figure')].map((figure) => figure.id)")
    for figure in expected["figures"]:
        check(figure in figures, f"no figure {figure} among {figures}", problems)
    tables = browser.script("return [...document.querySelectorAll('.table')].map((table) => table.id)")
    for table in expected["tables"]:
        check(f"table-{table}" in tables, f"no table {table} among {tables}", problems)
    text = browser.script("return document.body.innerText")
    for word in expected["words"]:
        check(word in text, f"no `{word}` in the text", problems)
    check("NaN" not in text and "undefined" not in text, "NaN or undefined in the text", problems)
    shown = browser.script("return [...document.images].filter((image) => image.naturalWidth > 0).length")
    missing = browser.script("return document.images.length") - shown
    check(missing == 0, f"{missing} images cannot be shown", problems)
    if "thumbnails" in expected:
        check((shown > 0) == expected["thumbnails"], f"{shown} thumbnails", problems)

    # Every table sorts by every column, both ways, and loses no row.
    unsorted = browser.script(
        """const wrong = [];
           for (const box of document.querySelectorAll(".table")) {
             const body = box.querySelector("tbody"), rows = body.rows.length;
             [...box.querySelectorAll("th button")].forEach((button, column) => {
               for (const way of [1, -1]) {
                 button.click();
                 const keys = [...body.rows].map((row) => row.cells[column].dataset.sort).filter((key) => key !== undefined).map(Number);
                 const sorted = keys.every((key, place) => place === 0 || way * (key - keys[place - 1]) >= 0);
                 if (!sorted || body.rows.length !== rows) wrong.push(box.id + " column " + column);
               }
             });
           }
           return wrong"""
    )
    check(not unsorted, f"tables that do not sort: {unsorted}", problems)
    kept = browser.script(
        """const field = document.querySelector(".table input[type=search]");
           if (!field) return null;
           const rows = field.closest(".table").querySelector("tbody").rows;
           field.value = "no such row at all"; field.dispatchEvent(new Event("input"));
           const none = [...rows].filter((row) => !row.hidden).length;
           field.value = ""; field.dispatchEvent(new Event("input"));
           return [none, [...rows].filter((row) => row.hidden).length]"""
    )
    check(kept in (None, [0, 0]), f"search leaves {kept} rows", problems)
    broken = browser.script(
        """return [...document.querySelectorAll("a.save")].filter((link) => {
             const bytes = atob(link.href.split("base64,")[1] || "");
             return !bytes.includes("\\r\\n");
           }).length"""
    )
    check(broken == 0, f"{broken} CSV links are empty", problems)
    browser.call("/url", {"url": url})
    for shape, width, height, scheme in [("wide", 1280, 900, "light"), ("narrow", 390, 844, "light"), ("dark", 1280, 900, "dark")]:
        browser.devtools("Emulation.setDeviceMetricsOverride", width=width, height=height, deviceScaleFactor=1, mobile=shape == "narrow")
        browser.devtools("Emulation.setEmulatedMedia", features=[{"name": "prefers-color-scheme", "value": scheme}])
        time.sleep(0.2)
        wide = browser.script("return document.documentElement.scrollWidth - document.documentElement.clientWidth")
        check(wide <= 0, f"{shape}: the page is {wide} pixels wider than the screen", problems)
        browser.screenshot(folder / f"{name}-{shape}.png")
    for message in browser.messages():
        problems.append(f"console: {message['level']}: {message['message']}")
    # Without scripts everything is still there.
    browser.devtools("Emulation.setScriptExecutionDisabled", value=True)
    browser.call("/url", {"url": url})
    source = browser.call("/source")
    for figure in expected["figures"]:
        check(f'id="{figure}"' in source, f"without scripts: no figure {figure}", problems)
    browser.devtools("Emulation.setScriptExecutionDisabled", value=False)
    size = pathlib.Path(page).stat().st_size
    check(size < 3_000_000, f"the page has {size} bytes", problems)
    return problems, size


def main():
    folder = pathlib.Path(sys.argv[1])
    folder.mkdir(parents=True, exist_ok=True)
    pages = [argument.split("=", 1) for argument in sys.argv[2:]]
    failed = False
    browser = Browser()
    try:
        for name, page in pages:
            problems, size = check_page(browser, name, page, folder)
            failed |= bool(problems)
            print(f"{'FAILED' if problems else 'ok':7}{name} ({size / 1000:.0f} kB)")
            for problem in problems:
                print(f"       {problem}")
    finally:
        browser.close()
    print(f"screenshots: {folder}/*.png")
    return failed


if __name__ == "__main__":
    sys.exit(main())
