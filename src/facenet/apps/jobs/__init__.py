"""Jobs: long work over many pictures, with progress; what is done once is not done again."""
