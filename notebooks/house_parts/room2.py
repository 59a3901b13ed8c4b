"""The second room, as a program: ``pratipad device room2.py``."""

from room import Room

device = Room("room2", people=1, volume=20).device(keep=".pratipad/room2")
