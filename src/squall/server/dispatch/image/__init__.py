"""Images, as far as the server knows them."""
