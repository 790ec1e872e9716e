


# Blank lines, "quotes", a \ backslash and	a tab must survive.
TEXT = 'a\\b\n"c"'


