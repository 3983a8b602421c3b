"""What a GPU does, section by section, each in a process of its own: `bench --gpu --out=FILE.json`.

Off a GPU the same sections run at small sizes, so that a machine without one can try them.
"""
