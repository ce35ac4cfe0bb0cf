"""Missing variables: forecast all variables where whole histories of many are missing."""
