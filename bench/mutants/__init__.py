"""Small faults put into src one at a time, to see which ones no test notices: `make mutants`."""
