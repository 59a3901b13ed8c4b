"""The first room, as a program: ``pratipad device room1.py``. Unsent readings are kept on disk."""

from room import Room

device = Room("room1", people=2, volume=30).device(keep=".pratipad/room1")
