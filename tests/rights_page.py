"""The table in docs/security.md, made from `pratipad_nb.transport.rights`.

``python tests/rights_page.py`` writes the table anew; a test compares the page with the table.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from pathlib import Path

from pratipad_nb.transport.parties import Party
from pratipad_nb.transport.rights import Arrows, Right, rights_of

__all__ = ["PAGE", "written"]

PAGE = Path(__file__).parents[1] / "docs" / "security.md"
_MARKS = "<!-- rights -->", "<!-- /rights -->"
_HEAD = (
    "| role | may | subject | in the account of its own | only if |",
    "| --- | --- | --- | --- | --- |",
)
#: The parties stand for all of their role.
_ROLES: dict[str, Party] = {
    "device": Party("FLOW", "device", "NAME"),
    "reader": Party("FLOW", "reader", "NAME"),
    "edge": Party("FLOW", "edge"),
    "leaf": Party("FLOW", "leaf", "SITE"),
}
_ALL, _NO_ORDERS, _ONE_WAY = Arrows(), Arrows(orders=False), Arrows(orders=False, downlink=False)


def written(page: str) -> str:
    """Return `page` with its table made anew."""
    begin, end = _MARKS
    table = "\n".join((begin, *_HEAD, *_rows(), end))
    return re.sub(f"{begin}.*{end}", lambda _: table, page, flags=re.DOTALL)


def _rows() -> Iterator[str]:
    for role, party in _ROLES.items():
        for right in rights_of(party, _ALL):
            own = f"`{right.own}`" if right.own != right.subject else "the same"
            place = own if role in ("device", "reader") else "–"
            yield f"| {role} | {right.verb} | `{right.subject}` | {place} | {_condition(party, right)} |"


def _condition(party: Party, right: Right) -> str:
    if right in rights_of(party, _ONE_WAY):
        return ""
    return "an arrow lets orders pass" if right not in rights_of(party, _NO_ORDERS) else "an arrow leads back"


if __name__ == "__main__":
    PAGE.write_text(written(PAGE.read_text()))
