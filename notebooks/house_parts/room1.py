"""The first room, as a program: ``pratipad device room1.py``. What it measured and couldn't send yet is kept on disk."""

from room import Room

device = Room("room1", people=2, volume=30).device(keep=".pratipad/room1")
