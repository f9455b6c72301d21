"""Keys, passwords and personal data in texts, by their form. What is found is masked before it is shown.

`hits` says which texts of a column may hold something, `finds` what one of them does hold.
"""

import re
from collections.abc import Iterator
from typing import Any

import pyarrow as pa
import pyarrow.compute as pc

# Word characters before a key would make it part of something longer, such as base64.
_KEYS = {
    "Hugging Face token": r"\bhf_[A-Za-z0-9]{30,}",
    "OpenAI or Anthropic key": r"\bsk-[A-Za-z0-9_-]{20,}",
    "AWS access key": r"\b(?:AKIA|ASIA)[0-9A-Z]{16}\b",
    "Google key": r"\bAIza[0-9A-Za-z_-]{35}",
    "GitHub token": r"\bgh[pousr]_[A-Za-z0-9]{36,}|\bgithub_pat_[A-Za-z0-9_]{22,}",
    "Slack token": r"\bxox[abprs]-[A-Za-z0-9-]{10,}",
    "private key": r"-----BEGIN [A-Z ]*PRIVATE KEY-----",
    "JSON web token": r"\beyJ[A-Za-z0-9_-]{10,}\.eyJ[A-Za-z0-9_-]{10,}\.[A-Za-z0-9_-]{10,}",
    "password in a URL": r"[a-z]{2,10}://[^\s/:@\"']{1,80}:[^\s/@\"']{3,80}@[A-Za-z0-9]",
    "assigned secret": (
        r"(?i:api[_-]?key|secret|passwd|password|access[_-]?token)\\?[\"']?\s{0,3}[:=]\s{0,3}\\?[\"'][^\s\"'\\]{12,}"
    ),
}
_PERSONAL = {
    "e-mail address": (
        r"(?<![\w:/])[A-Za-z0-9][A-Za-z0-9._%+-]{0,63}@[A-Za-z0-9-]{1,63}(?:\.[A-Za-z0-9-]{1,63}){0,4}\.[A-Za-z]{2,}\b"
    ),
    # Only with a country's prefix or an area code set apart: three numbers and two signs are a subtraction.
    "telephone number": (
        r"\+[1-9][0-9]{0,2}[ -]\(?[0-9]{2,4}\)?(?:[ -][0-9]{2,4}){2,4}\b|\([2-9][0-9]{2}\) [2-9][0-9]{2}-[0-9]{4}\b"
    ),
    "home folder": r"/(?:home|Users)/[A-Za-z0-9._-]{2,}",
}
_COMPILED = [
    (check, kind, re.compile(form))
    for check, forms in (("secret", _KEYS), ("personal", _PERSONAL))
    for kind, form in forms.items()
]
# What every find contains. Short and without counted repetitions, so that RE2 stays a small automaton: with the
# forms themselves it is several times slower over a column.
_HINT = (
    r"hf_|sk-|AKIA|ASIA|AIza|gh[pousr]_|github_pat_|xox[abprs]-|-----BEGIN|eyJ|://"
    r"|(?i:api[_-]?key|secret|passw|access[_-]?token)"
    r"|@|\+[1-9][0-9]*[ -]\(?[0-9][0-9]|\([2-9][0-9][0-9]\) |/home/|/Users/"
)
# Addresses set aside for examples (RFC 2606).
_EXAMPLE = re.compile(
    r"@(?:[\w-]+\.)*(?:example\.(?:com|org|net)|[\w-]+\.(?:example|test|invalid|localhost))\b"
)
_KEPT = 4  # characters of a find that are shown


def hits(texts: Any) -> list[int]:
    """Rows of an Arrow column of texts that may hold something: a first look, outside Python."""
    found = pc.fill_null(pc.match_substring_regex(texts, _HINT), False)
    rows = pc.indices_nonzero(found if isinstance(found, pa.Array) else found.combine_chunks())
    return [int(row) for row in rows.to_pylist()]


def finds(text: str) -> Iterator[tuple[str, str]]:
    """(check, what it is, masked) for everything in the text that has one of the forms."""
    for check, kind, form in _COMPILED:
        for match in form.finditer(text):
            if kind == "e-mail address" and _EXAMPLE.search(match[0]):
                continue
            yield check, f"{kind} {match[0][:_KEPT]}… ({len(match[0])} characters)"
