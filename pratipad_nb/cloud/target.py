"""The target of a cloud client: from the arguments that name a flow to the flow's name and an endpoint.

Owns the forms that a cloud client's target may have; `pratipad_nb.device.target` does the same for a device.
Calls a flow by its methods alone, for cloud clients know no `Flow`.
"""

from __future__ import annotations

import asyncio
import inspect
from pathlib import Path
from typing import Any, cast

from pratipad_nb.errors import SettingsError
from pratipad_nb.settings import Credentials, Endpoint, valid_name

__all__ = ["Target"]


class Target:
    """The flow that a reader reads, and the endpoint of that flow.

    Parameters
    ----------
    flow
        A flow's name, or a flow of this process, which lets the reader in.
    reader
        The reader's name.
    server, certs, endpoint
        Where the named flow is; only for a flow's name, since a flow knows its own endpoint.

    Raises
    ------
    SettingsError
        If no argument says where to connect to, or two do.
    """

    def __init__(
        self, flow: Any, reader: str, server: str | None, certs: str | Path | None, endpoint: Endpoint | None
    ) -> None:
        self._reader = reader
        self._let_in = None if isinstance(flow, str) else getattr(flow, "endpoint_for", None)
        self._endpoint: Endpoint | None = None
        if self._let_in is None:
            self.flow = valid_name(flow, "flow")
            self._endpoint = _plain(flow, server, certs, endpoint)
        else:
            self.flow = flow.name
            if (server, certs, endpoint) != (None, None, None):
                raise SettingsError(
                    f"server, certs and endpoint go with a flow's name; {flow!r:.100} knows its own. Leave "
                    "them out."
                )

    def __str__(self) -> str:
        return self._endpoint.url if self._endpoint is not None else "its flow's server"

    async def endpoint(self) -> Endpoint:
        """Return the endpoint to connect to; a flow is asked for its endpoint once."""
        if self._endpoint is None:
            self._endpoint = await self._invitation()
        return self._endpoint

    async def _invitation(self) -> Endpoint:
        let_in: Any = self._let_in
        if inspect.iscoroutinefunction(let_in):
            return cast("Endpoint", await let_in("reader", self._reader))
        # On a thread: the synchronous method waits for another thread's event loop.
        return cast("Endpoint", await asyncio.to_thread(let_in, "reader", self._reader))


def _plain(flow: str, server: str | None, certs: str | Path | None, endpoint: Endpoint | None) -> Endpoint:
    if endpoint is None:
        if server is None:
            raise SettingsError(
                f"it isn't said where the flow {flow!r} is. Pass server='tls://HOST:PORT' and certs=FOLDER, "
                "or endpoint=…, or the flow itself if it runs in this process."
            )
        return Endpoint(server, flow, None if certs is None else Credentials.in_folder(certs))
    if server is not None or certs is not None:
        raise SettingsError(
            "endpoint=… names the server and the certificates already; leave out server and certs."
        )
    if endpoint.flow != flow:
        raise SettingsError(
            f"the endpoint is of the flow {endpoint.flow!r}, not of {flow!r}. Use its own name."
        )
    return endpoint
