"""Pratipad-NB (work in progress: the public names are gathered here once their rooms exist)."""
