"""How the commands show reports: tables for the terminal, and pictures as files' contents."""
