"""What everything else speaks of: cases, verdicts, messages, columns, errors. Standard library only."""
