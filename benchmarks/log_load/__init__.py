"""How fast a tuning log takes trials and gives the best ones, with as many as one asks for."""
