"""diffeo beside other libraries: the same flows, timed in turns, one process each."""
