"""The part that runs beside the scanner: sessions, slides, masks, results. Imports no torch."""
