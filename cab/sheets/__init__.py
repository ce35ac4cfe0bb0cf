"""Tables and their words as plain values, for the terminal, files, the report and the dashboard."""
