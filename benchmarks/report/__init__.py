"""What a benchmark found, as a document: its types, how it is written while it grows, and read."""
