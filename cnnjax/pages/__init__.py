"""Pages to open in a browser: each is one self-contained HTML file that makes no network requests."""
