"""The house's rule: bad air and little rain open the window.

The notebook calls the rule, and so does ``pratipad cloud house --rule rule.py``. The returned order goes back
to the device that sent the message; None sends nothing.
"""

from pratipad_nb.device import Blink

BAD_AIR, GOOD_AIR = 800, 600  # ppm of CO2
WET = 5  # mm of rain in a day


def rule(message):
    reading = message.payload
    co2, rain = reading["co2_ppm"], reading["precipitation_mm"]
    if reading["window"] == "shut" and co2 > BAD_AIR and rain < WET:
        return {"window": "open", **Blink(times=4, period=0.4).order()}
    if reading["window"] == "open" and (co2 < GOOD_AIR or rain >= WET):
        return {"window": "shut", "led": "off"}
    return None
