"""Analysis: records to tables, intervals, figures and reports; imports no torch."""
