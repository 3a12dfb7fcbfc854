"""The dashboard: the pages of the report, served while runs train."""
