"""Units of measurement, as far as word problems use them."""

# dimension: unit → how many of the first unit of its line it is
_SCALES: dict[str, dict[str, float]] = {
    "time": {"second": 1, "sec": 1, "minute": 60, "min": 60, "hour": 3600, "hr": 3600,
             "day": 86400, "week": 604800},
    "length": {
        "mm": 1, "millimeter": 1, "cm": 10, "centimeter": 10, "meter": 1000, "metre": 1000,
        "km": 1e6, "kilometer": 1e6, "kilometre": 1e6, "nm": 1e-6,
    },
    "length (imperial)": {"inch": 1, "inches": 1, "foot": 12, "feet": 12, "ft": 12, "yard": 36, "yd": 36,
                          "mile": 63360, "mi": 63360},
    "mass": {"mg": 1, "milligram": 1, "gram": 1000, "kg": 1e6, "kilogram": 1e6},
    "mass (imperial)": {"ounce": 1, "oz": 1, "pound": 16, "lb": 16},
    "money": {"cent": 1, "dollar": 100, "buck": 100, "usd": 100},
    "volume": {"ml": 1, "milliliter": 1, "liter": 1000, "litre": 1000},
    "angle": {"degree": 1, "deg": 1},
}  # fmt: skip
_KNOWN = {unit: (dimension, scale) for dimension, units in _SCALES.items() for unit, scale in units.items()}


def scale(unit: str) -> tuple[str, float] | None:
    """The dimension of a unit and its size there; None for words that are no single known unit."""
    word = unit.strip().rstrip(".").lower()
    return _KNOWN.get(word) or _KNOWN.get(word.removesuffix("s"))


def is_unit(word: str) -> bool:
    """Whether a plain word behind a value is what is counted ("cm", "apples") and no product of letters."""
    return (
        len(word) > 3
        or scale(word) is not None
        or word.lower() in ("per", "mph", "km", "sq", "cups", "men", "usd")
    )
