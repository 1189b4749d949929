"""The control plane: takes calls, decides how many containers run and where, remembers what must outlive it."""
