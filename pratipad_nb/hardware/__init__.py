"""Hardware: the sensors, actuators and buses that a device may have, real and simulated. Knows no messages.

Each driver is a callable that returns a reading; `pratipad_nb.device` exports the names that users need.

========================  ==================================================================================
``bus``                   the I²C bus, and its failures as errors
``registers``             a sensor described by a table of registers
``bme280``                temperature, pressure and humidity; its arithmetic is in ``bme280_compensation``
``scd4x``                 CO₂
``led``                   an LED on a pin, or simulated
``host``                  the computer itself as a sensor
``clock``                 where drivers and simulations get their time
``climate``               a simulated room
``simulated_bus``         a simulated bus; ``simulated_bme280`` and ``simulated_scd4x`` are chips on it
``simulated_room_bus``    a simulated room with both chips, on one bus
========================  ==================================================================================
"""
