"""Views: pictures, plots and widgets of a flow, drawn by an installed package.

Owns finding the drawer. `session` draws nothing and imports no notebook: the drawer is found by the entry
point group `GROUP`, in which the notebook's room (or another package) names an object for each view.
"""

from __future__ import annotations

from collections.abc import Callable
from importlib.metadata import entry_points
from typing import Any

from pratipad_nb.errors import SettingsError

__all__ = ["GROUP", "view"]

GROUP = "pratipad_nb.views"


def view(name: str) -> Callable[..., Any]:
    """Return the drawer of the view of that name: "plot", "picture" or "panel".

    Raises
    ------
    SettingsError
        If no installed package draws that view, or the drawer lacks a library.
    """
    found = list(entry_points(group=GROUP, name=name))
    try:
        drawer = found[0].load() if found else None
    except ImportError as error:
        raise SettingsError(
            _missing(name, f"needs {error.name or error}, which isn't installed here")
        ) from error
    if not callable(drawer):
        raise SettingsError(_missing(name, "is drawn by nothing that is installed here"))
    return _guarded(name, drawer)


def _guarded(name: str, drawer: Callable[..., Any]) -> Callable[..., Any]:
    """Return `drawer`, raising the same `SettingsError` if a library is missing only when `drawer` draws."""

    def draw(*arguments: Any, **options: Any) -> Any:
        try:
            return drawer(*arguments, **options)
        except ImportError as error:
            raise SettingsError(
                _missing(name, f"needs {error.name or error}, which isn't installed here")
            ) from error

    return draw


def _missing(name: str, why: str) -> str:
    return f"flow.{name}() {why}. Install it: pip install 'pratipad-nb[lab]'."
