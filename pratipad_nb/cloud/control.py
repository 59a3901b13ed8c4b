"""Control: sends requests from the cloud to the edge of a flow, and understands the answers.

The exchange of `ControlFrame`s has two ends: this module is the cloud's end, which asks;
`pratipad_nb.runtime.edge.control` is the edge's end, which answers.

Owns the requests, the meaning of the answers, and that an error at the edge is raised here as the same class.
Carrying out a request is for the edge.

=========== ======================================= ==================================================
verb        arguments                               answer's arguments (verb ``"ok"``)
=========== ======================================= ==================================================
describe    none                                    those of `Description`
pull        ``n``, ``device`` (a name or None)      ``request``: the request's id
request     ``request``, ``timeout`` in seconds     those of `Standing`, once over or after ``timeout``
cancel      ``request``                             those of `Standing`
stats       none                                    the counters of all edges, as ``FlowStats`` has them
reader      ``domain``: of the asker's server       none; see `pratipad_nb.transport.readers`
=========== ======================================= ==================================================

An answer with the verb ``"error"`` has ``kind``, the name of a class in `pratipad_nb.errors`, and ``text``.
"""

from __future__ import annotations

from typing import Any, TypeVar

import msgspec

from pratipad_nb import errors
from pratipad_nb.errors import FlowError, FrameError, PratipadError, WaitTimeout
from pratipad_nb.request import Standing
from pratipad_nb.settings import Delivery
from pratipad_nb.transport.codec import decode, encode
from pratipad_nb.transport.frames import ControlFrame
from pratipad_nb.transport.protocol import Connection
from pratipad_nb.transport.subjects import Subjects

__all__ = ["Control", "Description"]


class Description(msgspec.Struct, frozen=True):
    """The edge's description of its flow.

    Attributes
    ----------
    notation
        The flow's canonical notation.
    delivery
        ``"durable"`` or ``"fast"``.
    cloud_reaches_devices
        Whether every hop between Output and the devices is ``<~>``.
    text
        The error text for an order that can't reach devices: it shows the first hop that is one-way.
    """

    notation: str
    delivery: Delivery
    cloud_reaches_devices: bool
    text: str = ""


Answer = TypeVar("Answer")


class Control:
    """Asks the edge of `flow` over `connection`, as the reader `reader`."""

    def __init__(self, connection: Connection, flow: str, reader: str) -> None:
        self._connection = connection
        self._flow = flow
        self._subject = Subjects(flow).control(reader)

    async def describe(self, timeout: float = 5.0) -> Description:
        """Return the edge's description of its flow. Raises the errors of `ask`."""
        return _understood(await self.ask("describe", {}, timeout), Description)

    async def pull(self, n: int, device: str | None, timeout: float = 5.0) -> str:
        """Ask for `n` readings, from `device` or from all in turn, and return the request's id."""
        answer = await self.ask("pull", {"n": n, "device": device}, timeout)
        return str(_understood(answer, dict[str, Any]).get("request", ""))

    async def progress(self, request: str, seconds: float) -> Standing:
        """Wait at most `seconds` for the end of `request`, and return its standing."""
        # The edge answers when `seconds` have passed; the margin is for the way.
        answer = await self.ask("request", {"request": request, "timeout": seconds}, seconds + 5.0)
        return _understood(answer, Standing)

    async def cancel(self, request: str, timeout: float = 5.0) -> Standing:
        """Let the edge ask devices for no more readings of `request`, and return the request's standing."""
        return _understood(await self.ask("cancel", {"request": request}, timeout), Standing)

    async def prepare(self, timeout: float = 5.0) -> None:
        """Let the edge make this reader's consumer and the log of its position, at the connected server."""
        await self.ask("reader", {"domain": self._connection.domain}, timeout)

    async def ask(self, verb: str, arguments: dict[str, Any], timeout: float) -> dict[str, Any]:
        """Send a request and return the arguments of its answer.

        Raises
        ------
        WaitTimeout
            If no edge answers: the flow isn't running.
        PratipadError
            The edge's error, of the same class.
        FrameError
            If the answer's verb is neither ``"ok"`` nor ``"error"``.
        """
        try:
            data = await self._connection.request(
                self._subject, encode(ControlFrame(verb, arguments)), timeout
            )
        except WaitTimeout as error:
            raise WaitTimeout(
                f"the flow {self._flow!r} does not answer ({verb}; {error}). Start it where it is to run "
                "(`flow.start()`, or `pratipad run FILE`), or check its name."
            ) from error
        answer = decode(data, ControlFrame)
        if answer.verb == "error":
            raise _error_of(answer.arguments)
        if answer.verb != "ok":
            raise FrameError(
                f"the flow {self._flow!r} answered {verb!r} with {answer.verb!r}, not 'ok' or 'error'."
            )
        return answer.arguments


def _error_of(arguments: dict[str, Any]) -> PratipadError:
    """Return the error of the class that `arguments` name, or a `FlowError` if there is no such class."""
    kind, text = str(arguments.get("kind", "")), str(arguments.get("text", ""))
    found = getattr(errors, kind, None) if kind in errors.__all__ else None
    if found is None:
        return FlowError(f"{kind}: {text}" if kind else text)
    made: PratipadError = found(text)
    return made


def _understood(arguments: dict[str, Any], kind: type[Answer]) -> Answer:
    try:
        return msgspec.convert(arguments, kind)
    except msgspec.ValidationError as error:
        raise FrameError(f"an answer of the flow can't be understood: {error}") from error
