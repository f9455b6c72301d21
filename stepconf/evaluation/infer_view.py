"""What a person sees of `stepconf infer`: trees as they grow, then the steps with their confidence."""

from collections.abc import Sequence
from types import TracebackType

from rich.live import Live
from rich.table import Table

from stepconf.inference.base import Growth, Result
from stepconf.inference.run import Clock
from stepconf.ui.console import console, output, say, styled

_SHOWN_TREES = 8
_STRONG, _WEAK = 0.8, 0.5  # confidences from which a step is green, below which it is red


class TreeView:
    """A table of the trees that are growing. `grow` and `done` are what `infer.infer` tells."""

    def __init__(self) -> None:
        self._trees: dict[str, Growth] = {}
        self._answered = self._of = self._tokens = 0
        self._live = Live(console=console, refresh_per_second=8, transient=True, get_renderable=self._table)

    def __enter__(self) -> "TreeView":
        self._live.start()
        return self

    def __exit__(self, kind: type | None, error: BaseException | None, trace: TracebackType | None) -> None:
        self._live.stop()

    def grow(self, growth: Growth) -> None:
        """A tree has one more level."""
        self._trees[growth.key] = growth

    def done(self, result: Result, of: int) -> None:
        """A question is answered."""
        self._trees.pop(result.key, None)
        self._answered, self._of = self._answered + 1, of
        self._tokens += result.spent.tokens

    def _table(self) -> Table:
        caption = f"{self._answered} of {self._of or '?'} answered, {self._tokens:,} tokens"
        table = Table(caption=caption, caption_justify="left", min_width=60)
        for name in ("depth", "alive", "answers", "pruned", "best C", "tokens"):
            table.add_column(name, justify="right")
        for growth in list(self._trees.values())[-_SHOWN_TREES:]:
            best = "-" if growth.best is None else f"{growth.best:.3f}"
            numbers = (growth.depth, growth.alive, growth.completed, growth.pruned, best, growth.tokens)
            table.add_row(*map(str, numbers))
        return table


def show(results: Sequence[Result], clock: Clock) -> None:
    """The one answer step by step, or a table over many."""
    if len(results) == 1:
        _show_answer(results[0])
    else:
        _show_many(results)
    own = clock.own / clock.seconds if clock.seconds else 0.0
    occupancy = f"{clock.occupancy:.1f} continuations under way on average, {clock.peak_under_way} at most"
    say(f"{clock.seconds:.1f} s, {own:.1%} of them outside the engine; {occupancy}")


def _show_answer(result: Result) -> None:
    for number, step in enumerate(result.steps, 1):
        c = step.confidence
        style = "" if c is None else "green" if c >= _STRONG else "red" if c < _WEAK else "yellow"
        head = f"{number:>3}  {'  -  ' if c is None else f'{c:.3f}'}  "
        output.print(styled((head, "bold"), (step.text.strip(), style)), soft_wrap=True)
    spent = result.spent
    if result.answer is None:
        say(f"No answer: {result.failure}", "bold red")
    else:
        shown = "" if result.confidence is None else f"   C {result.confidence:.3f}"
        output.print(styled((f"Answer: {result.answer}{shown}", "bold")), soft_wrap=True)
    given_up = f", {spent.pruned} branches pruned, {spent.merged} merged" if spent.depth else ""
    say(
        f"{result.strategy}: {spent.tokens:,} tokens in {spent.requests} requests, at most "
        f"{spent.peak_branches} branches at once{given_up}"
    )


def _show_many(results: Sequence[Result]) -> None:
    n, tokens = len(results), sum(result.spent.tokens for result in results)
    failed = [result for result in results if result.answer is None]
    table = Table(show_header=False, title=results[0].strategy, title_justify="left", min_width=60)
    table.add_row("questions", f"{n:,}, {n - len(failed):,} answered")
    table.add_row("tokens", f"{tokens:,}, {tokens / n:,.0f} a question")
    table.add_row("branches pruned", f"{sum(result.spent.pruned for result in results):,}")
    if failed:
        table.add_row("first failure", failed[0].failure)
    output.print(table)
