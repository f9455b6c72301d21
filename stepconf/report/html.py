"""The page as one HTML text: styles, scripts, fonts and data inside it, and a policy that lets nothing else run."""

import base64
import hashlib
import json
import re
from functools import cache
from importlib.resources import files
from typing import Any

from stepconf.report.rows import SHOWN_SIGNALS

SCRIPTS = ("text.js", "source.js", "charts.js", "overview.js", "steps.js", "explorer.js", "app.js")
OF_TRAINING = ("text.js", "charts.js", "training.js")
_PAGE = files("stepconf.report") / "page"


def page(data: dict[str, Any], scripts: tuple[str, ...] = SCRIPTS) -> str:
    """The page with `data` embedded, which the scripts read as JSON: never as markup.

    The policy names the hashes of our own styles and scripts, and forbids writing markup from scripts (Trusted
    Types): what a model wrote stays text even where an escape were forgotten.
    """
    style, script = _style(), _script(scripts)
    talks = "'self'" if data.get("served") else "'none'"
    policy = (
        f"default-src 'none'; script-src '{_hash(_katex())}' '{_hash(script)}'; style-src '{_hash(style)}'; "
        f"font-src data:; img-src data:; connect-src {talks}; base-uri 'none'; form-action 'none'; "
        "require-trusted-types-for 'script'; trusted-types 'none'"
    )
    parts = {
        "policy": policy,
        "title": _escaped(str(data["name"])),
        "style": style,
        "data": embedded(data | {"signals": SHOWN_SIGNALS}),
        "katex": _katex(),
        "script": script,
    }
    template = _text("index.html")
    return re.sub(r"\{\{(\w+)\}\}", lambda match: parts[match[1]], template)


def embedded(data: Any) -> str:
    """JSON that no HTML parser takes for a tag: `<` is written as its escape. Lone surrogates stay escaped."""
    text = json.dumps(data, ensure_ascii=True, separators=(",", ":"), allow_nan=False)
    return text.replace("<", "\\u003c")


def _escaped(text: str) -> str:
    return text.replace("&", "&amp;").replace("<", "&lt;").replace(">", "&gt;").replace('"', "&quot;")


def _hash(text: str) -> str:
    return "sha256-" + base64.b64encode(hashlib.sha256(text.encode()).digest()).decode()


@cache
def _katex() -> str:
    return _text("katex/katex.min.js").replace("</script", "<\\/script")


@cache
def _script(scripts: tuple[str, ...]) -> str:
    """The scripts as one module, in the order in which they use each other."""
    return "\n".join(_text(name) for name in scripts)


@cache
def _style() -> str:
    """KaTeX's styles with its fonts inside them, then ours."""
    fonts = re.sub(
        r"src:url\(fonts/([\w-]+\.woff2)\) format\(\"woff2\"\)[^;}]*",
        lambda match: f'src:url(data:font/woff2;base64,{_base64(match[1])}) format("woff2")',
        _text("katex/katex.min.css"),
    )
    return fonts + _text("style.css")


def _text(name: str) -> str:
    return (_PAGE / name).read_text(encoding="utf-8")


def _base64(font: str) -> str:
    return base64.b64encode((_PAGE / "katex" / "fonts" / font).read_bytes()).decode()
