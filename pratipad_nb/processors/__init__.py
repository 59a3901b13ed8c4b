"""Processors: the protocol they follow, and adapting any callable to one batch call.

This package has one idea: whatever form a user's processor has, the runtime calls ``adapt(target).run`` once
for many messages, and does no work per message outside one tight loop. Where and when processors are called
is for `pratipad_nb.runtime` and `pratipad_nb.calls`.

=========== =======================================================================================
base        `Processor` and `every`: the base class of a user's processors
keyed       `Keyed`: state that follows the keys of messages
reply       `reply`: how a processor answers a device
adapter     `adapt`: reads a class or function and picks its form
forms       the loops of ``def`` processors
async_forms the loops of ``async def`` processors
typed       pydantic models in the payload's annotation
returned    the checks of results, and the errors for results that can't be any
outcome     `Outcome` and `Failure`: the results and failures of a batch call
copying     `copy_payload`, `copied`: private copies of payloads
keeping     the moment at which a result becomes the flow's own
ready_made  `Filter`, `Throttle`, `Deadband`
window      `Window`
=========== =======================================================================================
"""

from pratipad_nb.processors.adapter import Adapted, Run, Timer, adapt, check
from pratipad_nb.processors.base import Processor, every
from pratipad_nb.processors.copying import copied, copy_payload
from pratipad_nb.processors.forms import MessageOf
from pratipad_nb.processors.keeping import keeping
from pratipad_nb.processors.keyed import Keyed
from pratipad_nb.processors.outcome import Failure, Outcome
from pratipad_nb.processors.ready_made import Deadband, Filter, Throttle
from pratipad_nb.processors.reply import reply
from pratipad_nb.processors.window import Window

__all__ = [
    "Adapted",
    "Deadband",
    "Failure",
    "Filter",
    "Keyed",
    "MessageOf",
    "Outcome",
    "Processor",
    "Run",
    "Throttle",
    "Timer",
    "Window",
    "adapt",
    "check",
    "copied",
    "copy_payload",
    "every",
    "keeping",
    "reply",
]
