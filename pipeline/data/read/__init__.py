"""Sources and what they hold: from a file or the hub to a row, or to a reject with its reason."""
