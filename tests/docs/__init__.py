"""The documents: what they name exists, what they show is what the commands say."""
