"""Until when a campaign may start something."""

from __future__ import annotations

import re
from datetime import datetime, time, timedelta

from nfbmr.errors import ConfigError


def parse_until(text: str, now: float) -> float:
    """The next moment at which the clock of this machine shows a time; or a moment with its date.

    Args:
        text: ``HH:MM`` (tomorrow's where today's has passed), or a date and time in ISO 8601, in
            the machine's time zone where it has no offset.
        now: seconds since 1970.

    Returns:
        Seconds since 1970, after ``now``. Nights in which summer time begins or ends have their
        own length.

    Raises:
        ConfigError: it is neither, or it has passed.
    """
    local_now = datetime.fromtimestamp(now)
    try:
        if re.fullmatch(r"\d{1,2}:\d{2}", text):
            clock = time.fromisoformat(text.zfill(5))
            moment = datetime.combine(local_now.date(), clock)
            if moment.timestamp() <= now:
                moment = datetime.combine(local_now.date() + timedelta(days=1), clock)
            return moment.timestamp()
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
