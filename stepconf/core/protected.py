"""What a step boundary never cuts: inline maths and blocks, found in linear time and painted over.

A block is display maths, a LaTeX environment, fenced code, an `[asy]` figure or a Markdown table. A fence or
figure without its closer, in a solution that was cut, goes to the end of the text; any other opener without
its closer protects nothing. Closing tags are painted as spaces: they trail what they close. Inline maths does
not reach across a blank line, nor does `$$` unless both stand apart from their content at line ends, so a
stray dollar spoils a paragraph at most.

Text is hostile: every quantifier that could be retried is possessive, and a search for a closer stops at the
next opener of its kind, so that failed searches do not overlap.
"""

import re

Span = tuple[int, int]

# What the painted characters are; a text that holds them itself gets odd boundaries, but valid spans.
INLINE, BLOCK_END, BLOCK = "\x01", "\x02", "\x03"

_NOT_BLANK_LINE = r"\n(?![^\S\n]*+\n)"
_PLAIN = r"[^$\\\n\x02\x03]*+"
_BODY = rf"{_PLAIN}(?:(?:\\.|{_NOT_BLANK_LINE}){_PLAIN})*+"
# After a dollar. One may be a price: as in Pandoc, no formula ends before a digit or has a space at one end
# only. Two that nothing closes are taken together, as text.
_DOLLARS = rf"""(?:\$(?:
        (?:[^$\\\n\x02\x03]++|\\.|\$(?!\$)|{_NOT_BLANK_LINE})*+\$\$
        |[ \t]*+\n(?:[^$\\\x02\x03]++|\\.|\$(?!\$))*+(?<=\n)\$\$
        |)
    |(?!(?<=\d\$)[\s.,;:!?)])(?:(?![\s$]){_BODY}(?<!\s)|(?=\s){_BODY}(?<=\s))\$(?!\d))"""
# The one group takes all that is found, so that `split` loses nothing: formulas, and what must not be read as
# their beginning (`\$`, `\\`). The second form is for texts without `\(` and `\[`: three times as fast.
_FORMULA = re.compile(
    rf"""([\\$](?:
    (?<=\$){_DOLLARS}
    |(?<=\\)\((?:[^\\\n\x02\x03]++|\\[^()\n]|{_NOT_BLANK_LINE})*+\\\)
    |(?<=\\)\[(?:[^\\\x02\x03]++|\\[^\[\]])*+\\\]
    |(?<=\\).))""",
    re.VERBOSE | re.DOTALL,
)
_DOLLAR_FORMULA = re.compile(rf"(\$(?<!(?<!\\)\\\$){_DOLLARS})", re.VERBOSE | re.DOTALL)
_ENVIRONMENT = re.compile(r"\\(begin|end)\{([^{}\n]{1,40}+)\}")
# Environments of prose: their insides are divided like any text.
_PROSE = frozenset(
    "document proof solution answer enumerate itemize description theorem lemma claim corollary "
    "proposition definition remark example case center quote quotation abstract problem step".split()
)
_ENVIRONMENTS_OF_PROSE = "|".join(sorted(_PROSE))
_ATTRIBUTES = r"""(?:\s++[\w:-]++=(?:"[^"<>\n]*+"|'[^'<>\n]*+'|[^\s"'<>/]++))*+"""
# `<br>` and the tokens that end a turn close what stands before them, too.
CLOSING_TAG = re.compile(
    rf"""</[A-Za-z][\w:-]*+[ ]?>|<(?:br|hr)[ ]?/?>|<[A-Za-z][\w:-]*+{_ATTRIBUTES}[ ]?/>|\[/[A-Za-z_]{{3,20}}+\]
    |<[|｜](?!\w*?(?:start|begin))[\w▁-]++[|｜]>|\\end\{{(?:{_ENVIRONMENTS_OF_PROSE})\*?\}}""",
    re.VERBOSE,
)
OPENING_TAG = re.compile(
    rf"""<[A-Za-z][\w:-]*+{_ATTRIBUTES}[ ]?>|(?<!\\)\[[A-Z_]{{4,20}}+\]|<[|｜][\w▁-]++[|｜]>
    |\\begin\{{(?:{_ENVIRONMENTS_OF_PROSE})\*?\}}(?:\[[^\]\n]{{0,80}}+\])?""",
    re.VERBOSE,
)
_CODE = re.compile(r"[^\S\n]*+(?P<fence>`{3,}+|~{3,}+)(?P<info>[^\n]*+)|\[asy\]")
_TABLE_RULE = re.compile(r"\n[ \t]*+(?=[|:-])[|: \t-]++(?=\n|\Z)")
_TABLE_ROWS = re.compile(r"(?:\n[^\n|]*+\|[^\n]*+)*+")
_OTHER_NEWLINES = "\r\v\f\x85\u2028\u2029"
_TO_NEWLINE = str.maketrans(dict.fromkeys(_OTHER_NEWLINES, "\n"))


