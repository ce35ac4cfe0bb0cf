"""Benchmarks: `make bench`, `make bench-lla`, `make bench-lla-gpu`."""
