"""What several folders of tests share. Readers of the machine here share no code with rmap."""
