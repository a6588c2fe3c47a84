from mpiconsensus.cli import main

main()
