"""A local web page that shows slides with their results: deep zoom, classes, regions."""
