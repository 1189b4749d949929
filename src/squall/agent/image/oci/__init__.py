"""Images of registries: fetched by skopeo, hashed and unpacked as something of strangers."""
