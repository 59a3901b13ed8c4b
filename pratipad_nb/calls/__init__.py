"""Calls: the one place where functions of the user are called, for processors and devices alike.

Owns that a call affects nothing but itself: even if a user's function raises, cancels its task or hangs, its
caller goes on, and so do the event loop and the other calls. What a failed call means for a message, an order
or a reading is for the caller.

===============  =================================================================================
``call``         a call on the event loop, in a task of its own, and whose a cancellation is
``call_errors``  the errors of a call: left behind, took too long, or an exception no call may end with
``time_limit``   how long a user's function may take (`Processor.timeout`)
``worker``       `Worker`: where the methods of one instance run, one at a time: on a thread or the loop
===============  =================================================================================
"""

from pratipad_nb.calls.call import Call, absorb, awaited, is_async, left_behind, settle
from pratipad_nb.calls.call_errors import LeftBehind, TookTooLong, raised
from pratipad_nb.calls.time_limit import TimeLimit
from pratipad_nb.calls.worker import Worker

__all__ = [
    "Call",
    "LeftBehind",
    "TimeLimit",
    "TookTooLong",
    "Worker",
    "absorb",
    "awaited",
    "is_async",
    "left_behind",
    "raised",
    "settle",
]
