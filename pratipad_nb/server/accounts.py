"""The accounts of a server, made from its register and the table of rights.

Owns the accounts' names, and which account exports and imports what. Who may do what is for
`pratipad_nb.transport.rights`; no other module decides that.

=============== ========================================== ================================================
account         users                                      why an account of its own
=============== ========================================== ================================================
``F_f``         the edges of the flow ``f``, and leaves    has JetStream: its streams are the flow's alone
``D_f``         devices that speak NATS                    a device's reply subjects stay here
``M_f``         devices that speak MQTT                    MQTT needs a JetStream, where it keeps sessions
``R_f:name``    the reader ``name``                        readers in one account could write each other's
                                                           positions
``SYS``         the server's owner                         tells ``F_f`` which devices come and go
=============== ========================================== ================================================

The names of a tenant's accounts begin with the tenant and ``~``. Where a flow's devices don't trust each
other, each has an account of its own, ``D_f:name``.

In the accounts of devices, a *mapping* swallows what comes under the subjects of orders and credit from
within the account: the server delivers an acknowledgement to any reply subject, so that a device could else
order another device something. Messages of the flow's account are imported, and not mapped.
"""

from __future__ import annotations

from typing import Any

from pratipad_nb.server.register import Quota, Register, Rules
from pratipad_nb.transport.parties import Party
from pratipad_nb.transport.rights import Right, rights_of
from pratipad_nb.transport.subjects import Subjects

__all__ = ["OWNER", "SYSTEM", "account_names", "account_of", "flow_account", "rendered_accounts"]

#: The name of the server's owner: a user of the system account.
OWNER = "urn:pratipad:_owner"
SYSTEM = "SYS"
#: Where mapped messages go: nobody may subscribe to it, and it is exported nowhere.
_VOID = "_void"
#: What the server may keep for the sessions of a flow's MQTT devices, in bytes: some 10,000 sessions.
_MQTT_BYTES = 64 << 20
#: A reader has one connection, and while it reconnects a second one. A device that has an account of its own
#: has no more.
_CONNECTIONS_EACH = 8

Account = dict[str, Any]


def flow_account(flow: str, tenant: str = "") -> str:
    """Return the name of the account of a flow's edges and streams."""
    return _named("F", flow, tenant)


def account_of(party: Party, rules: Rules) -> str:
    """Return the name of the account that `party` is a user of."""
    if party.role in ("edge", "leaf"):
        return flow_account(party.flow, party.tenant)
    if party.role == "reader":
        return f"{_named('R', party.flow, party.tenant)}:{party.name}"
    account = _named("M" if party.mqtt else "D", party.flow, party.tenant)
    return f"{account}:{party.name}" if rules.each_device else account


def _named(kind: str, flow: str, tenant: str) -> str:
    return f"{tenant}~{kind}_{flow}" if tenant else f"{kind}_{flow}"


def account_names(register: Register) -> set[str]:
    """Return the names of all accounts of `register`."""
    names = {SYSTEM}
    for key in register.flows:
        tenant, _, flow = key.rpartition("/")
        names.add(flow_account(flow, tenant))
        if not register.rules_of(key).each_device:
            names.add(_named("D", flow, tenant))
    names |= {account_of(party, register.rules_of(party.key)) for party in register.parties.values()}
    return names


def rendered_accounts(register: Register) -> dict[str, Account]:
    """Return all accounts of `register` by name, as the server's configuration has them."""
    accounts: dict[str, Account] = {SYSTEM: {"users": [{"user": OWNER}], "exports": []}}
    for key in register.flows:
        tenant, _, flow = key.rpartition("/")
        _add_flow(accounts, flow, tenant, register)
    for party in register.parties.values():
        rules = register.rules_of(party.key)
        name = account_of(party, rules)
        if name not in accounts:
            _add_client(accounts, name, party, rules)
        accounts[name]["users"].append(_user(party, rules))
    for tenant, quota in register.quotas.items():
        if quota.connections:
            _limit(accounts, register, tenant, quota.connections)
    for account in accounts.values():
        # Until here by kind and pattern: many readers are offered the same.
        if isinstance(exports := account.get("exports"), dict):
            account["exports"] = list(exports.values())
    return accounts


def _add_flow(accounts: dict[str, Account], flow: str, tenant: str, register: Register) -> None:
    """Add the flow's own account, and its devices', so that the first device brings no new account."""
    rules = register.rules_of(f"{tenant}/{flow}" if tenant else flow)
    edge, device = Party(flow, "edge", tenant=tenant), Party(flow, "device", "device", tenant)
    accounts[account_of(edge, rules)] = {
        "jetstream": {"max_mem": 0, "max_file": _file_bound(register, flow, tenant)},
        "users": [],
        "exports": {},
        "imports": [],
    }
    if not rules.each_device:
        _add_client(accounts, account_of(device, rules), device, rules)


