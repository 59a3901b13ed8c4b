"""The account of a flow: a check that a server keeps the flow's parties apart, or that sharing is accepted.

Owns the refusal of a server where all parties share an account, and the warning where that is accepted. The
accounts themselves are for `pratipad_nb.server.accounts`.
"""

from __future__ import annotations

import logging

from pratipad_nb.errors import FlowError, SettingsError
from pratipad_nb.server.accounts import flow_account
from pratipad_nb.settings import Endpoint, FlowOptions
from pratipad_nb.transport.nats_account import account_of
from pratipad_nb.transport.protocol import Connection

__all__ = ["check_account", "check_security"]

log = logging.getLogger(__name__)

_OPEN = (
    "devices and readers of every flow there can have the server write acknowledgements and stored messages "
    "to any subject, also to another flow's orders, results and positions"
)


def check_security(options: FlowOptions, server: str | None, tenant: str) -> None:
    """Raise `SettingsError` if `options` ask for a security that the flow's server can't have."""
    if options.security != "shared-account":
        return
    if server is None:
        raise SettingsError(
            "security='shared-account' is for a server that others run; the embedded server gives each flow "
            "accounts of its own. Leave it out, or pass server= and certs=."
        )
    if tenant:
        raise SettingsError(
            f"the flow of tenant {tenant!r} needs an account of its own, which security='shared-account' "
            "doesn't ask for. Leave out one of the two."
        )


async def check_account(connection: Connection, endpoint: Endpoint, options: FlowOptions) -> None:
    """Check that the edge's connection belongs to the account of its flow.

    Raises
    ------
    FlowError
        If it belongs to another, unless `options` accept that; then a warning says what stays open.
    """
    if not endpoint.url.startswith("tls://"):
        return
    account, wanted = await account_of(connection), flow_account(endpoint.flow, endpoint.tenant)
    if account == wanted:
        return
    there = f"the account {account!r}" if account else "an account that the server doesn't name"
    if options.security == "shared-account":
        log.warning(
            "flow %r runs in %s of %s, which is not its own: %s.", endpoint.flow, there, endpoint.url, _OPEN
        )
        return
    raise FlowError(
        f"the server at {endpoint.url} lets flow {endpoint.flow!r} into {there}, and not into one of its "
        f"own, {wanted!r}. In a shared account {_OPEN}. Run `pratipad server` there, give its server such "
        "accounts (docs/deployment.md), or accept what stays open: FlowOptions(security='shared-account')."
    )
