"""`rmap.structs`: structures of the kernel as columns, whoever reads them."""
