"""Until when a campaign may start something."""

from __future__ import annotations

import re
from datetime import datetime, time, timedelta

from nfbmr.errors import ConfigError

OVER_HOURS = 6
"""A time of day that passed less than so long ago is over; else tomorrow's is meant."""


def parse_until(text: str, now: float) -> float:
    """The moment at which the clock of this machine shows a time; or a moment with its date.

    A command that was lost shortly before its time is started again shortly after it: then the
    time is over, and not that of the next day.

    Args:
        text: ``HH:MM``, or a date and time in ISO 8601, in the machine's time zone where it has no
            offset.
        now: seconds since 1970.

    Returns:
        Seconds since 1970. A time of day that passed less than ``OVER_HOURS`` ago is that one, in
        the past; else it is the next one. Nights in which summer time begins or ends have their own
        length.

    Raises:
        ConfigError: it is neither, or a date that has passed.
    """
    local_now = datetime.fromtimestamp(now)
    try:
        if re.fullmatch(r"\d{1,2}:\d{2}", text):
            clock = time.fromisoformat(text.zfill(5))
            days = (local_now.date() + timedelta(days=number) for number in (-1, 0, 1, 2))
            moments = (datetime.combine(day, clock).timestamp() for day in days)
            return next(moment for moment in moments if now - moment < 3600 * OVER_HOURS)
        moment = datetime.fromisoformat(text)
    except ValueError as error:
        raise ConfigError(
            f"--until {text!r}: expected a time of day, as in 06:00, or a date and time, as in "
            "2026-11-25T06:00."
        ) from error
    if moment.timestamp() <= now:
        raise ConfigError(
            f"--until {text!r} has passed: it is {local_now.isoformat(' ', 'minutes')}."
        )
    return moment.timestamp()
