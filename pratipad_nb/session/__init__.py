"""Sessions: `Flow`, the handle that notebooks and the command line use.

Owns a flow as its user sees it, composed of server, certificates and runtime. Draws nothing: pictures and
widgets are in `pratipad_nb.notebook`.
"""

from pratipad_nb.request import AsyncRequest, Request
from pratipad_nb.session.asynchronous import AsyncFlow
from pratipad_nb.session.flow import Flow
from pratipad_nb.session.inspection.preview import Preview, preview
from pratipad_nb.session.inspection.shadow import Shadow
from pratipad_nb.session.inspection.step import Step, Trace
from pratipad_nb.session.inspection.tape import Tape
from pratipad_nb.session.registry import flows

__all__ = [
    "AsyncFlow",
    "AsyncRequest",
    "Flow",
    "Preview",
    "Request",
    "Shadow",
    "Step",
    "Tape",
    "Trace",
    "flows",
    "preview",
]
