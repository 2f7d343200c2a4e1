"""python client.py is the messenger."""

from chatchain.programs.installed import Installed

with Installed():
    from chatchain.programs.client import main

    main()  # it imports the rest when it knows what is asked for
