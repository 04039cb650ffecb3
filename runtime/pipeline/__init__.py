"""From the files of a folder to their results: slides, images, runs."""
