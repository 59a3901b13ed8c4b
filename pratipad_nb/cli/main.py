"""The entry point of ``pratipad``.

Owns the message for a machine where the command line's own libraries are not installed: one line that says
how to install them.
"""

from __future__ import annotations

import sys

__all__ = ["main"]


def main() -> None:
    """Run the command that the process's arguments name."""
    try:
        from pratipad_nb.cli.app import app
    except ModuleNotFoundError as error:
        if (error.name or "").partition(".")[0] not in ("typer", "rich"):
            raise
        sys.stderr.write(
            f"pratipad: the command line needs {error.name}. Install it: pip install 'pratipad-nb[cli]'\n"
        )
        raise SystemExit(1) from None
    app()


if __name__ == "__main__":
    main()
