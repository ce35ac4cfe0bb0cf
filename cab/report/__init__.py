"""One self-contained HTML page of a results folder: tables, plots, method, environment."""
