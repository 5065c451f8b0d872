"""`python -m warmstart_sim` is the command line."""

from warmstart_sim.cli import main

if __name__ == "__main__":
    main()
