"""What users keep on the server: which assets there are, and what is in them."""
