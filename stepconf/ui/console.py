"""The one way to print.

Strings are never markup: `output` and `console` show what is in them, from any source, and a style is given beside its
text (`styled`).
"""

from typing import Any

from rich.console import Console, ConsoleDimensions
from rich.text import Text

from stepconf.core.printable import printable
from stepconf.stores.places import with_urls

_LEAST_WIDTH = 60  # columns; in fewer, tables are columns of single letters, or Rich fails


class _Console(Console):
    """To which a string is data: no markup, no emoji codes, nothing that a terminal would obey.

    Rich measures and renders each string (a line, a title, a cell, a label) by `render_str`.
    """

    def __init__(self, stderr: bool = False) -> None:
        super().__init__(stderr=stderr, markup=False, emoji=False, highlight=False)

    def render_str(self, text: str, **options: Any) -> Text:
        return super().render_str(_plain(text), **options)

    @property
    def size(self) -> ConsoleDimensions:
        """As the terminal says, but never too narrow for a table.

        Only bars that are redrawn in place must have the true width, else each leaves lines where it was.
        """
        found = super().size
        if self.stderr and self.is_terminal:
            return found
        return ConsoleDimensions(max(found.width, _LEAST_WIDTH), found.height)

    @size.setter
    def size(self, new_size: tuple[int, int]) -> None:
        self.width, self.height = new_size


console = _Console(stderr=True)
output = _Console()


def _plain(text: str) -> str:
    """What may be shown: nothing that a terminal would obey, and what a user named by a URL by that."""
    return printable(with_urls(text))


def styled(*parts: tuple[str, str]) -> Text:
    """Texts, each with its style: the only way to one, as `rich.text.Text` lets control characters through."""
    return Text.assemble(*((_plain(text), style) for text, style in parts))


def say(line: str, style: str = "") -> None:
    """Print one line, however long; a line feed, which only what was read can hold, is shown as `\\n`."""
    output.print(styled((line.replace("\n", r"\n"), style)), soft_wrap=True)
