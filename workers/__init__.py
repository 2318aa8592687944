"""Workers: settings, wiring, actors, relay and the command line. The only package that imports all the others."""
