"""To be seen: plain data in, lines of text out. Nothing here computes an answer, prints, or knows a terminal.

Every renderer returns a list of lines of at most 80 columns, except that a path or a name is never cut. The order is
always the same: the answer, how complete it is, the rows, how it was found.
"""
