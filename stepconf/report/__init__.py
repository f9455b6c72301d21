"""Look at a run: `report` writes one HTML file, `view` serves the same page over a whole run."""
