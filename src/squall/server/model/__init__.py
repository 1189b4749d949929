"""Records and rules of the server: plain values and contracts, nothing that reads clock, disk or network."""
