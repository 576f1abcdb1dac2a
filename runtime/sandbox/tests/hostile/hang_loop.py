# Computes endlessly.
while True:
    pass
