"""A text of others that is markup and script, and whether a page has shown it as text alone."""

#: Runs if any place takes it for HTML, for SVG, for the end of a script, or for the value of an attribute.
EVIL = (
    '</script><script>window.__pwned=1</script><img src=x onerror="window.__pwned=1">'
    '"><svg onload="window.__pwned=1"><title><script>window.__pwned=1</script>-->'
    '<a href="javascript:alert(1)">x'
)
#: The beginning of the text, which no place cuts and JSON does not escape.
PART = "</script><script>window"
#: Elements that would come of the text, wherever they stand.
_MADE = "img[src=x], svg[onload], a[href^=javascript]"


def is_text_alone(page):
    """Return whether nothing of the page has run the text, or made elements of it."""
    return page.evaluate("window.__pwned") is None and page.locator(_MADE).count() == 0
