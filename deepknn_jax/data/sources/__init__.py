"""Data sets as their authors publish them and users have them, a file a family."""
