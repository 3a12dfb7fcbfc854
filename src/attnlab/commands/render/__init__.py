"""The output of reports by commands: tables for the terminal, and pictures as file contents."""
