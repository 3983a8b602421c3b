"""The tables and figures of Deep kNN (Zhuang et al., MICCAI 2020) and Neighborhood Watch again.

A table is data. tables.toml lists its sections, each a set of sets.csv, and their rows, each a
method of methods.toml, changes to the set's config, and the vote that its figures are read from;
paper/tables.csv has what the paper prints, by table, set and label. To add a table, write its rows
there: its name is then one of --table. The head of each .toml file says what an entry may hold. A
search is an entry of searches.toml; what it chose stands in chosen.json, and docs/searches/ has all
its trials.

From there, in this order: catalog reads the data, plan makes cells of them (cells), runs finishes
the cells (sets, prepare, store), markdown shows them. figures and transferred add what stands
before the sections of some tables; counts makes tables 1 and S1; search chooses options.
`__main__` is the command.
"""
