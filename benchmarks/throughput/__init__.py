"""How many patches, fields and slides an hour an engine computes, by batch and streams."""