def plain_newlines(text: str) -> str:
    """The text with every kind of line end as `\\n`, of the same length (`\\r\\n` gains a space)."""
    if not any(newline in text for newline in _OTHER_NEWLINES):
        return text
    return text.replace("\r\n", " \n").translate(_TO_NEWLINE)


def mask(text: str) -> str:
    """The text with its protected regions painted over, of the same length. Line ends must be plain.

    Inline maths becomes `INLINE`, a block `BLOCK` with `BLOCK_END` as its last character. A formula that ends
    in a full stop keeps it as its last character. Closing tags outside code become spaces.
    """
    if "```" in text or "~~~" in text or "[asy]" in text:
        text = _paint(text, code_blocks(text))
    text = _without_closing_tags(text)
    if "$" in text or "\\" in text:
        parts = _formulas(text)
        parts[1::2] = map(_painted, parts[1::2])
        text = "".join(parts)
    if "|" in text:
        text = _paint(text, _tables(text))
    return text


def protected_regions(text: str) -> list[Span]:
    """The outermost regions that `mask` paints over, in order."""
    regions = code_blocks(text)
    parts = _formulas(_without_closing_tags(_paint(text, regions)))
    at = 0
    for index, part in enumerate(parts):
        if index % 2 and len(part) > 2:
            regions.append((at, at + len(part)))
        at += len(part)
    parts[1::2] = map(_painted, parts[1::2])
    regions += _tables("".join(parts))
    outermost: list[Span] = []
    for start, end in sorted(regions, key=lambda region: (region[0], -region[1])):
        if not outermost or start >= outermost[-1][1]:
            outermost.append((start, end))
    return outermost


def _without_closing_tags(text: str) -> str:
    if ">" in text or "\\end{" in text or "[/" in text:
        return CLOSING_TAG.sub(lambda tag: " " * len(tag[0]), text)
    return text


def _paint(text: str, blocks: list[Span]) -> str:
    pieces: list[str] = []
    at = 0
    for start, end in blocks:
        pieces += (text[at:start], BLOCK * (end - start - 1), BLOCK_END)
        at = end
    return "".join((*pieces, text[at:])) if blocks else text


def _painted(part: str) -> str:
    """A formula, painted over; what is no longer than two characters is none."""
    if part[-1] == "$" and part[1] != "$":
        last = part[-2]
    elif len(part) <= 2:
        return part
    elif part[1] == "(":
        last = part[-3] if part[-3] != " " else part[-4]
    else:
        return BLOCK * (len(part) - 1) + BLOCK_END
    if last == "." and part[-3] != "." and len(part) > 3:
        return INLINE * (len(part) - 1) + "."
    return INLINE * len(part)


def _formulas(text: str) -> list[str]:
    """The text in parts: every second one is a formula or environment, or at most two characters that are
    none."""
    if "\\begin{" in text and (environments := _environments(text)):
        return _formulas_and_environments(text, environments)
    has_backslashes = "\\(" in text or "\\[" in text
    pattern: re.Pattern[str] = _FORMULA if has_backslashes else _DOLLAR_FORMULA
    parts: list[str] = pattern.split(text)
    return parts


