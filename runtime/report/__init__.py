"""Pages for people: `report.html` of a run and of each input."""
