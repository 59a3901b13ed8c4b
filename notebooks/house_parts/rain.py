"""Where the rain comes from: a record that lies on the disk, or a service on the internet.

Both are called with the seconds since the flow began, and return the rain of the day in millimetres.
"""

import json
import time
from urllib.request import urlopen

from vega_datasets import data


class RecordedRain:
    """Rain as measured in Seattle, a day after the other.

    A record of days says little about an hour, so the days pass quickly here: one takes `seconds`.
    """

    def __init__(self, begin="2013-04-13", seconds=1.5):
        weather = data.seattle_weather()
        self.days = weather.loc[weather["date"] >= begin, "precipitation"].tolist()
        self.seconds = seconds

    def __call__(self, elapsed):
        return self.days[int(elapsed / self.seconds) % len(self.days)]


class OnlineRain:
    """Today's rain at a place, from Open-Meteo (https://open-meteo.com: no key, free for non-commercial use).

    Open-Meteo is asked every quarter of an hour. While it can't be reached, its last answer holds; without an
    answer, the reading fails, and lies among the flow's dead letters until it is retried.
    """

    url = "https://api.open-meteo.com/v1/forecast"
    fresh = 900.0

    def __init__(self, latitude, longitude):
        self.place = f"latitude={latitude}&longitude={longitude}"
        self.known = None
        self.asked = float("-inf")

    def __call__(self, _elapsed):
        if time.monotonic() - self.asked > self.fresh:
            try:
                self.known = self.ask()
            except OSError:
                if self.known is None:
                    raise
            self.asked = time.monotonic()
        return self.known

    def ask(self):
        query = f"{self.place}&daily=precipitation_sum&timezone=auto&forecast_days=1"
        with urlopen(f"{self.url}?{query}", timeout=5) as answer:
            return json.load(answer)["daily"]["precipitation_sum"][0]