def _formulas_and_environments(text: str, environments: dict[int, int]) -> list[str]:
    parts: list[str] = []
    done = at = 0
    while found := _FORMULA.search(text, at):
        start, at = found.span()
        if at - start == 2:
            if start not in environments:
                continue
            at = environments[start]
        parts += (text[done:start], text[start:at])
        done = at
    parts.append(text[done:])
    return parts


def _environments(text: str) -> dict[int, int]:
    """Where each `\\begin{x}` of a formula, table or listing ends; an unclosed one inside is passed over."""
    ends: dict[int, int] = {}
    n_open: dict[str, int] = {}
    stack: list[tuple[str, int]] = []
    for found in _ENVIRONMENT.finditer(text):
        name = found[2]
        if name.rstrip("*") in _PROSE:
            continue
        if found[1] == "begin":
            stack.append((name, found.start()))
            n_open[name] = n_open.get(name, 0) + 1
        elif n_open.get(name):
            opened = ""
            while opened != name:
                opened, start = stack.pop()
                n_open[opened] -= 1
            ends[start] = found.end()
    return ends


def code_blocks(text: str) -> list[Span]:
    """Fences and `[asy]` figures; one that nothing closes goes to the end of the text, as in CommonMark.

    A fence of more than eight marks counts as eight.
    """
    marks = _code_marks(text)
    blocks: list[Span] = []
    index = 0
    while index < len(marks):
        opener = marks[index]
        index += 1
        kind, width = opener[0].lstrip()[0], min(len(opener["fence"] or ""), 8)
        if (blocks and opener.start() < blocks[-1][1]) or (kind == "`" and "`" in opener["info"]):
            continue
        if kind == "[":
            end = text.find("[/asy]", opener.end()) + len("[/asy]")
            is_closed = end >= len("[/asy]")
        else:
            closer = _closing_fence(marks, index, kind, width)
            is_closed = closer >= 0
            if is_closed:
                end, index = marks[closer].end(), closer + 1
        if not is_closed:
            blocks.append((opener.start(), len(text.rstrip())))
            break
        blocks.append((opener.start(), end))
    return blocks


def _code_marks(text: str) -> list[re.Match[str]]:
    """Lines that are fences, and `[asy]` outside them: looked up as literals, many times as fast as by a pattern."""
    found: dict[int, re.Match[str]] = {}
    for literal in ("```", "~~~", "[asy]"):
        start = end = 0  # of the line, looked for once a line
        fence: re.Match[str] | None = None
        at = text.find(literal)
        while at >= 0:
            if not start <= at < end:
                start = text.rfind("\n", end, at) + 1 or end
                end = text.find("\n", at) + 1 or len(text)
                line = _CODE.match(text, start)
                fence = line if line and line["fence"] else None
            mark = fence or (_CODE.match(text, at) if literal == "[asy]" else None)
            if mark:
                found[mark.start()] = mark
            at = text.find(literal, at + len(literal) if literal == "[asy]" and not fence else end)
    return [mark for _, mark in sorted(found.items())]


def _closing_fence(marks: list[re.Match[str]], first: int, kind: str, width: int) -> int:
    """The index of the first bare fence of the kind that is at least as wide; -1 for none."""
    for index in range(first, len(marks)):
        fence = marks[index]["fence"] or ""
        if fence[:1] == kind and min(len(fence), 8) >= width and not marks[index]["info"].strip():
            return index
    return -1


def _tables(text: str) -> list[Span]:
    """Markdown tables: a header, a rule (`|---|---|`) and the rows, without the line end of the last."""
    tables: list[Span] = []
    for rule in _TABLE_RULE.finditer(text):
        if (tables and rule.start() < tables[-1][1]) or "|" not in rule[0] or "-" not in rule[0]:
            continue
        header = text.rfind("\n", 0, rule.start()) + 1
        rows = _TABLE_ROWS.match(text, rule.end())
        if rows and text.find("|", header, rule.start()) >= 0:
            tables.append((header, rows.end()))
    return tables
