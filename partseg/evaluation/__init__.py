"""Average precision of predicted parts, and the table predictions are kept in."""
