"""A room of the house: its sensors, its window and its light, as one device.

The air and the two chips are simulated, and the drivers don't notice. On a Raspberry Pi with a BME280 and an
SCD41 on its pins, the bus is `open_bus(1)` from `pratipad_nb.device`, and the light `Led(17)`.
"""

from pratipad_nb import Device
from pratipad_nb.device import BME280, SCD4X, Led, ScaledClock, SimulatedRoom, room_bus


class Room:
    """Reads two sensors, opens and shuts a window, blinks.

    `speed` is how many seconds pass in the room while one passes here: 300 makes an hour of twelve seconds.
    """

    def __init__(self, name, *, people, volume, speed=300):
        self.name = name
        self.air = SimulatedRoom(people=people, volume=volume, clock=ScaledClock(speed))
        bus = room_bus(self.air)
        self.climate = BME280(bus)
        self.co2 = SCD4X(bus)
        self.led = Led(name=name)

    def read(self):
        """Return what the sensors and the window's contact say now."""
        window = "open" if self.air.window_open else "shut"
        return self.climate() | {"co2_ppm": self.co2()["co2_ppm"], "window": window}

    def receive(self, order):
        """Carry out an order. One that comes twice does what it did the first time."""
        if order.get("window") in ("open", "shut"):
            self.air.window_open = order["window"] == "open"
        self.led(order)

    def device(self, **options):
        """Return the device that reads this room and gets its orders."""
        return Device(self.name, read=self.read, receive=self.receive, **options)
