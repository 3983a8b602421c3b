"""Published weights, read without running code from them.

`load` is the way in; `published` knows the publishers, `torch_files` and `torch_pickle` the files.
"""
