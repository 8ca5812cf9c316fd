"""What can be configured, and who is heard: keys, units, files as text, precedence. Pure: finding and reading files,
and running commands that print secrets, is for `holdfast.node.configured`.

    keys.py     every key, its kind, bounds, default and variables     units.py, values.py   texts become values
    reading.py  the text of a file (the door to PyYAML)                seeds.py              the earlier system's files
    layers.py   precedence, and what holds in the end                  schema.py             JSON Schema for editors
"""
