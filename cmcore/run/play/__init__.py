"""A page to play with: models behind one local address. What is asked and answered is apart from how it travels."""
