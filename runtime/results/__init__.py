"""Types of what is found in an input and said of a run, the table of a folder, names of files."""
