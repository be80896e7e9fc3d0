"What all rooms stand on: settings and their names, files, the machine, who takes part."
