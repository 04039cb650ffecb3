"""What a user would take instead for a whole slide, each run as a process of its own."""
