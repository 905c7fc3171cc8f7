"""What people touch on the command line (floor 4): one module per subcommand, wired in `app`."""
