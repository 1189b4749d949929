"""Everything that crosses a process border: records, ids, error codes, frames, channels.

Standard library only, Python 3.10 and later, because the same code runs inside any image. Bodies (pickled arguments,
file blocks) are opaque bytes here: nothing in this package pickles or unpickles.

Rules that keep two versions able to talk:
  * a record only gains fields, each with a default; a field is never reused or given another meaning
  * unknown fields are ignored, missing ones take their default
  * a method name is never reused
"""
