"""JetStream's API: requests to the server about its logs, and the answers or this package's errors.

Owns the exchange under the prefix of one JetStream (of the connected server, or of the server that it is a
leaf of), and sending a request again while no party answers. The requests themselves are for `nats_logs`,
`nats_log` and `nats_consumer`.
"""

from __future__ import annotations

import asyncio
import json
from typing import Any

from nats.aio.msg import Msg

from pratipad_nb.errors import NotInvited, Unavailable, WaitTimeout
from pratipad_nb.transport.nats_errors import NO_SUCH_LOG, is_unanswered, no_such_log, refused, unanswered
from pratipad_nb.transport.nats_link import NatsLink

__all__ = ["JetStream"]

#: JetStream's error codes for "no such stream" and "no such consumer".
_NOT_FOUND = frozenset({NO_SUCH_LOG, 10014})
#: Pause before an unanswered request is sent again, in seconds.
_UNANSWERED_PAUSE = 0.1


class JetStream:
    """The JetStream whose subjects begin with `prefix`."""

    def __init__(self, link: NatsLink, prefix: str) -> None:
        self.link = link
        self.prefix = prefix
        #: Streams whose existence this party may not ask for.
        self._unasked: set[str] = set()

    async def call(
        self, verb: str, body: dict[str, Any] | None = None, *, timeout: float = 5.0
    ) -> dict[str, Any]:
        """Call the API and return the answer, which is empty for "not found".

        Raises
        ------
        Unavailable
            If JetStream can't do the call now, or doesn't answer.
        TransportError
            If JetStream refuses.
        """
        data = json.dumps(body).encode() if body is not None else b""
        answer: dict[str, Any] = json.loads(
            (await self.link.request_raw(f"{self.prefix}.{verb}", data, timeout)).data
        )
        error = answer.get("error")
        if error is None:
            return answer
        if error.get("err_code") in _NOT_FOUND:
            return {}
        raise refused(verb, error)

    async def ask_log(
        self,
        stream: str,
        subject: str,
        data: bytes,
        headers: dict[str, str] | None = None,
        timeout: float = 5.0,
    ) -> Msg:
        """Send a request to the log `stream`, an append or a read, and return the answer.

        While no party answers although the log exists, as with a server that is ending, the request is sent
        again: a request without an answerer has changed nothing.

        Raises
        ------
        TransportError
            If the server says that there is no such log.
        Unavailable
            If no party answers in `timeout` seconds, or this party may not ask whether the log exists.
        WaitTimeout
            If the link goes down meanwhile: the request may have arrived.
        """
        end = asyncio.get_running_loop().time() + timeout
        while True:
            left = end - asyncio.get_running_loop().time()
            answer = await self.link.exchange(subject, data, headers, left)
            if not is_unanswered(answer.headers):
                return answer
            if not stream or stream in self._unasked:
                raise unanswered(subject)
            await self._check_existence(stream, subject, end)

    async def _check_existence(self, stream: str, subject: str, end: float) -> None:
        """Pause if the log `stream` exists; raise as `ask_log` if not, or if `end` is near."""
        loop = asyncio.get_running_loop()
        try:
            # False only if the server says that there is no such log.
            exists = bool(await self.call(f"STREAM.INFO.{stream}", timeout=max(0.1, end - loop.time())))
        except NotInvited as error:
            self._unasked.add(stream)
            raise unanswered(subject) from error
        except Unavailable:
            raise
        except WaitTimeout:  # the server ended before it answered
            exists = True
        if not exists:
            raise no_such_log(stream)
        if loop.time() + _UNANSWERED_PAUSE >= end:
            raise unanswered(subject)
        await asyncio.sleep(_UNANSWERED_PAUSE)
