"""Debian's Chromium under Playwright. Tests that need it skip, and say so, where either is absent."""

import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import pytest

CHROMIUM = shutil.which("chromium") or shutil.which("chromium-browser") or shutil.which("google-chrome")
# As root there is no sandbox; the others keep the browser from calling home.
FLAGS = (
    "--no-sandbox --disable-gpu --disable-quic --no-first-run --disable-background-networking "
    "--disable-component-update --disable-sync"
).split()

needs_browser = pytest.mark.skipif(
    CHROMIUM is None or find_spec("playwright") is None or find_spec("axe_playwright_python") is None,
    reason="no chromium on this machine (apt install chromium), or no playwright (the extra `dev`)",
)


@contextmanager
def launched() -> Iterator[Any]:
    """A Playwright browser."""
    from playwright.sync_api import sync_playwright

    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=CHROMIUM, args=FLAGS)
        yield browser
        browser.close()


class Reader:
    """A page, and what went wrong in it: console errors, exceptions, and requests to anywhere but `home`."""

    def __init__(self, browser: Any, home: str, **options: Any) -> None:
        self.page = browser.new_context(**options).new_page()
        self.page.set_default_timeout(20_000)
        self.home = home
        self.errors: list[str] = []
        self.page.on("console", lambda m: self.errors.append(m.text) if m.type == "error" else None)
        self.page.on("pageerror", lambda error: self.errors.append(str(error)))
        self.page.on("request", self._note_request)

    def _note_request(self, request: Any) -> None:
        if not request.url.startswith((self.home, "data:")):
            self.errors.append(f"request to {request.url}")

    def open(self, fragment: str = "#/overview") -> Any:
        """Go there, and wait until what was asked for is shown."""
        self.page.goto(self.home + fragment)
        self.settle()
        return self.page

    def settle(self) -> None:
        self.page.wait_for_function(
            """() => !document.querySelector('[aria-busy]') && (
                document.querySelector('#overview:not([hidden]) h2')
                || (document.querySelector('#explorer:not([hidden]) .status')?.textContent
                    && document.querySelector('.detail .step, .detail .notice')))"""
        )

    def close(self) -> None:
        self.page.context.close()


def serious_violations(page: Any) -> list[str]:
    """What axe-core finds serious or critical, a line each."""
    from axe_playwright_python.sync_playwright import Axe

    found = Axe().run(page).response["violations"]
    return [
        f"{one['id']}: {one['help']}: {[node['html'][:200] for node in one['nodes'][:3]]}"
        for one in found
        if one["impact"] in ("serious", "critical")
    ]


def tokens_shown(page: Any) -> list[dict[str, Any]]:
    """Every token of the steps on the page: its text, its tint, and the values that hovering shows."""
    shown: list[dict[str, Any]] = page.evaluate(
        """() => [...document.querySelectorAll('.step .t[data-i]')].map((node) => {
            node.dispatchEvent(new PointerEvent('pointerover', {bubbles: true}));
            const value = (key) => document.querySelector(`#tip [data-value="${key}"]`)?.textContent;
            return {
                step: Number(node.closest('.step').id.slice('step-'.length)),
                text: node.textContent,
                band: Number(/ b(\\d)/.exec(node.className)[1]),
                entropy: value('entropy'), logprob: value('logprob'), max_prob: value('max-prob'),
            };
        })"""
    )
    return shown


def screenshots(reader: Reader, folder: Path, name: str) -> None:
    """Pictures of the whole page, light and dark, for a person to look at."""
    for scheme in ("light", "dark"):
        reader.page.emulate_media(color_scheme=scheme)
        reader.page.screenshot(path=folder / f"{name}-{scheme}.png", full_page=True)
