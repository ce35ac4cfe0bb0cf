"""Test-time regression: how well a mechanism, left untrained, regresses on the pairs it sees."""
