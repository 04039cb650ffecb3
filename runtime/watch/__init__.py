"""Folders that are watched for slides: arrivals, the queue of slides, and the service."""
