"""Figures in words."""

from typing import Any


def number(value: float | None, unit: str = "") -> str:
    """Three digits, or a dash for none."""
    return "-" if value is None else f"{value:.3f}{unit}"


def interval(value: dict[str, Any], digits: int = 3) -> str:
    """An estimate with its 95 % bounds, where they are known."""
    if value["estimate"] is None:
        return "-"
    if value["low"] is None:
        return f"{value['estimate']:.{digits}f}"
    return f"{value['estimate']:.{digits}f} [{value['low']:.{digits}f}, {value['high']:.{digits}f}]"


def interval_over_problems(interval: dict[str, Any]) -> str:
    """The same, and of how many problems it is."""
    if interval["estimate"] is None:
        return "undefined (one class only)"
    bounds = f"[{number(interval['low'])}, {number(interval['high'])}]"
    return f"{interval['estimate']:.3f}  95 % {bounds} over {interval['n_clusters']:,} problems"


def reasons(drops: dict[str, int]) -> str:
    """How many by each reason."""
    return ", ".join(f"{n:,} {reason}" for reason, n in drops.items()) or "none"
