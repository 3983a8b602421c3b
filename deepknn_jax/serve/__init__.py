"""A page on this machine alone that answers images by a run, and takes corrections: docs/serve.md.

Starlette and uvicorn, of the extra [serve], are imported in this room and nowhere else.
"""
