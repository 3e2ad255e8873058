"""One step of a method, as a graph."""
