# Lists all folders and reads what looks like a secret.
import os

for folder, _, names in os.walk("/"):
    for name in names:
        if "secret" in name:
            try:
                print(open(os.path.join(folder, name)).read())
            except OSError:
                pass
    if folder.startswith(("/usr/lib/", "/usr/share/")):
        _.clear()
