"""Small real data sets that come with the package; `tasks.data.embedded` is their only reader."""