def _file_bound(register: Register, flow: str, tenant: str) -> int:
    """Return how many bytes the streams of a flow may take in all; -1: any number.

    The flow's own logs have their own bounds: this is the bound of what an edge might make beyond. A tenant's
    quota is shared out among its flows.
    """
    wanted = register.rules_of(f"{tenant}/{flow}" if tenant else flow).bytes
    quota = register.quotas.get(tenant, Quota()).bytes
    if not quota:
        return wanted or -1
    flows = [key for key in register.flows if key.rpartition("/")[0] == tenant]
    return wanted + max(0, quota - register.bytes_of(tenant)) // len(flows)


def _add_client(accounts: dict[str, Account], name: str, party: Party, rules: Rules) -> None:
    """Add the account of a device or a reader, without its users, and let the flow's account export to it."""
    flow = flow_account(party.flow, party.tenant)
    exports = accounts[flow]["exports"]
    imports: dict[str, dict[str, Any]] = {}
    for right in rights_of(party, rules.arrows):
        if right.imported and right.imported not in imports:
            kind = "stream" if right.verb == "subscribe" else "service"
            imports[right.imported] = _import(kind, flow, right)
            exports.setdefault((kind, right.imported), _export(kind, right))
    account = accounts[name] = {"users": [], "imports": list(imports.values())}
    if party.role == "device":
        account["mappings"] = _swallowed(Subjects(party.flow))
        _add_presence(accounts, party, name)
    if party.mqtt:
        account["jetstream"] = {"max_mem": 0, "max_file": _MQTT_BYTES}
    if party.role == "reader" or rules.each_device:
        account["limits"] = {"max_connections": _CONNECTIONS_EACH}


def _swallowed(subjects: Subjects) -> dict[str, str]:
    patterns = (subjects.down_all, subjects.plain_all, subjects.every_credit)
    return {pattern: f"{_VOID}.{pattern.split('.')[2]}.$1" for pattern in patterns}


def _import(kind: str, account: str, right: Right) -> dict[str, Any]:
    made: dict[str, Any] = {kind: {"account": account, "subject": right.imported}}
    if right.own != right.subject:
        # Under its own name the call would have two answers, the first of them the client's own account's.
        made["to"] = right.own
    if right.traced:
        made["share"] = True
    return made


def _export(kind: str, right: Right) -> dict[str, Any]:
    made: dict[str, Any] = {kind: right.imported}
    if right.answers == "many":
        made["response_type"] = "stream"
    if right.patience:
        made["response_threshold"] = right.patience
    return made


def _add_presence(accounts: dict[str, Account], party: Party, name: str) -> None:
    """Let the flow's account ask who is connected to the account `name`, and hear who comes and goes."""
    subjects = Subjects(party.flow)
    kind = name.rpartition(":")[2] if ":" in name else ("mqtt" if party.mqtt else "devices")
    asked = f"$SYS.REQ.ACCOUNT.{name}.CONNZ"
    told = {f"$SYS.ACCOUNT.{name}.{event}": event for event in ("CONNECT", "DISCONNECT")}
    # Each node of a cluster answers.
    accounts[SYSTEM]["exports"] += [
        {"service": asked, "response_type": "stream"},
        *({"stream": subject} for subject in told),
    ]
    accounts[flow_account(party.flow, party.tenant)]["imports"] += [
        {"service": {"account": SYSTEM, "subject": asked}, "to": subjects.presence(kind)},
        *(
            {
                "stream": {"account": SYSTEM, "subject": subject},
                "to": subjects.connected(kind) if event == "CONNECT" else subjects.disconnected(kind),
            }
            for subject, event in told.items()
        ),
    ]


def _user(party: Party, rules: Rules) -> dict[str, Any]:
    allowed: dict[str, list[str]] = {"publish": [], "subscribe": []}
    for right in rights_of(party, rules.arrows):
        allowed[right.verb].append(right.own)
    return {
        "user": party.user,
        "permissions": {verb: _only(subjects) for verb, subjects in allowed.items()},
        "allowed_connection_types": [_listener(party)],
    }


def _only(subjects: list[str]) -> dict[str, list[str]]:
    # An empty list of allowed subjects would allow everything.
    return {"allow": subjects} if subjects else {"deny": [">"]}


def _listener(party: Party) -> str:
    if party.role == "leaf":
        return "LEAFNODE"
    return "MQTT" if party.mqtt else "STANDARD"


def _limit(accounts: dict[str, Account], register: Register, tenant: str, most: int) -> None:
    """Share the tenant's connections out among its devices' and readers' accounts, by how many each has."""
    holders: dict[str, set[str]] = {}
    for party in register.parties.values():
        if party.tenant == tenant and party.role in ("device", "reader"):
            name = account_of(party, register.rules_of(party.key))
            holders.setdefault(name, set()).add(party.identity)
    total = sum(map(len, holders.values()))
    for name, identities in holders.items():
        share = max(1, most * len(identities) // total)
        limits = accounts[name].setdefault("limits", {})
        limits["max_connections"] = min(share, limits.get("max_connections", share))
