from chatchain.programs.client import main

main()
