"""Is confidence honest? The measures, tables and figures of `stepconf calibrate`."""
