"""python server.py runs a relay."""

from chatchain.programs.installed import Installed

with Installed():
    from chatchain.programs.server import main

if __name__ == "__main__":
    main()
