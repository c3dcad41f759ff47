"""What is said beside a number, the same in a row as in a plan: what was assumed, what the engine will get wrong."""
