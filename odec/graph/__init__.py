"""What an expression is: nodes, functions, structures, tracing, showing. Knows no op by name."""
