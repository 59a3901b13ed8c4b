"""JupyterLab in a real Chromium: a package, so that its fixtures end before other asyncio tests begin."""
