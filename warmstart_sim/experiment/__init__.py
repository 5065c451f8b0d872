"""One cell: for every round, start, train, probe, record."""
