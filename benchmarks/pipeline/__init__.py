"""Slides from end to end: what each stage takes, who waits for whom, what a day of them is."""
