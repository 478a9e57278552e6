"""Rate and distortion of clips under this codec and others: true files, decoded frames."""
