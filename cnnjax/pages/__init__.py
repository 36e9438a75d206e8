"""Pages to open in a browser: each is one HTML file that holds all it shows, and requests nothing from anywhere."""
