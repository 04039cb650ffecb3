"""How things are timed: in turns, with what else the machine did, and with honest percentiles."""
