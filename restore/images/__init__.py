"""Picture files: decode, convert, resize and encode them."""
