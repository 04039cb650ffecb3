"""INT8 by evidence: ranges, quantised graphs, the search for the layers that stay wider."""
