"""The page about security shows the table of rights as it is."""

from __future__ import annotations

from rights_page import PAGE, written


def test_the_page_shows_the_table_as_it_is() -> None:
    page = PAGE.read_text()
    assert "| device | publish |" in page
    assert page == written(page), "make docs"
