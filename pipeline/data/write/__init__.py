"""Phase three: the files of the data folder and their statistics."""
