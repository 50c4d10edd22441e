"""`rmap.mm`: the model, file by file, mostly under a reverse map that only keeps a diary."""
