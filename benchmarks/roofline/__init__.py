"""How near an engine comes to what the machine can do: work of a graph, ceilings, layers."""
