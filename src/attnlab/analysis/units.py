"""Durations, ages and sizes as short texts, for the terminal and the pages."""

DURATIONS = ((86400, "days"), (3600, "h"), (60, "min"))
AGES = ((86400.0, "d"), (3600.0, "h"), (60.0, "min"), (1.0, "s"))
SIZES = (("GB", 1e9), ("MB", 1e6), ("kB", 1e3))


def format_duration(seconds: float) -> str:
    """Return a duration in one unit, as in `3.4 min`."""
    for size, unit in DURATIONS:
        if seconds >= 2 * size:
            return f"{seconds / size:.1f} {unit}"
    return f"{seconds:.0f} s" if seconds >= 1 else "< 1 s"


def format_age(seconds: float | None) -> str:
    """Return how long ago something was, in one unit without decimals; `-` for None."""
    if seconds is None:
        return "-"
    factor, unit = next((u for u in AGES if seconds >= u[0]), AGES[-1])
    return f"{seconds / factor:.0f} {unit}"


def format_size(num_bytes: int) -> str:
    """Return a number of bytes with its unit."""
    for unit, factor in SIZES:
        if num_bytes >= factor:
            return f"{num_bytes / factor:.3g} {unit}"
    return f"{num_bytes} B"
